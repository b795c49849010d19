//! The kernels: compiled ahead by `ci/build-kernels`, embedded in the program, loaded onto a device.

use super::attention::QUERIES;
use super::driver::{Device, Function};
use super::experts::ExpertKernels;
use super::matrix::FORMATS;
use crate::Error;

const ATTENTION: &[u8] = include_bytes!("kernels/attention.fatbin");
const ATTENTION_HOPPER: &[u8] = include_bytes!("kernels/attention_hopper.fatbin");
const CACHE: &[u8] = include_bytes!("kernels/cache.fatbin");
const DECODE: &[u8] = include_bytes!("kernels/decode.fatbin");
const ELEMENTWISE: &[u8] = include_bytes!("kernels/elementwise.fatbin");
const GEMM: &[u8] = include_bytes!("kernels/gemm.fatbin");
const HOPPER: &[u8] = include_bytes!("kernels/hopper.fatbin");
const NORMS: &[u8] = include_bytes!("kernels/norms.fatbin");
const PACK: &[u8] = include_bytes!("kernels/pack.fatbin");
const PRODUCTS: &[u8] = include_bytes!("kernels/products.fatbin");
const ROPE: &[u8] = include_bytes!("kernels/rope.fatbin");
const SAMPLING: &[u8] = include_bytes!("kernels/sampling.fatbin");

/// Head widths of pages of the cache; other widths are padded to the next one.
pub(crate) const HEAD_DIMS: [usize; 7] = [32, 64, 96, 128, 192, 256, 576];

/// Widest heads that the attention kernels take.
pub(crate) const MOST_HEAD_DIM: usize = HEAD_DIMS[HEAD_DIMS.len() - 1];

/// The kernels of `products.cu`, for few rows: most rows, outputs per block, blocks per multiprocessor.
pub(crate) const PRODUCT_SHAPES: [(usize, usize, usize); 4] =
    [(4, 16, 2), (8, 32, 1), (16, 32, 1), (32, 32, 1)];

/// The kernels of `gemm.cu`, for many rows: rows and outputs per block.
pub(crate) const GEMM_SHAPES: [(usize, usize); 2] = [(64, 64), (64, 256)];

/// A kernel of `hopper.cu`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HopperShape {
    name: &'static str,
    /// The index of the weight format.
    pub(crate) format: i32,
    /// Groups of 64 outputs per block, and rows per block.
    pub(crate) groups: usize,
    pub(crate) rows: usize,
    /// Bytes of the kernel's rings.
    bytes: usize,
    /// Nanoseconds that a multiprocessor of an H100 takes for 256 columns.
    pub(crate) time: usize,
}

impl HopperShape {
    /// Computes the same sizes as `Layout` of `hopper.cu`: a ring of `stages` for weights, and one of
    /// `row_stages` for rows.
    const fn new(
        (name, format, groups, rows): (&'static str, i32, usize, usize),
        (stages, row_stages): (usize, usize),
        time: usize,
    ) -> Self {
        let stage = match format {
            12 => rows * 128 + groups * 4 * 2048 + rows * 4,
            8 => groups * 4 * 2368 + rows * 36,
            _ => groups * 4 * 3360 + rows * 4,
        };
        let bytes = stages * stage.next_multiple_of(1024) + row_stages * rows * 128;
        Self { name, format, groups, rows, bytes, time }
    }

    /// Outputs per block.
    pub(crate) fn outputs(&self) -> usize {
        64 * self.groups
    }

    /// Threads per block: four warps for each group, and the warps that copy.
    pub(crate) fn threads(&self) -> usize {
        if self.groups > 1 { 128 * self.groups + 128 } else { 160 }
    }

    /// Bytes of shared memory; the rings begin at a multiple of 1024.
    pub(crate) fn shared(&self) -> usize {
        self.bytes + 1024
    }
}

/// The kernels of `hopper.cu`, in its order.
pub(crate) const HOPPER_SHAPES: [HopperShape; 12] = [
    HopperShape::new(("hopper_f16", 12, 1, 16), (16, 0), 990),
    HopperShape::new(("hopper_f16", 12, 1, 32), (14, 0), 990),
    HopperShape::new(("hopper_f16", 12, 1, 64), (12, 0), 1350),
    HopperShape::new(("hopper_f16", 12, 2, 64), (8, 0), 2600),
    HopperShape::new(("hopper_f16", 12, 2, 128), (6, 0), 2050),
    HopperShape::new(("hopper_q4k", 8, 1, 32), (8, 24), 1050),
    HopperShape::new(("hopper_q4k", 8, 1, 64), (5, 16), 1160),
    HopperShape::new(("hopper_q4k", 8, 2, 64), (4, 16), 1560),
    HopperShape::new(("hopper_q4k", 8, 3, 64), (3, 16), 3170),
    HopperShape::new(("hopper_q6k", 10, 1, 32), (7, 24), 1530),
    HopperShape::new(("hopper_q6k", 10, 1, 64), (5, 16), 1800),
    HopperShape::new(("hopper_q6k", 10, 2, 64), (3, 16), 2550),
];

/// Bytes of shared memory that a block may have on Hopper, minus those that kernels declare.
#[cfg(test)]
pub(crate) const MOST_SHARED_HOPPER: usize = 227 * 1024 - 1024;

/// Bytes of shared memory that a block may have on every GPU that Realm runs on.
pub(crate) const MOST_SHARED: usize = 96 * 1024;

pub(crate) struct Kernels {
    pub(crate) pack: Function,
    pub(crate) embed: Function,
    pub(crate) embed_f32: Function,
    pub(crate) product_1: Function,
    /// In the order of [`PRODUCT_SHAPES`].
    pub(crate) products: [Function; 4],
    /// In the order of the formats and of [`GEMM_SHAPES`].
    pub(crate) gemm: [[Function; 2]; FORMATS],
    /// In the order of [`HOPPER_SHAPES`], if the GPU has the instructions.
    pub(crate) hopper: Option<Vec<Function>>,
    pub(crate) product_f32: Function,
    pub(crate) rms_norm: Function,
    pub(crate) add_rms_norm: Function,
    pub(crate) any_norm: Function,
    pub(crate) add_any_norm: Function,
    pub(crate) quantize: Function,
    pub(crate) gated_activation: Function,
    pub(crate) activation: Function,
    pub(crate) add: Function,
    pub(crate) scale: Function,
    pub(crate) scale_rows: Function,
    pub(crate) copy_columns: Function,
    pub(crate) gather: Function,
    pub(crate) soft_cap: Function,
    pub(crate) rotations: Function,
    pub(crate) rope_store: Function,
    pub(crate) rope_store_any: Function,
    pub(crate) rope_store_wide: Function,
    pub(crate) copy_page: Function,
    pub(crate) store_codes: Function,
    pub(crate) lora_inner: Function,
    pub(crate) lora_outer: Function,
    /// Attention over pages of half floats, in the order of [`QUERIES`].
    pub(crate) attend: [Function; 3],
    pub(crate) attend_codes: [Function; 3],
    pub(crate) attend_floats: Function,
    /// For tiles of [`HOPPER_QUERIES`] of heads of 64 and of 128 numbers, if the GPU has the instructions.
    pub(crate) attend_hopper: Option<[Function; 2]>,
    /// Puts together what several blocks computed of a tile.
    pub(crate) attend_merge: Function,
    /// The same for at most [`FEW_LEAVES`].
    pub(crate) attend_merge_few: Function,
    pub(crate) top_k: Function,
    pub(crate) experts: ExpertKernels,
}

impl Kernels {
    pub(crate) fn load(device: &Device) -> Result<Self, Error> {
        let (attention, elementwise) = (device.load(ATTENTION)?, device.load(ELEMENTWISE)?);
        let cache = device.load(CACHE)?;
        let (pack, products) = (device.load(PACK)?, device.load(PRODUCTS)?);
        let (norms, rope) = (device.load(NORMS)?, device.load(ROPE)?);
        let product = |rows: usize| products.function(&format!("product_{rows}"), MOST_SHARED);
        // Makes a Hopper GPU use the kernels of other GPUs, for testing.
        let portable = std::env::var_os("REALM_CUDA").is_some_and(|v| v == "portable");
        let hopper = if device.describe().1 == (9, 0) && !portable {
            let module = device.load(HOPPER)?;
            let kernel = |shape: HopperShape| {
                module.function(&format!("{}_{}_{}", shape.name, shape.groups, shape.rows), shape.shared())
            };
            Some(HOPPER_SHAPES.into_iter().map(kernel).collect::<Result<Vec<_>, Error>>()?)
        } else {
            None
        };
        let attend_hopper = if hopper.is_some() {
            let module = device.load(ATTENTION_HOPPER)?;
            let kernel = |dim: usize| module.function(&format!("attend_hopper_{dim}"), device.shared()[0]);
            Some([kernel(64)?, kernel(128)?])
        } else {
            None
        };
        let gemms = device.load(GEMM)?;
        let mut gemm = Vec::with_capacity(FORMATS);
        for format in 0..FORMATS {
            let kernel = |shape: usize| gemms.function(&format!("gemm_{shape}_{format}"), MOST_SHARED);
            gemm.push([kernel(64)?, kernel(256)?]);
        }
        let attend = |name: &str| -> Result<[Function; 3], Error> {
            let kernel = |n: usize| attention.crowded(&format!("{name}_{n}"), device.shared()[0]);
            Ok([kernel(QUERIES[0])?, kernel(QUERIES[1])?, kernel(QUERIES[2])?])
        };
        Ok(Self {
            gemm: gemm.try_into().map_err(|_| Error::Device("product kernels".into()))?,
            hopper,
            attend_hopper,
            pack: pack.function("pack", 0)?,
            embed: pack.function("embed", 0)?,
            embed_f32: pack.function("embed_f32", 0)?,
            product_1: device.load(DECODE)?.function("product_1", super::decode::room(device))?,
            products: [product(4)?, product(8)?, product(16)?, product(32)?],
            product_f32: products.function("product_f32", 0)?,
            rms_norm: norms.function("rms_norm", 0)?,
            add_rms_norm: norms.function("add_rms_norm", 0)?,
            any_norm: norms.function("any_norm", 0)?,
            add_any_norm: norms.function("add_any_norm", 0)?,
            quantize: elementwise.function("quantize", 0)?,
            gated_activation: elementwise.function("gated", 0)?,
            activation: elementwise.function("activation", 0)?,
            add: elementwise.function("add", 0)?,
            scale: elementwise.function("scale", 0)?,
            scale_rows: elementwise.function("scale_rows", 0)?,
            copy_columns: elementwise.function("copy_columns", 0)?,
            gather: elementwise.function("gather", 0)?,
            soft_cap: elementwise.function("soft_cap", 0)?,
            rotations: rope.function("rotations", 0)?,
            rope_store: rope.function("rope_store", 0)?,
            rope_store_any: rope.function("rope_store_any", 0)?,
            rope_store_wide: rope.function("rope_store_wide", 0)?,
            copy_page: cache.function("copy_page", 0)?,
            store_codes: cache.function("store_codes", 0)?,
            lora_inner: elementwise.function("lora_inner", 0)?,
            lora_outer: elementwise.function("lora_outer", 0)?,
            attend: attend("attend")?,
            attend_codes: attend("attend_codes")?,
            attend_floats: attention.crowded("attend_floats_4", device.shared()[0])?,
            attend_merge: attention.function("attend_merge", 0)?,
            attend_merge_few: attention.function("attend_merge_few", 0)?,
            top_k: device.load(SAMPLING)?.function("best", 0)?,
            experts: ExpertKernels::load(device)?,
        })
    }
}
