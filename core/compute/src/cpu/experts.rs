//! Mixtures of experts.

/// Matrices of one shape.
pub struct Experts {}
