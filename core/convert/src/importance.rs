//! Importances of columns, from the files that llama.cpp's `llama-imatrix` writes.

use std::collections::HashMap;

use realm_compute::quant::dequantize;
use realm_gguf::Gguf;

use crate::Error;

/// Importances of the columns of matrices, by the matrix's name: see [`quantize`](crate::quantize()).
pub type Importance = HashMap<String, Vec<f32>>;

/// Suffixes of the sums of squares of a matrix's inputs, and of the number of inputs.
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Reads an importance matrix in GGUF format: for each matrix the mean square of each input, for experts one
/// after the other. Experts that no text has chosen get equal importances.
///
/// # Errors
/// [`Error::Folder`] for a file that is none, or that contradicts itself; [`Error::Gguf`] if it cannot be
/// read.
pub fn read_importance(file: &Gguf) -> Result<Importance, Error> {
    let mut importance = Importance::new();
    for tensor in file.tensors() {
        let Some(name) = tensor.name.strip_suffix(SUMS) else { continue };
        let numbers = |name: &str| -> Result<Vec<f32>, Error> {
            let (info, mut buffer) = (file.require_tensor(name)?, Vec::new());
            let mut values = vec![0.0; info.len()];
            let read = dequantize(info.ty, file.read(info, &mut buffer)?, &mut values);
            read.map_err(|why| Error::in_tensor(name, why)).map(|()| values)
        };
        let (mut sums, counts) = (numbers(&tensor.name)?, numbers(&format!("{name}{COUNTS}"))?);
        let columns = tensor.shape[0] as usize;
        if counts.len() * columns != sums.len()
            || sums.iter().chain(&counts).any(|n| !n.is_finite() || *n < 0.0)
        {
            return Err(Error::Folder(format!(
                "the importances of `{name}` are no sums of squares and their counts"
            )));
        }
        for (sums, count) in sums.chunks_exact_mut(columns).zip(counts) {
            sums.iter_mut().for_each(|sum| *sum = if count > 0.0 { *sum / count } else { 1.0 });
        }
        importance.insert(name.to_owned(), sums);
    }
    if importance.is_empty() {
        let why = "it has no importances: a file that `llama-imatrix --output-format gguf` wrote is needed";
        return Err(Error::Folder(why.into()));
    }
    Ok(importance)
}
