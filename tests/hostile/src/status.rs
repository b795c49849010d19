//! The memory of this process, for tests; 0 on systems without /proc.

/// Returns the resident memory in bytes.
pub fn resident() -> usize {
    status("VmRSS:")
}

/// Returns the largest resident memory so far, in bytes.
pub fn peak() -> usize {
    status("VmHWM:")
}

fn status(key: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap_or(0) << 10
}
