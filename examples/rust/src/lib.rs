//! Runnable programs: see `examples/`.
