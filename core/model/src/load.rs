//! Takes tensors out of a file, checks them and puts them on a backend.

use std::collections::HashSet;

use realm_compute::{Backend, quant};
use realm_gguf::{Gguf, Tensor, TensorInfo, TensorType};
use sha2::{Digest, Sha256};

use crate::block::{Expert, Linear, NormWeights};
use crate::finite::first_not_finite;
use crate::names::TensorId;
use crate::{Error, ModelConfig};

fn not_finite(name: &str, at: usize) -> Error {
    Error::InvalidModel(format!(
        "tensor `{name}` holds NaN or an infinity, near number {at}: the file is broken"
    ))
}

/// Refuses a matrix that contains NaN or infinity, which would make every text empty or noise. Uses several
/// threads, because it takes as long as reading the file from memory.
fn check_finite(tensor: &Tensor<'_>) -> Result<(), Error> {
    /// Fewest bytes per thread.
    const PIECE: usize = 4 << 20;
    let (ty, block) = (tensor.info.ty, tensor.info.ty.block_bytes());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let piece = tensor.data.len().div_ceil(threads).max(PIECE).next_multiple_of(block);
    let bad = if tensor.data.len() <= piece {
        first_not_finite(ty, tensor.data)
    } else {
        std::thread::scope(|scope| {
            let look = |data| move || first_not_finite(ty, data);
            let spawn = |data| std::thread::Builder::new().spawn_scoped(scope, look(data)).map_err(|_| data);
            let pieces: Vec<_> = tensor.data.chunks(piece).map(spawn).collect();
            let found = pieces.into_iter().enumerate().map(|(i, found)| {
                let at = match found {
                    Ok(thread) => thread.join().ok().flatten(),
                    // No further thread could be started, so this one does the work.
                    Err(data) => look(data)(),
                };
                at.map(|at| i * (piece / block) + at)
            });
            found.fold(None, Option::or)
        })
    };
    bad.map_or(Ok(()), |at| Err(not_finite(&tensor.info.name, at * ty.block_len())))
}

/// Adds a tensor's description, and bytes from all over it, to a digest. Reading all of it would take as long
/// as loading.
fn sample(digest: &mut Sha256, tensor: &Tensor<'_>) {
    const SAMPLES: usize = 16;
    const BYTES: usize = 32;
    digest.update(format!("{} {:?} {:?};", tensor.info.name, tensor.info.ty, tensor.info.shape));
    if tensor.data.len() <= SAMPLES * BYTES {
        return digest.update(tensor.data);
    }
    let last = tensor.data.len() - BYTES;
    for i in 0..SAMPLES {
        digest.update(&tensor.data[last / (SAMPLES - 1) * i..][..BYTES]);
    }
}

/// Takes tensors out of a file one by one and tracks which were used.
pub(crate) struct Loader<'a, B: Backend> {
    backend: &'a B,
    gguf: &'a Gguf,
    /// The current tensor's bytes, as they were when they were read from the file.
    buffer: Vec<u8>,
    taken: HashSet<&'a str>,
    quantized: bool,
    /// Digest of the model's shape and of samples of the tensors so far.
    identity: Sha256,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a, B: Backend> Loader<'a, B> {
    /// Creates a loader that calls `progress(done, total)` with bytes of the file.
    pub(crate) fn new(
        backend: &'a B,
        gguf: &'a Gguf,
        config: &ModelConfig,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        gguf.will_need();
        let is_run = |tensor: &&TensorInfo| !is_skipped(config, &tensor.name);
        Self {
            backend,
            gguf,
            buffer: Vec::new(),
            taken: HashSet::new(),
            quantized: false,
            identity: Sha256::new_with_prefix(format!("{config:?}")),
            done: 0,
            total: gguf.tensors().iter().filter(is_run).map(|t| t.bytes() as u64).sum(),
            progress,
        }
    }

    /// Returns whether the file has the weights of a tensor.
    pub(crate) fn has(&self, id: TensorId) -> bool {
        self.gguf.tensor(&id.weight()).is_some()
    }

    /// Returns the number of weights of a tensor, if the file has it.
    pub(crate) fn len(&self, id: TensorId) -> Option<usize> {
        self.gguf.tensor(&id.weight()).map(TensorInfo::len)
    }

    /// Checks that every tensor of the file was taken. Returns whether matrices are integer codes, and the
    /// digest of shape and samples.
    ///
    /// # Errors
    /// `Unsupported`, with the names of tensors that are left over.
    pub(crate) fn finish(self, config: &ModelConfig) -> Result<(bool, [u8; 32]), Error> {
        const NAMED: usize = 8;
        let taken = |t: &&TensorInfo| self.taken.contains(t.name.as_str()) || is_skipped(config, &t.name);
        let left: Vec<_> = self.gguf.tensors().iter().filter(|t| !taken(t)).collect();
        if left.is_empty() {
            return Ok((self.quantized, self.identity.finalize().into()));
        }
        let names: Vec<_> = left.iter().take(NAMED).map(|t| format!("`{}`", t.name)).collect();
        let more = if left.len() > NAMED { ", …" } else { "" };
        Err(Error::Unsupported(format!(
            "{} tensors are not part of a plain {} model ({}{more}); this variant is not supported",
            left.len(),
            config.architecture,
            names.join(", "),
        )))
    }

    /// Reads a tensor's bytes and counts them as done.
    fn read(&mut self, info: &'a TensorInfo) -> Result<Tensor<'_>, Error> {
        self.taken.insert(&info.name);
        let tensor = Tensor { info, data: self.gguf.read(info, &mut self.buffer)? };
        sample(&mut self.identity, &tensor);
        self.done += info.bytes() as u64;
        (self.progress)(self.done, self.total);
        Ok(tensor)
    }

    /// Reads `len` floats, in a shape of one or more dimensions.
    fn values(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let info = self.gguf.require_tensor(name)?;
        if info.len() != len {
            return Err(wrong_shape(info, &[len]));
        }
        let mut values = vec![0.0; len];
        quant::dequantize(info.ty, self.read(info)?.data, &mut values)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(not_finite(name, at));
        }
        Ok(values)
    }

    /// Loads the weights of `id`, a vector of `len` floats.
    pub(crate) fn vector(&mut self, id: TensorId, len: usize) -> Result<B::Vector, Error> {
        self.vector_named(&id.weight(), len)
    }

    fn vector_named(&mut self, name: &str, len: usize) -> Result<B::Vector, Error> {
        let values = self.values(name, len)?;
        Ok(self.backend.vector_of(name, &values)?)
    }

    /// Loads the bias of `id`, `len` floats, if the file has it.
    pub(crate) fn optional_bias(&mut self, id: TensorId, len: usize) -> Result<Option<B::Vector>, Error> {
        let name = id.bias();
        self.gguf.tensor(&name).is_some().then(|| self.vector_named(&name, len)).transpose()
    }

    /// Loads the weights and, if the file has it, the bias of a norm.
    pub(crate) fn norm(&mut self, id: TensorId, len: usize) -> Result<NormWeights<B>, Error> {
        Ok(NormWeights { weight: self.vector(id, len)?, bias: self.optional_bias(id, len)? })
    }

    /// Reads a tensor of `len` rope factors, if the file has it.
    pub(crate) fn rope_factors(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        if self.gguf.tensor(name).is_none() {
            return Ok(None);
        }
        let factors = self.values(name, len)?;
        if let Some(bad) = factors.iter().find(|f| **f <= 0.0) {
            return Err(Error::InvalidModel(format!("tensor `{name}` holds the factor {bad}")));
        }
        Ok(Some(factors))
    }

    /// Reads the weights of `id`, of shape `shape` in GGUF's order, and checks their numbers.
    fn weights(&mut self, id: TensorId, shape: &[usize]) -> Result<Tensor<'_>, Error> {
        let info = self.gguf.require_tensor(&id.weight())?;
        let same =
            info.shape.len() == shape.len() && info.shape.iter().zip(shape).all(|(&s, &w)| s == w as u64);
        if !same {
            return Err(wrong_shape(info, shape));
        }
        self.quantized |= info.ty.block_len() > 1;
        let tensor = self.read(info)?;
        check_finite(&tensor)?;
        Ok(tensor)
    }

    /// Loads the matrix `id` of `rows` rows.
    pub(crate) fn matrix(&mut self, id: TensorId, columns: usize, rows: usize) -> Result<B::Matrix, Error> {
        let backend = self.backend;
        Ok(backend.matrix(&self.weights(id, &[columns, rows])?)?)
    }

    /// Loads a matrix of one row, which the file may have as a vector.
    pub(crate) fn row(&mut self, id: TensorId, columns: usize) -> Result<B::Matrix, Error> {
        let (backend, gguf) = (self.backend, self.gguf);
        let dimensions = gguf.require_tensor(&id.weight())?.shape.len();
        let tensor = self.weights(id, &[columns, 1][..dimensions.clamp(1, 2)])?;
        let info = reshaped(tensor.info, &[columns, 1])?;
        Ok(backend.matrix(&Tensor { info: &info, data: tensor.data })?)
    }

    /// Loads a matrix and, if the file has it, its bias.
    pub(crate) fn linear(&mut self, id: TensorId, columns: usize, rows: usize) -> Result<Linear<B>, Error> {
        Ok(Linear { weight: self.matrix(id, columns, rows)?, bias: self.optional_bias(id, rows)? })
    }

    /// Loads one tensor that holds several matrices one after the other.
    pub(crate) fn fused<const N: usize>(
        &mut self,
        id: TensorId,
        columns: usize,
        rows: [usize; N],
    ) -> Result<[Linear<B>; N], Error> {
        let (backend, bias_name) = (self.backend, id.bias());
        let all: usize = rows.iter().sum();
        let bias = match self.gguf.tensor(&bias_name) {
            Some(_) => Some(self.values(&bias_name, all)?),
            None => None,
        };
        let tensor = self.weights(id, &[columns, all])?;
        let mut parts = Vec::with_capacity(N);
        let mut start = 0;
        for rows in rows {
            let range = start..start + rows;
            let (info, data) = tensor
                .rows(range.start as u64..range.end as u64)
                .ok_or_else(|| Error::InvalidModel(format!("tensor `{id}` has no rows {range:?}")))?;
            let weight = backend.matrix(&Tensor { info: &info, data })?;
            let bias = bias.as_ref().map(|b| backend.vector_of(&bias_name, &b[range.clone()])).transpose()?;
            parts.push(Linear { weight, bias });
            start = range.end;
        }
        parts.try_into().map_err(|_| Error::InvalidModel(format!("tensor `{id}`")))
    }

    /// Loads the matrices of `count` experts and, if the file has them, their biases.
    pub(crate) fn experts(
        &mut self,
        id: TensorId,
        columns: usize,
        rows: usize,
        count: usize,
    ) -> Result<Expert<B>, Error> {
        let backend = self.backend;
        let weight = backend.experts(&self.weights(id, &[columns, rows, count])?)?;
        Ok(Expert { weight, bias: self.optional_bias(id, rows * count)? })
    }

    /// Loads the matrices of each head from one tensor, which holds for every head `plain` rows that make its
    /// key from a latent state of `rank` numbers, and `value` rows that make its value. Returns the
    /// transposes of the first, which queries are multiplied with, and the second.
    pub(crate) fn heads_of_one_matrix(
        &mut self,
        id: TensorId,
        heads: usize,
        rank: usize,
        plain: usize,
        value: usize,
    ) -> Result<(B::Experts, B::Experts), Error> {
        let backend = self.backend;
        let tensor = self.weights(id, &[rank, heads * (plain + value)])?;
        let mut all = vec![0.0; tensor.info.len()];
        quant::dequantize(tensor.info.ty, tensor.data, &mut all)?;
        let head = |head: &[f32]| transposed(&head[..plain * rank], rank);
        let keys: Vec<f32> = all.chunks_exact((plain + value) * rank).flat_map(head).collect();
        let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        let shape = |shape: [usize; 3], ty| {
            let info = TensorInfo::new(&*tensor.info.name, shape.map(|dim| dim as u64).to_vec(), ty);
            info.ok_or_else(|| Error::InvalidModel(format!("tensor `{id}` has rows of an odd size")))
        };
        let keys = shape([plain, rank, heads], TensorType::F32)?;
        let keys = backend.experts(&Tensor { info: &keys, data: &bytes })?;
        let row = tensor.data.len() / (heads * (plain + value));
        let values = tensor.data.chunks_exact((plain + value) * row).flat_map(|head| &head[plain * row..]);
        let (values, info) =
            (values.copied().collect::<Vec<u8>>(), shape([rank, value, heads], tensor.info.ty)?);
        Ok((keys, backend.experts(&Tensor { info: &info, data: &values })?))
    }

    /// Loads one tensor that holds for each of `count` experts two matrices one after the other.
    pub(crate) fn fused_experts(
        &mut self,
        id: TensorId,
        columns: usize,
        rows: usize,
        count: usize,
    ) -> Result<[Expert<B>; 2], Error> {
        let (backend, bias_name) = (self.backend, id.bias());
        let bias = match self.gguf.tensor(&bias_name) {
            Some(_) => Some(self.values(&bias_name, 2 * rows * count)?),
            None => None,
        };
        let tensor = self.weights(id, &[columns, 2 * rows, count])?;
        let info = reshaped(tensor.info, &[columns, rows, count])?;
        let half = |part: usize| -> Result<Expert<B>, Error> {
            let data = every_other(tensor.data, tensor.data.len() / count / 2, part);
            let weight = backend.experts(&Tensor { info: &info, data: &data })?;
            let bias = bias.as_ref().map(|bias| every_other(bias, rows, part));
            let bias = bias.map(|bias| backend.vector_of(&bias_name, &bias)).transpose()?;
            Ok(Expert { weight, bias })
        };
        Ok([half(0)?, half(1)?])
    }
}

/// Returns the transpose of a matrix of `columns` columns.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

/// Returns every other piece of `len` values, from piece `first` on.
fn every_other<T: Copy>(values: &[T], len: usize, first: usize) -> Vec<T> {
    values.chunks_exact(len).skip(first).step_by(2).flatten().copied().collect()
}

/// Describes a tensor of the same name and type in another shape.
fn reshaped(info: &TensorInfo, shape: &[usize]) -> Result<TensorInfo, Error> {
    let shape = shape.iter().map(|&dim| dim as u64).collect();
    TensorInfo::new(&*info.name, shape, info.ty)
        .ok_or_else(|| Error::InvalidModel(format!("tensor `{}` has rows of an odd size", info.name)))
}

fn wrong_shape(info: &TensorInfo, wanted: &[usize]) -> Error {
    Error::InvalidModel(format!("tensor `{}` has shape {:?}, not {wanted:?}", info.name, info.shape))
}

/// Returns whether a tensor belongs to a layer that is not run.
fn is_skipped(config: &ModelConfig, name: &str) -> bool {
    config.skipped_layers > 0 && TensorId::layer_of(name).is_some_and(|layer| layer >= config.layers.len())
}
