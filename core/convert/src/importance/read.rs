//! Reads importances from the files that llama.cpp's `llama-imatrix` writes: GGUF, and its older form.

use std::path::Path;

use realm_compute::quant::dequantize;
use realm_gguf::Gguf;

use super::{COUNTS, Importance, SUMS};
use crate::Error;
use crate::error::short;

/// Most bytes of an older file. That of a model of 671 billion weights has 1 GB.
const MOST_BYTES: u64 = 8 << 30;

/// Opens an importance matrix that `llama-imatrix`, or [`Inputs::write`](crate::Inputs::write), wrote.
///
/// # Errors
/// Those of [`read_importance`], and [`Error::Io`] if the file cannot be read.
pub fn open_importance(path: &Path) -> Result<Importance, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut magic = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, 4), &mut magic).map_err(io)?;
    if magic == b"GGUF" {
        return read_importance(&Gguf::open(path)?);
    }
    older(&realm_gguf::read_file(path, MOST_BYTES).map_err(io)?)
}

/// Reads the older form: the number of matrices, and for each one its name, the number of calls, and the sums
/// over the calls. A file may end with the number of chunks and the text's name.
fn older(bytes: &[u8]) -> Result<Importance, Error> {
    let mut rest = bytes;
    let matrices = number(&mut rest)?;
    if matrices == 0 {
        return Err(no_importances());
    }
    let mut importance = Importance::new();
    for _ in 0..matrices {
        let len = number(&mut rest)?;
        let name = std::str::from_utf8(take(&mut rest, len)?).map_err(|_| no_importances())?.to_owned();
        let (calls, len) = (number(&mut rest)?, number(&mut rest)?);
        let sums = take(&mut rest, len.checked_mul(4).ok_or_else(no_importances)?)?;
        let divided = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes) / calls.max(1) as f32;
        let values: Vec<f32> = sums.as_chunks().0.iter().map(divided).collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite() || *value < 0.0) {
            return Err(Error::Folder(format!(
                "the importances of `{}` are no sums of squares",
                short(&name)
            )));
        }
        importance.insert(name, values);
    }
    Ok(importance)
}

fn no_importances() -> Error {
    let why = "it has no importances: a file that `llama-imatrix` or `realm quantize --imatrix-save` wrote is needed";
    Error::Folder(why.into())
}

/// Takes the next `len` bytes.
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Error> {
    let (now, later) = rest.split_at_checked(len).ok_or_else(no_importances)?;
    *rest = later;
    Ok(now)
}

/// Takes a number that is not negative.
fn number(rest: &mut &[u8]) -> Result<usize, Error> {
    let bytes = take(rest, 4)?.first_chunk().ok_or_else(no_importances)?;
    usize::try_from(i32::from_le_bytes(*bytes)).map_err(|_| no_importances())
}

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
        return Err(no_importances());
    }
    Ok(importance)
}
