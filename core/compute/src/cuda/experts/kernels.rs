//! The kernels of mixtures, and their sizes.

use super::super::driver::{Device, Function};
use super::super::kernels::{MOST_SHARED, ring_bytes};
use super::super::matrix::{CHUNK, FORMATS, Form, Format};
use crate::Error;

const ROUTE: &[u8] = include_bytes!("../kernels/route.fatbin");
const EXPERTS: &[u8] = include_bytes!("../kernels/experts.fatbin");
const EXPERTS_GEMM: &[u8] = include_bytes!("../kernels/experts_gemm.fatbin");
const EXPERTS_HOPPER: &[u8] = include_bytes!("../kernels/experts_hopper.fatbin");
const EXPERTS_LORA: &[u8] = include_bytes!("../kernels/experts_lora.fatbin");

/// Most experts of a mixture, and most that a row uses.
pub(super) const MOST_EXPERTS: usize = 512;
pub(super) const MOST_USED: usize = 32;

/// The kernels of `route.cu`: rows of a group, and experts of a block.
pub(super) const ROUTE_SHAPES: [(usize, usize); 3] = [(1, 8), (4, 8), (16, 32)];

/// Rows of a segment for the kernels of `experts.cu`, and, at last, of `experts_gemm.cu`.
pub(super) const SEGMENT_ROWS: [usize; 4] = [8, 16, 32, 64];

/// Rows of a segment for the kernels of `experts_hopper.cu`.
pub(super) const WIDE_ROWS: usize = 128;

/// The kernels of `experts_hopper.cu`: name, format, rows of a block, and pieces of its rings.
const WIDE: [(&str, i32, usize, (usize, usize)); 3] =
    [("q4k", 8, 128, (3, 9)), ("q6k", 10, 128, (2, 9)), ("mxfp4", 13, 128, (3, 9))];

/// A kernel of `experts_hopper.cu`.
pub(super) struct Wide {
    pub(super) format: i32,
    pub(super) rows: usize,
    pub(super) shared: usize,
    pub(super) function: Function,
}

/// Warps of a block of few rows.
const FEW_WARPS: usize = 4;

/// Bytes of shared memory in which a block of few rows leaves its sums.
const SUMS: usize = 24 * 1024;

/// The kernels of mixtures.
pub(crate) struct ExpertKernels {
    /// In the order of [`ROUTE_SHAPES`].
    pub(super) route: [Function; 3],
    /// In the order of the formats: for segments of one row, and of the first of [`SEGMENT_ROWS`].
    pub(super) few: Vec<[Function; 4]>,
    /// In the order of the formats.
    pub(super) many: Vec<Function>,
    pub(super) row_downs: Vec<Function>,
    pub(super) combine: Function,
    pub(super) quantize_places: Function,
    pub(super) experts_f32: Function,
    pub(super) activate_places: Function,
    pub(super) heads_table: Function,
    /// The kernels for Hopper, if the GPU has the instructions.
    pub(super) wide: Vec<Wide>,
    pub(super) quantize_slots: Function,
    pub(super) lora_inner: Function,
    pub(super) lora_outer: Function,
    pub(super) activate_adapted: Function,
}

impl ExpertKernels {
    pub(crate) fn load(device: &Device, hopper: bool) -> Result<Self, Error> {
        let (route, experts, gemm) = (device.load(ROUTE)?, device.load(EXPERTS)?, device.load(EXPERTS_GEMM)?);
        let lora = device.load(EXPERTS_LORA)?;
        let router = |rows: usize| route.function(&format!("route_{rows}"), 0);
        let few = |format: usize| -> Result<[Function; 4], Error> {
            let kernel = |rows: usize| experts.function(&format!("few_{rows}_{format}"), MOST_SHARED);
            Ok([kernel(1)?, kernel(8)?, kernel(16)?, kernel(32)?])
        };
        let plain = |name| experts.function(name, 0);
        let module = device.load(EXPERTS_HOPPER)?;
        let wide = |(name, format, rows, stages): (&str, i32, usize, (usize, usize))| {
            let shared = ring_bytes(format, 2, rows, stages) + 1024;
            let function = module.function(&format!("experts_{name}"), shared)?;
            Ok(Wide { format, rows, shared, function })
        };
        let some = if hopper { &WIDE[..] } else { &[] };
        Ok(Self {
            wide: some.iter().copied().map(wide).collect::<Result<_, Error>>()?,
            quantize_slots: module.function("quantize_slots", 0)?,
            route: [router(1)?, router(4)?, router(16)?],
            few: (0..FORMATS).map(few).collect::<Result<_, _>>()?,
            many: (0..FORMATS)
                .map(|format| gemm.function(&format!("experts_many_{format}"), MOST_SHARED))
                .collect::<Result<_, _>>()?,
            row_downs: (0..FORMATS)
                .map(|format| experts.function(&format!("row_downs_{format}"), MOST_SHARED))
                .collect::<Result<_, _>>()?,
            combine: plain("combine")?,
            quantize_places: plain("quantize_places")?,
            experts_f32: plain("experts_f32")?,
            activate_places: plain("activate_places")?,
            heads_table: plain("heads_table")?,
            lora_inner: lora.function("experts_lora_inner", 0)?,
            lora_outer: lora.function("experts_lora_outer", 0)?,
            activate_adapted: lora.function("activate_adapted", 0)?,
        })
    }
}

/// Rows of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One row.
    One,
    /// Up to as many as an entry of [`SEGMENT_ROWS`].
    Few(usize),
    /// As many as the last entry.
    Many,
    /// [`WIDE_ROWS`].
    Wide,
}

impl Shape {
    /// The shape of the segments of an index of [`SEGMENT_ROWS`].
    pub(super) fn of(index: usize) -> Self {
        if index + 1 < SEGMENT_ROWS.len() { Self::Few(index) } else { Self::Many }
    }

    /// Rows at most.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::One => 1,
            Self::Few(index) => SEGMENT_ROWS[index],
            Self::Many => SEGMENT_ROWS[SEGMENT_ROWS.len() - 1],
            Self::Wide => WIDE_ROWS,
        }
    }
}

/// Blocks of few rows on a multiprocessor; `few_blocks` of `experts.cu` has the same rule.
pub(super) fn few_blocks(format: Format, rows: usize) -> usize {
    if format.form == Form::F16 || rows == 32 {
        return 2;
    }
    // Types with a minimum for 32 weights; with codes of 5, 6 and 8 bits; and NVFP4.
    let large = matches!(format.index, 1..=4 | 9 | 10 | 14);
    match (rows, large) {
        (1, true) => 3,
        (1, false) => 5,
        (8, _) => 4 - large as usize,
        _ => 3 - large as usize,
    }
}

/// Number of chunks whose sums a block of few rows keeps at a time, and the bytes that they take with what
/// was added up before.
pub(super) fn few_round(format: Format, rows: usize, columns: usize) -> (usize, usize) {
    // Half floats have no kernel of their own for one row.
    let rows = if format.form == Form::F16 { rows.max(8) } else { rows };
    // 32 outputs, padded.
    let chunk = rows * 36 * 4;
    let most = (SUMS / chunk / FEW_WARPS * FEW_WARPS).max(FEW_WARPS);
    let round = columns.div_ceil(CHUNK).next_multiple_of(FEW_WARPS).min(most);
    (round, (round + 1) * chunk)
}

/// Bytes of shared memory for weights on their way: each warp of a block of few rows has two chunks of two
/// tiles.
pub(super) fn few_ahead(format: Format) -> usize {
    if format.form == Form::F16 { 0 } else { FEW_WARPS * 4 * format.tile_bytes(4) }
}

/// Bytes of shared memory of `row_downs`, if it has room for a row's `used` experts of `columns` inputs.
pub(super) fn row_downs_shared(format: Format, used: usize, columns: usize) -> Option<usize> {
    let (padded, chunks) = (columns.next_multiple_of(64), columns.div_ceil(CHUNK));
    let forms = match format.form {
        Form::F16 => [2 * used * padded, 4 * used * chunks, 0],
        Form::Q32 => [used * padded, used * padded / 8, used * padded / 8],
        _ => [used * padded, used * padded / 8, 4 * used * chunks],
    };
    let parts = forms.into_iter().chain([used * chunks * 16 * 4, used * 16 * 4]);
    let bytes = parts.map(|bytes| bytes.next_multiple_of(16)).sum();
    (bytes <= MOST_SHARED).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use realm_gguf::TensorType;

    use super::*;

    #[test]
    fn sums_of_few_rows_fit_into_shared_memory() {
        for rows in [1, 8, 16, 32] {
            for columns in [64, 768, 2048, 2880, 7168, 32_768] {
                for format in TensorType::ALL.into_iter().filter_map(Format::of) {
                    let (round, bytes) = few_round(format, rows, columns);
                    assert!(round >= 4 && round % 4 == 0);
                    assert!(bytes + few_ahead(format) <= MOST_SHARED, "{format:?}: {bytes}");
                }
            }
        }
    }

    #[test]
    fn a_rows_downs_take_one_launch_in_models_that_exist() {
        let shared = |ty, used, columns| row_downs_shared(Format::of(ty).unwrap(), used, columns);
        assert!(shared(TensorType::Q4_K, 8, 768).is_some());
        assert!(shared(TensorType::MXFP4, 4, 2880).is_some());
        assert!(shared(TensorType::Q6_K, 2, 14_336).is_some());
        assert!(shared(TensorType::F16, 8, 14_336).is_none());
    }
}
