//! The bytes that a device's memory delivers in a second, which bound how fast it can generate.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use realm::Model;

/// Bytes that the threads read together: more than any cache holds.
const BYTES: usize = 1 << 29;
const ROUNDS: usize = 4;

/// Returns bytes per second: for a GPU what its driver says, for a CPU what its threads read.
pub(super) fn of(model: &Model) -> f64 {
    model.info().memory_bandwidth.map_or_else(measured, |bytes| bytes as f64)
}

/// Measures what all threads together read.
fn measured() -> f64 {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let memory = vec![1u64; BYTES / size_of::<u64>()];
    let read = || {
        let start = Instant::now();
        thread::scope(|scope| {
            for part in memory.chunks(memory.len().div_ceil(threads)) {
                scope.spawn(move || {
                    black_box(part.iter().fold(0u64, |sum, &number| sum.wrapping_add(number)))
                });
            }
        });
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| read()).fold(0.0, f64::max)
}
