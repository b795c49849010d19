//! LoRA adapters: low-rank changes of a model's weights, in a file of their own (Hu et al.,
//! arXiv:2106.09685).
//!
//! [`AdapterFile`] is the contents of a file, independent of a model: `gguf` and `peft` read the two formats.
//! `weights` fits it to a model and uploads it (`experts` the changes of experts), and `active` finds the
//! rows of a batch that use it.

mod active;
mod experts;
mod gguf;
mod numbers;
mod peft;
mod weights;

use std::ops::Range;
use std::path::Path;

use realm_gguf::{Gguf, Tensor, TensorInfo};

use crate::names::Adapted;
use crate::{Error, TensorId};
pub(crate) use active::Active;
pub use weights::AdapterWeights;
pub(crate) use weights::{Adapter, Change};

/// The contents of a LoRA adapter's file.
pub struct AdapterFile {
    data: Data,
    /// `general.architecture`, if the file has it.
    architecture: Option<String>,
    pairs: Vec<Pair>,
}

/// The source of the numbers.
enum Data {
    Gguf(Gguf),
    Safetensors(Vec<u8>),
}

/// The two matrices that change one weight, or those that change the matrices of all experts.
struct Pair {
    of: Adapted,
    /// Alpha over the rank, or over the root of the rank.
    scale: f32,
    rank: usize,
    /// `[inputs, rank]` in GGUF's order of dimensions, and for all experts their number.
    a: Matrix,
    /// `[rank, outputs]`, and for all experts their number.
    b: Matrix,
}

struct Matrix {
    info: TensorInfo,
    /// The matrix's bytes in a safetensors file.
    bytes: Range<usize>,
}

impl AdapterFile {
    /// Opens a GGUF adapter or one that PEFT saved. For PEFT, `path` is a folder with `adapter_config.json`
    /// and `adapter_model.safetensors`, or the second of these files.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        if path.is_dir() {
            return peft::open(path, &path.join("adapter_model.safetensors"));
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => peft::open(path.parent().unwrap_or(Path::new("")), path),
            _ => gguf::read(Gguf::open(path)?),
        }
    }

    /// Reads an adapter from an open GGUF file.
    pub fn from_gguf(file: Gguf) -> Result<Self, Error> {
        gguf::read(file)
    }

    /// Reads an adapter that PEFT saved: the text of `adapter_config.json` and the bytes of
    /// `adapter_model.safetensors`.
    pub fn from_peft(config: &str, tensors: Vec<u8>) -> Result<Self, Error> {
        peft::read(config, tensors)
    }

    /// Number of weights that the adapter changes.
    pub fn modules(&self) -> usize {
        self.pairs.len()
    }

    /// The largest rank.
    pub fn rank(&self) -> usize {
        self.pairs.iter().map(|pair| pair.rank).max().unwrap_or(0)
    }

    /// Returns whether the rows of queries and keys are still in PEFT's order, not in that of llama's GGUF
    /// files.
    fn is_peft(&self) -> bool {
        matches!(self.data, Data::Safetensors(_))
    }

    /// Reads a matrix, into `buffer` if it comes from a file.
    fn tensor<'a>(&'a self, matrix: &'a Matrix, buffer: &'a mut Vec<u8>) -> Result<Tensor<'a>, Error> {
        match &self.data {
            Data::Gguf(gguf) => Ok(Tensor { info: &matrix.info, data: gguf.read(&matrix.info, buffer)? }),
            Data::Safetensors(bytes) => match bytes.get(matrix.bytes.clone()) {
                Some(data) => Ok(Tensor { info: &matrix.info, data }),
                None => Err(invalid(format!("tensor `{}` is outside of the file", show(&matrix.info.name)))),
            },
        }
    }

    /// Checks a reader's result and makes an adapter of it.
    fn new(data: Data, architecture: Option<String>, pairs: Vec<Pair>) -> Result<Self, Error> {
        if pairs.is_empty() {
            return Err(invalid("the adapter changes no weight".into()));
        }
        let mut seen = std::collections::HashSet::new();
        for Pair { of, scale, a, b, .. } in &pairs {
            // The two parameters of a layer's experts are told apart by their shapes.
            let named = !matches!(of, Adapted::Experts(_));
            if !seen.insert(*of) && named {
                return Err(invalid(format!("{} is changed twice", name(*of))));
            }
            let experts = matches!(of, Adapted::Matrix(TensorId::Layer(_, tensor)) if tensor.is_of_experts());
            match (&a.info.shape[..], &b.info.shape[..]) {
                ([_, rank], [columns, _]) if rank == columns && !experts => {}
                ([_, rank, count], [columns, _, of]) if rank == columns && count == of && experts => {}
                (a, b) => {
                    let what = name(*of);
                    return Err(invalid(format!("{what} is changed by matrices of shapes {a:?} and {b:?}")));
                }
            }
            if !scale.is_finite() {
                return Err(invalid(format!("the change of {} is scaled by {scale}", name(*of))));
            }
        }
        Ok(Self { data, architecture, pairs })
    }
}

/// Names a module for an error.
fn name(of: Adapted) -> String {
    match of {
        Adapted::Matrix(id) => format!("`{id}`"),
        Adapted::Expert(id, expert) => format!("`{id}` of expert {expert}"),
        Adapted::Experts(layer) => format!("a parameter of the experts of layer {layer}"),
    }
}

fn invalid(why: String) -> Error {
    Error::InvalidAdapter(why)
}

/// Refuses an adapter that changes a weight which no adapter can change.
fn not_supported(weight: &str) -> Error {
    Error::Unsupported(format!("adapters that change `{}` are not supported", show(weight)))
}

/// Makes a name from a file safe to print.
fn show(name: &str) -> String {
    name.chars().take(96).flat_map(char::escape_debug).collect()
}
