//! Importances of columns: how much each input of a matrix matters, by its mean square over a text.
//!
//! `collect` runs a model over a text, `write` saves what it found as llama.cpp's `llama-imatrix` does, and
//! `read` reads files of either.

mod collect;
mod read;
mod write;

use std::collections::HashMap;

pub use collect::Inputs;
pub use read::{open_importance, read_importance};

/// Importances of the columns of matrices, by the matrix's name: see [`quantize`](crate::quantize()).
pub type Importance = HashMap<String, Vec<f32>>;

/// Suffixes of the sums of squares of a matrix's inputs, and of the number of inputs.
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
