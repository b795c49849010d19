//! Scheduler, sampling and generations.
