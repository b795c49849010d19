//! Programs that chance made.
