//! Mixtures of experts.

/// Matrices of one shape.
pub struct Experts {}
impl Experts {
    pub(crate) fn shape(&self) -> [usize; 3] {
        [0; 3]
    }
}
