//! What the examples that measure attention share.

/// Sequences, tokens in the cache of each, and rows that each adds.
pub(crate) type Workload = [usize; 3];

/// Returns the workloads that the command line names, as `SxCxR`, or else `usual`, and the numbers beside
/// them.
pub(crate) fn arguments(usual: &[Workload]) -> (Vec<Workload>, Vec<usize>) {
    let (work, numbers): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.contains('x'));
    let workload = |word: &String| {
        let numbers: Vec<usize> = word.split('x').filter_map(|n| n.parse().ok()).collect();
        numbers.try_into().ok()
    };
    let mut work: Vec<Workload> = work.iter().filter_map(workload).collect();
    if work.is_empty() {
        work.extend(usual);
    }
    (work, numbers.iter().filter_map(|word| word.parse().ok()).collect())
}
