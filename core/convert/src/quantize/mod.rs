//! Quantizers: from floats to the blocks of GGUF's tensor types.
//!
//! Each minimizes the sum of squared errors over scales and codes; with importances, the error of column `c`
//! counts `importance[c]` times. Without knowledge of a matrix's inputs, equal weights are the expectation.
//! Block layouts: `block_*` in ggml's `ggml-common.h`, and `realm_compute::quant`, which reads them.

mod blocks;
mod fit;
mod levels;
mod supers;

use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use realm_gguf::TensorType;

use crate::Error;
use fit::Block;
use supers::Super;

/// The types that can be written, smallest first.
pub const WRITTEN: [TensorType; 16] = [
    TensorType::Q2_K,
    TensorType::Q3_K,
    TensorType::MXFP4,
    TensorType::IQ4_XS,
    TensorType::Q4_0,
    TensorType::IQ4_NL,
    TensorType::Q4_K,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_K,
    TensorType::Q5_1,
    TensorType::Q6_K,
    TensorType::Q8_0,
    TensorType::F16,
    TensorType::BF16,
    TensorType::F32,
];

/// Appends `values`, rows of `columns` numbers, to `out` as blocks of `ty`, on several threads.
///
/// `importance` has a weight of at least 0 for each column, or for each column of each of several matrices
/// that lie one after the other; only their ratios within a matrix count.
///
/// # Errors
/// [`Error::Quantize`] for a type that cannot be written, rows that are no whole blocks, importances of
/// another length, NaN or infinity, and numbers that `ty` cannot hold.
///
/// ```
/// use realm_convert::quantize;
/// use realm_gguf::TensorType;
///
/// let row: Vec<f32> = (0..32).map(|i| i as f32).collect();
/// let mut blocks = Vec::new();
/// quantize(TensorType::Q8_0, &row, 32, None, &mut blocks)?;
/// assert_eq!(blocks.len(), 34);
/// # Ok::<(), realm_convert::Error>(())
/// ```
pub fn quantize(
    ty: TensorType,
    values: &[f32],
    columns: usize,
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Quantize(why));
    if columns == 0 || !columns.is_multiple_of(ty.block_len()) || !values.len().is_multiple_of(columns) {
        let (numbers, block) = (values.len(), ty.block_len());
        return refuse(format!(
            "{numbers} numbers in rows of {columns} are no rows of {ty}'s blocks of {block}"
        ));
    }
    let Some(quantizer) = quantizer(ty) else {
        let known: Vec<_> = WRITTEN.iter().map(ToString::to_string).collect();
        return refuse(format!("{ty} cannot be written; {} can", known.join(", ")));
    };
    let rows = values.len() / columns;
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return refuse(format!("number {at} is {}; weights are finite", values[at]));
    }
    let most = largest(ty);
    if let Some(at) = values.iter().position(|v| v.abs() > most) {
        return refuse(format!("number {at} is {}; {ty} holds up to {most}. Choose bf16", values[at]));
    }
    let weights = importance.map(|importance| weights(importance, columns, rows)).transpose()?;
    let row_bytes = columns / ty.block_len() * ty.block_bytes();
    let start = out.len();
    out.resize(start + rows * row_bytes, 0);
    let out = &mut out[start..];
    // Matrices have the same number of rows each.
    let rows_of_one = weights.as_ref().map_or(rows, |w| rows / (w.len() / columns)).max(1);
    let row = |i: usize, out: &mut [u8]| {
        let x = &values[i * columns..][..columns];
        let w = weights.as_ref().map(|w| &w[i / rows_of_one * columns..][..columns]);
        quantizer(x, w, out);
    };
    in_parallel(out, row_bytes, columns, &row);
    Ok(())
}

/// Calls `row` with each row of `out`, on as many threads as there are processors.
fn in_parallel(out: &mut [u8], row_bytes: usize, columns: usize, row: &(dyn Fn(usize, &mut [u8]) + Sync)) {
    /// Fewest numbers that a thread takes at a time.
    const PIECE: usize = 1 << 14;
    let rows_at_once = (PIECE / columns).max(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(out.len().div_ceil(row_bytes * rows_at_once));
    let pieces = Mutex::new(out.chunks_mut(row_bytes * rows_at_once).enumerate());
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((i, piece)) = next() {
            piece.chunks_mut(row_bytes).enumerate().for_each(|(j, out)| row(i * rows_at_once + j, out));
        }
    };
    std::thread::scope(|scope| {
        // If no other thread can be started, this one does the work.
        (1..threads).for_each(|_| drop(std::thread::Builder::new().spawn_scoped(scope, work)));
        work();
    });
}

/// The largest magnitude that `ty` holds: scales are f16.
fn largest(ty: TensorType) -> f32 {
    let half = f16::MAX.to_f32();
    match ty {
        TensorType::F32 | TensorType::BF16 | TensorType::MXFP4 => f32::MAX,
        _ => half,
    }
}

/// Checks importances and makes the mean of each matrix 1, with a floor that keeps columns which were never
/// used from becoming noise.
fn weights(importance: &[f32], columns: usize, rows: usize) -> Result<Vec<f32>, Error> {
    const FLOOR: f32 = 1e-4;
    let matrices = importance.len() / columns;
    let fits = matrices > 0 && importance.len().is_multiple_of(columns) && rows.is_multiple_of(matrices);
    if !fits || importance.iter().any(|w| !w.is_finite() || *w < 0.0) {
        let len = importance.len();
        let why =
            format!("{len} importances for {rows} rows of {columns}; each column needs one of at least 0");
        return Err(Error::Quantize(why));
    }
    let mut weights = importance.to_vec();
    for matrix in weights.chunks_mut(columns) {
        let mean = (matrix.iter().map(|&w| f64::from(w)).sum::<f64>() / columns as f64) as f32;
        matrix.iter_mut().for_each(|w| *w = if mean > 0.0 { (*w / mean).max(FLOOR) } else { 1.0 });
    }
    Ok(weights)
}

/// Writes a row: numbers, their weights, blocks that are 0 so far.
type Row = fn(&[f32], Option<&[f32]>, &mut [u8]);

fn quantizer(ty: TensorType) -> Option<Row> {
    macro_rules! small {
        ($each:path) => {
            |x, w, out| {
                let ws = w.map(|w| w.as_chunks::<32>().0);
                let size = out.len() / (x.len() / 32);
                for (i, (x, out)) in x.as_chunks::<32>().0.iter().zip(out.chunks_exact_mut(size)).enumerate()
                {
                    $each(Block { x, w: ws.map_or(&[1.0; 32], |w| &w[i]) }, out);
                }
            }
        };
    }
    macro_rules! large {
        ($each:path) => {
            |x, w, out| {
                let ws = w.map(|w| w.as_chunks::<256>().0);
                let size = out.len() / (x.len() / 256);
                for (i, (x, out)) in x.as_chunks::<256>().0.iter().zip(out.chunks_exact_mut(size)).enumerate()
                {
                    $each(Super { x, w: ws.map_or(&[1.0; 256], |w| &w[i]) }, out);
                }
            }
        };
    }
    macro_rules! float {
        ($bytes:expr) => {
            |x, _, out| {
                let size = out.len() / x.len();
                x.iter().zip(out.chunks_exact_mut(size)).for_each(|(&x, out)| out.copy_from_slice(&$bytes(x)))
            }
        };
    }
    Some(match ty {
        TensorType::F32 => float!(f32::to_le_bytes),
        TensorType::F16 => float!(|x| f16::from_f32(x).to_le_bytes()),
        TensorType::BF16 => float!(|x| bf16::from_f32(x).to_le_bytes()),
        TensorType::Q4_0 => small!(blocks::q4_0),
        TensorType::Q4_1 => small!(blocks::q4_1),
        TensorType::Q5_0 => small!(blocks::q5_0),
        TensorType::Q5_1 => small!(blocks::q5_1),
        TensorType::Q8_0 => small!(blocks::q8_0),
        TensorType::IQ4_NL => small!(blocks::iq4_nl),
        TensorType::MXFP4 => small!(blocks::mxfp4),
        TensorType::Q2_K => large!(supers::q2_k),
        TensorType::Q3_K => large!(supers::q3_k),
        TensorType::Q4_K => large!(supers::q4_k),
        TensorType::Q5_K => large!(supers::q5_k),
        TensorType::Q6_K => large!(supers::q6_k),
        TensorType::IQ4_XS => large!(supers::iq4_xs),
        _ => return None,
    })
}
