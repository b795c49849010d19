//! The kernels: compiled ahead by `ci/build-kernels`, part of the program, loaded onto a device.

use super::driver::{Device, Function};
use super::matrix::FORMATS;
use crate::Error;

const ATTENTION: &[u8] = include_bytes!("kernels/attention.fatbin");
const ELEMENTWISE: &[u8] = include_bytes!("kernels/elementwise.fatbin");
const GEMM: &[u8] = include_bytes!("kernels/gemm.fatbin");
const PACK: &[u8] = include_bytes!("kernels/pack.fatbin");
const PRODUCTS: &[u8] = include_bytes!("kernels/products.fatbin");

/// Widths of heads that the attention kernels are compiled for; others are padded to the next one.
pub(crate) const HEAD_DIMS: [usize; 6] = [32, 64, 96, 128, 192, 256];

/// The kernels of `products.cu`, for few rows: most rows, outputs of a block, blocks that a multiprocessor takes.
pub(crate) const PRODUCT_SHAPES: [(usize, usize, usize); 4] =
    [(4, 16, 2), (8, 32, 1), (16, 32, 1), (32, 32, 1)];

/// The kernels of `gemm.cu`, for many rows: rows and outputs of a block.
pub(crate) const GEMM_SHAPES: [(usize, usize); 2] = [(64, 64), (64, 256)];

/// Bytes of shared memory that a block may have on every GPU that Realm runs on.
pub(crate) const MOST_SHARED: usize = 96 * 1024;

pub(crate) struct Kernels {
    pub(crate) pack: Function,
    pub(crate) embed: Function,
    pub(crate) embed_f32: Function,
    /// In the order of [`PRODUCT_SHAPES`].
    pub(crate) products: [Function; 4],
    /// In the order of the formats and of [`GEMM_SHAPES`].
    pub(crate) gemm: [[Function; 2]; FORMATS],
    pub(crate) product_f32: Function,
    pub(crate) rms_norm: Function,
    pub(crate) add_rms_norm: Function,
    pub(crate) quantize: Function,
    pub(crate) gated: Function,
    pub(crate) gather: Function,
    pub(crate) soft_cap: Function,
    pub(crate) rotations: Function,
    pub(crate) rope_store: Function,
    pub(crate) copy_page: Function,
    pub(crate) lora_inner: Function,
    pub(crate) lora_outer: Function,
    /// In the order of [`HEAD_DIMS`].
    pub(crate) attend_row: [Function; 6],
    pub(crate) attend_tiles: [Function; 6],
    pub(crate) attend_f32: Function,
}

impl Kernels {
    pub(crate) fn load(device: &Device) -> Result<Self, Error> {
        let (attention, elementwise) = (device.load(ATTENTION)?, device.load(ELEMENTWISE)?);
        let (pack, products) = (device.load(PACK)?, device.load(PRODUCTS)?);
        let by_dim = |name: &str| -> Result<[Function; 6], Error> {
            let mut all = Vec::with_capacity(HEAD_DIMS.len());
            for dim in HEAD_DIMS {
                all.push(attention.function(&format!("{name}_{dim}"), MOST_SHARED)?);
            }
            all.try_into().map_err(|_| Error::Device("attention kernels".into()))
        };
        let product = |rows: usize| products.function(&format!("product_{rows}"), MOST_SHARED);
        let gemms = device.load(GEMM)?;
        let mut gemm = Vec::with_capacity(FORMATS);
        for format in 0..FORMATS {
            let kernel = |shape: usize| gemms.function(&format!("gemm_{shape}_{format}"), MOST_SHARED);
            gemm.push([kernel(64)?, kernel(256)?]);
        }
        Ok(Self {
            gemm: gemm.try_into().map_err(|_| Error::Device("product kernels".into()))?,
            pack: pack.function("pack", 0)?,
            embed: pack.function("embed", 0)?,
            embed_f32: pack.function("embed_f32", 0)?,
            products: [product(4)?, product(8)?, product(16)?, product(32)?],
            product_f32: products.function("product_f32", 0)?,
            rms_norm: elementwise.function("rms_norm", 0)?,
            add_rms_norm: elementwise.function("add_rms_norm", 0)?,
            quantize: elementwise.function("quantize", 0)?,
            gated: elementwise.function("gated", 0)?,
            gather: elementwise.function("gather", 0)?,
            soft_cap: elementwise.function("soft_cap", 0)?,
            rotations: elementwise.function("rotations", 0)?,
            rope_store: elementwise.function("rope_store", 0)?,
            copy_page: elementwise.function("copy_page", 0)?,
            lora_inner: elementwise.function("lora_inner", 0)?,
            lora_outer: elementwise.function("lora_outer", 0)?,
            attend_row: by_dim("attend_row")?,
            attend_tiles: by_dim("attend_tiles")?,
            attend_f32: attention.function("attend_f32", 0)?,
        })
    }
}
