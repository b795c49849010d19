//! The output of `realm tenant new`: a small program, and the SDK beside it, so that it builds without
//! further steps.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::output::say;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../scaffold/", $path)))),*]
    };
}

/// The SDK, as it is in this version of Realm: copies that `ci/copies` writes. A `Cargo.toml` is called
/// `manifest.toml` here, since cargo leaves folders with a `Cargo.toml` out of a package.
const SDK: &[(&str, &str)] = files![
    "sdk/manifest.toml",
    "sdk/README.md",
    "sdk/src/answer.rs",
    "sdk/src/bindings.rs",
    "sdk/src/error.rs",
    "sdk/src/lib.rs",
    "sdk/src/output.rs",
    "sdk/src/policy.rs",
    "sdk/src/program.rs",
    "sdk/src/request.rs",
    "sdk/src/sequence.rs",
    "sdk/wit/host.wit",
    "sdk/wit/layers.wit",
    "sdk/wit/logits.wit",
    "sdk/wit/models.wit",
    "sdk/wit/sequences.wit",
    "sdk/wit/types.wit",
    "sdk/wit/worlds.wit",
    "sdk-macros/manifest.toml",
    "sdk-macros/src/lib.rs",
];

/// The workspace with the versions that the SDK's manifests refer to.
const SDK_WORKSPACE: &str = include_str!("../../scaffold/workspace.toml");

const MANIFEST: &str = include_str!("../../scaffold/template/program.toml");
const PROGRAM: &str = include_str!("../../scaffold/template/src/lib.rs");

/// Writes a program to a folder that is empty or does not exist yet.
pub(super) fn write(folder: &Path) -> Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str()).context("the folder needs a name")?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic());
    ensure!(is_name, "`{name}` is no name for a program: letters, digits, - and _, beginning with a letter");
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is there already and not empty", folder.display());
    }
    let manifest =
        MANIFEST.replace("{{name}}", name).replace("{{realm-tenant}}", "{ path = \"realm-tenant/sdk\" }");
    // A workspace of its own, wherever the folder is.
    let manifest = format!("{manifest}\n[workspace]\nexclude = [\"realm-tenant\"]\n");
    let mut files = vec![
        ("Cargo.toml".to_owned(), manifest),
        (".gitignore".to_owned(), "/target\n*.wasm\n".to_owned()),
        ("src/lib.rs".to_owned(), PROGRAM.to_owned()),
        ("realm-tenant/Cargo.toml".to_owned(), SDK_WORKSPACE.to_owned()),
    ];
    files.extend(SDK.iter().map(|(path, text)| {
        (format!("realm-tenant/{}", path.replace("manifest.toml", "Cargo.toml")), (*text).to_owned())
    }));
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let shown = folder.display();
    say!(
        "{shown}/src/lib.rs is the program; {shown}/realm-tenant is the SDK\nnext: realm tenant build {shown}"
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_files_of_the_sdk_are_written() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scaffold");
        let mut there = BTreeSet::new();
        for folder in ["sdk/src", "sdk-macros/src", "sdk/wit"] {
            for entry in root.join(folder).read_dir().unwrap() {
                there.insert(format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()));
            }
        }
        let written: BTreeSet<String> = SDK.iter().map(|(path, _)| (*path).to_owned()).collect();
        let missing: Vec<_> = there.difference(&written).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
