//! The memory of this process, for tests; 0 where there is no /proc.

/// Bytes that it has now.
pub fn resident() -> usize {
    status("VmRSS:")
}

/// The most it has had.
pub fn peak() -> usize {
    status("VmHWM:")
}

fn status(key: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap_or(0) << 10
}
