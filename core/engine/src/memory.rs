//! The memory that this process may still take.

use std::path::{Path, PathBuf};

/// Returns the bytes of memory that this process can still take without swapping or being killed; `None`
/// where the system does not say.
///
/// The result is the least of:
///
/// - what the machine has (`MemAvailable`);
/// - what the process's control groups leave, of both versions (file pages do not count, since the kernel
///   reclaims them);
/// - what its limits of address space and data leave;
/// - the environment's `REALM_MEMORY`, such as `1500MiB` or `8GiB`, which makes Realm take less.
pub fn available_memory() -> Option<u64> {
    let own = std::env::var("REALM_MEMORY").ok().and_then(|text| {
        let bytes = parse(&text);
        if bytes.is_none() {
            tracing::warn!(
                "REALM_MEMORY is `{text}`; it has no effect: write a size such as 1500MiB or 8GiB"
            );
        }
        bytes
    });
    available_in(Path::new("/")).into_iter().chain(own).min()
}

/// Parses a number of bytes, with or without a binary unit.
fn parse(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Reads [`available_memory`] from the files under `root`.
fn available_in(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib << 10);
    let groups = read("proc/self/cgroup").map(|text| groups(root, &text)).unwrap_or_default();
    let status = read("proc/self/status").unwrap_or_default();
    let limits = read("proc/self/limits").unwrap_or_default();
    let limit = |limit: &str, used: &str| {
        let most = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        let most: u64 = most.split_whitespace().next()?.parse().ok()?;
        Some(most.saturating_sub(field(&status, used)? << 10))
    };
    let limits = [limit("Max address space", "VmSize:"), limit("Max data size", "VmData:")];
    machine.into_iter().chain(groups).chain(limits.into_iter().flatten()).min()
}

/// Returns what each control group of `/proc/self/cgroup`, and each group above it, leaves.
fn groups(root: &Path, text: &str) -> Vec<u64> {
    let mut left = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mounts, group): (&[&str], &Group) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], &V2),
            _ if controllers.split(',').any(|c| c == "memory") => (&["sys/fs/cgroup/memory"], &V1),
            _ => continue,
        };
        for mount in mounts {
            let mount = root.join(mount);
            // A container sees its own group at the mount's root, whatever path the file names.
            let mut folder = path.trim_start_matches('/');
            loop {
                left.extend(group.left(&mount.join(folder)));
                if folder.is_empty() {
                    break;
                }
                folder = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
            }
        }
    }
    left
}

/// The names of a control group's files.
struct Group {
    limit: &'static str,
    usage: &'static str,
    /// Fields of `memory.stat` for file pages, which the kernel reclaims when memory is short.
    files: [&'static str; 2],
}

const V2: Group =
    Group { limit: "memory.max", usage: "memory.current", files: ["active_file ", "inactive_file "] };
const V1: Group = Group {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: ["total_active_file ", "total_inactive_file "],
};

impl Group {
    /// Returns the bytes that a group leaves; `None` where it has no limit.
    fn left(&self, folder: &Path) -> Option<u64> {
        let read = |file: &str| std::fs::read_to_string(PathBuf::from(folder).join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        let stat = read("memory.stat").unwrap_or_default();
        let files: u64 = self.files.iter().filter_map(|key| field(&stat, key)).sum();
        Some(limit.saturating_sub(usage.saturating_sub(files)))
    }
}

/// Returns the number after `key` at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a file tree like that of a system with the given files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:   8000 kB\n");

    #[test]
    fn the_least_of_all_limits_counts() {
        assert_eq!(available_in(system(&[]).path()), None);
        assert_eq!(available_in(system(&[MEMINFO]).path()), Some(8000 << 10));
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax address space   3000000   unlimited   bytes\n\
                      Max data size   unlimited   unlimited   bytes\n";
        let status = ("proc/self/status", "VmSize:\t   1000 kB\nVmData:\t    500 kB\n");
        let root = system(&[MEMINFO, ("proc/self/limits", limits), status]);
        assert_eq!(available_in(root.path()), Some(3_000_000 - (1000 << 10)));
    }

    #[test]
    fn a_group_and_those_around_it_count_without_pages_of_files() {
        let inner = "sys/fs/cgroup/app/worker";
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/app/worker\n"),
            (&format!("{inner}/memory.max"), "max\n"),
            (&format!("{inner}/memory.current"), "900000\n"),
            ("sys/fs/cgroup/app/memory.max", "1000000\n"),
            ("sys/fs/cgroup/app/memory.current", "900000\n"),
            ("sys/fs/cgroup/app/memory.stat", "anon 200000\ninactive_file 500000\nactive_file 200000\n"),
        ];
        assert_eq!(available_in(system(&files).path()), Some(800_000));
        // In a container, the path that the file names is the host's.
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu:/\n4:memory:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "700000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "600000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100000\ntotal_active_file 1000\n"),
        ];
        assert_eq!(available_in(system(&files).path()), Some(201_000));
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("1000", 1000), ("2k", 2048), ("1500MiB", 1500 << 20), (" 8 GiB ", 8 << 30)] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "12 apples", "99999999999999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
