//! Loads a file's tensors onto a backend.

use std::collections::HashSet;
use std::sync::Arc;

use realm_compute::{Backend, CacheSpec, CacheType, Rope, quant};
use realm_gguf::{Gguf, Tensor, TensorInfo};
use sha2::{Digest, Sha256};

use crate::adapter::{Adapter, AdapterFile, AdapterWeights};
use crate::finite::first_not_finite;
use crate::layerwise::{Layerwise, LayerwiseRunner, shape_of};
use crate::rope::{RopeScaling, frequencies};
use crate::transformer::{Forward, Runner};
use crate::{Error, ModelConfig};

/// A model's weights on a backend, independent of the backend's type; shared by all users of the model.
pub trait Weights: Send + Sync {
    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// The device in words, for example `cpu (AVX2, 2 threads)`.
    fn device(&self) -> String;

    /// Identifies these weights: a digest of the model's shape and of samples of each tensor. Another model
    /// of the same shape has another identity, unless its file was made on purpose to agree in the samples.
    fn identity(&self) -> [u8; 32];

    /// Bytes per page of the KV cache.
    fn page_bytes(&self, kind: CacheType) -> usize;

    /// Fits an adapter to the model and uploads it. The adapter serves any number of this model's runners,
    /// and is freed with its last handle.
    fn adapter(&self, file: &AdapterFile) -> Result<Arc<dyn AdapterWeights>, Error>;

    /// Returns outputs and inputs of a weight matrix, named as in a GGUF file; `None` if the model has no
    /// such matrix.
    fn shape_of(&self, weight: &str) -> Option<[usize; 2]> {
        shape_of(self.config(), weight)
    }

    /// Creates work buffers to compute the pass in single operations, with caches of type `kind`.
    fn layerwise(&self, kind: CacheType) -> Result<Box<dyn Layerwise>, Error>;

    /// Creates a KV cache of `pages` pages and the work buffers to run batches over it.
    fn runner(&self, pages: usize, kind: CacheType) -> Result<Box<dyn Forward>, Error>;
}

/// The weights of a decoder.
pub struct Transformer<B: Backend> {
    pub(crate) backend: Arc<B>,
    pub(crate) config: ModelConfig,
    pub(crate) embeddings: B::Matrix,
    pub(crate) layers: Vec<Layer<B>>,
    pub(crate) output_norm: B::Vector,
    /// The output matrix; `None` if the embeddings serve as output.
    pub(crate) output: Option<B::Matrix>,
    /// Set if the matrices of layers are integer codes: adapters then need at most 16 bits.
    pub(crate) quantized: bool,
    /// The rope of layers without a window, and of layers with one if it differs.
    pub(crate) rope: Rope<B>,
    pub(crate) rope_local: Option<Rope<B>>,
    /// See [`Weights::identity`].
    pub(crate) identity: [u8; 32],
}

pub(crate) struct Linear<B: Backend> {
    pub(crate) weight: B::Matrix,
    pub(crate) bias: Option<B::Vector>,
}

pub(crate) struct Layer<B: Backend> {
    pub(crate) attention_norm: B::Vector,
    pub(crate) q: Linear<B>,
    pub(crate) k: Linear<B>,
    pub(crate) v: Linear<B>,
    pub(crate) q_norm: Option<B::Vector>,
    pub(crate) k_norm: Option<B::Vector>,
    pub(crate) attention_output: Linear<B>,
    pub(crate) post_attention_norm: Option<B::Vector>,
    pub(crate) feed_forward_norm: B::Vector,
    pub(crate) gate: Linear<B>,
    pub(crate) up: Linear<B>,
    pub(crate) down: Linear<B>,
    pub(crate) post_feed_forward_norm: Option<B::Vector>,
    pub(crate) window: Option<usize>,
}

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
struct Loader<'a, B: Backend> {
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
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<&'a TensorInfo, Error> {
        let info = self.gguf.require_tensor(name)?;
        self.taken.insert(&info.name);
        if info.shape.len() == shape.len() && info.shape.iter().zip(shape).all(|(&s, &w)| s == w as u64) {
            return Ok(info);
        }
        Err(Error::InvalidModel(format!("tensor `{}` has shape {:?}, not {shape:?}", info.name, info.shape)))
    }

    fn finish(&mut self, info: &TensorInfo) {
        self.done += info.bytes() as u64;
        (self.progress)(self.done, self.total);
    }

    /// Reads a vector of `len` floats.
    fn floats(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let info = self.take(name, &[len])?;
        let mut values = vec![0.0; len];
        let tensor = Tensor { info, data: self.gguf.read(info, &mut self.buffer)? };
        sample(&mut self.identity, &tensor);
        quant::dequantize(info.ty, tensor.data, &mut values)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(not_finite(name, at));
        }
        self.finish(info);
        Ok(values)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<B::Vector, Error> {
        let values = self.floats(name, len)?;
        Ok(self.backend.vector_of(name, &values)?)
    }

    fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<B::Vector>, Error> {
        self.gguf.tensor(name).is_some().then(|| self.vector(name, len)).transpose()
    }

    fn matrix(&mut self, name: &str, columns: usize, rows: usize) -> Result<B::Matrix, Error> {
        let info = self.take(name, &[columns, rows])?;
        let tensor = Tensor { info, data: self.gguf.read(info, &mut self.buffer)? };
        sample(&mut self.identity, &tensor);
        check_finite(&tensor)?;
        self.quantized |= info.ty.block_len() > 1;
        let matrix = self.backend.matrix(&tensor)?;
        self.finish(info);
        Ok(matrix)
    }

    /// Loads `NAME.weight` and, if the file has it, `NAME.bias`.
    fn linear(&mut self, name: &str, columns: usize, rows: usize) -> Result<Linear<B>, Error> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), columns, rows)?,
            bias: self.optional_vector(&format!("{name}.bias"), rows)?,
        })
    }

    /// Loads one tensor that holds several matrices one after the other.
    fn fused<const N: usize>(
        &mut self,
        name: &str,
        columns: usize,
        rows: [usize; N],
    ) -> Result<[Linear<B>; N], Error> {
        let all: usize = rows.iter().sum();
        let info = self.take(&format!("{name}.weight"), &[columns, all])?;
        let bias_name = format!("{name}.bias");
        let bias = match self.gguf.tensor(&bias_name) {
            Some(_) => Some(self.floats(&bias_name, all)?),
            None => None,
        };
        let tensor = Tensor { info, data: self.gguf.read(info, &mut self.buffer)? };
        sample(&mut self.identity, &tensor);
        check_finite(&tensor)?;
        self.quantized |= info.ty.block_len() > 1;
        let mut parts = Vec::with_capacity(N);
        let mut start = 0;
        for rows in rows {
            let range = start..start + rows;
            let (info, data) = tensor.rows(range.start as u64..range.end as u64).ok_or_else(|| {
                Error::InvalidModel(format!("tensor `{name}.weight` has no rows {range:?}"))
            })?;
            let weight = self.backend.matrix(&Tensor { info: &info, data })?;
            let bias =
                bias.as_ref().map(|b| self.backend.vector_of(&bias_name, &b[range.clone()])).transpose()?;
            parts.push(Linear { weight, bias });
            start = range.end;
        }
        self.finish(info);
        parts.try_into().map_err(|_| Error::InvalidModel(format!("tensor `{name}.weight`")))
    }

    fn layer(&mut self, c: &ModelConfig, i: usize) -> Result<Layer<B>, Error> {
        let traits = c.architecture.traits();
        let name = |part: &str| format!("blk.{i}.{part}");
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let (hidden, ff) = (c.hidden, c.feed_forward);
        let [wq, wk, wv] = if traits.fused && self.gguf.tensor(&name("attn_qkv.weight")).is_some() {
            self.fused(&name("attn_qkv"), hidden, [q, kv, kv])?
        } else {
            [("attn_q", q), ("attn_k", kv), ("attn_v", kv)]
                .map(|(part, rows)| self.linear(&name(part), hidden, rows))
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?
                .try_into()
                .map_err(|_| Error::InvalidModel(name("attn_q")))?
        };
        let [gate, up] = if traits.fused && self.gguf.tensor(&name("ffn_gate.weight")).is_none() {
            self.fused(&name("ffn_up"), hidden, [ff, ff])?
        } else {
            [self.linear(&name("ffn_gate"), hidden, ff)?, self.linear(&name("ffn_up"), hidden, ff)?]
        };
        let norm = |loader: &mut Self, wanted: bool, part: &str, len: usize| {
            wanted.then(|| loader.vector(&name(part), len)).transpose()
        };
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            q: wq,
            k: wk,
            v: wv,
            q_norm: norm(self, traits.qk_norms, "attn_q_norm.weight", c.head_dim)?,
            k_norm: norm(self, traits.qk_norms, "attn_k_norm.weight", c.head_dim)?,
            attention_output: self.linear(&name("attn_output"), q, hidden)?,
            post_attention_norm: norm(self, traits.post_norms, "post_attention_norm.weight", hidden)?,
            feed_forward_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            gate,
            up,
            down: self.linear(&name("ffn_down"), ff, hidden)?,
            post_feed_forward_norm: norm(self, traits.post_norms, "post_ffw_norm.weight", hidden)?,
            window: c.window_of(i),
        })
    }

    /// Reads the tensor of rope factors, if the model has one.
    fn rope_factors(&mut self, c: &ModelConfig) -> Result<Option<Vec<f32>>, Error> {
        // Exporters also write the factors for short contexts, which are not used; see
        // `RopeScaling::LongRope`.
        let (long, short) = ("rope_factors_long.weight", "rope_factors_short.weight");
        let mut found = None;
        for name in ["rope_freqs.weight", short, long] {
            if self.gguf.tensor(name).is_some() {
                let factors = self.floats(name, c.rope_dim / 2)?;
                if let Some(bad) = factors.iter().find(|f| !f.is_finite() || **f <= 0.0) {
                    return Err(Error::InvalidModel(format!("tensor `{name}` holds the factor {bad}")));
                }
                let stretched = match c.rope_scaling {
                    RopeScaling::LongRope { original_context, .. } => c.context_length > original_context,
                    _ => false,
                };
                if (name == long && !stretched) || (name == short && stretched) {
                    continue;
                }
                found = Some(factors);
            }
        }
        Ok(found)
    }
}

impl<B: Backend> Transformer<B> {
    /// Loads all weights onto `backend`, layer by layer. Calls `progress(done, total)` with bytes of the
    /// file.
    pub fn load(backend: Arc<B>, gguf: &Gguf, progress: &mut dyn FnMut(u64, u64)) -> Result<Self, Error> {
        let config = ModelConfig::from_gguf(gguf)?;
        gguf.will_need();
        let total = gguf.tensors().iter().map(|t| t.bytes() as u64).sum();
        let mut loader = Loader {
            backend: &*backend,
            gguf,
            buffer: Vec::new(),
            taken: HashSet::new(),
            quantized: false,
            identity: Sha256::new_with_prefix(format!("{config:?}")),
            done: 0,
            total,
            progress,
        };
        let embeddings = loader.matrix("token_embd.weight", config.hidden, config.vocab)?;
        let factors = loader.rope_factors(&config)?;
        let rope = |base: f32, scaling, factors: Option<&[f32]>| -> Result<Rope<B>, Error> {
            let (frequencies, magnitude) = frequencies(config.rope_dim, base, scaling, factors);
            Ok(Rope { frequencies: backend.vector(&frequencies)?, magnitude })
        };
        let global = rope(config.rope_freq_base, config.rope_scaling, factors.as_deref())?;
        // Layers with a window and a base of their own have no scaling.
        let local =
            config.rope_freq_base_local.map(|base| rope(base, RopeScaling::None, None)).transpose()?;
        // Grows with the tensors that are found, so that a wrong number of layers costs no memory.
        let mut layers = Vec::new();
        for i in 0..config.layers {
            layers.push(loader.layer(&config, i)?);
        }
        let output_norm = loader.vector("output_norm.weight", config.hidden)?;
        let output = match gguf.tensor("output.weight") {
            Some(_) => Some(loader.linear("output", config.hidden, config.vocab)?),
            None => None,
        };
        if output.as_ref().is_some_and(|o| o.bias.is_some()) {
            return Err(Error::Unsupported("a bias on the output is not supported".into()));
        }
        let (quantized, identity) = (loader.quantized, loader.identity.clone().finalize().into());
        let left: Vec<_> =
            gguf.tensors().iter().filter(|t| !loader.taken.contains(t.name.as_str())).collect();
        if let Some(first) = left.first() {
            return Err(Error::Unsupported(format!(
                "{} tensors are not part of a plain {} model, `{}` among them; this variant is not supported",
                left.len(),
                config.architecture,
                first.name,
            )));
        }
        let output = output.map(|o| o.weight);
        let rope = global;
        Ok(Self {
            backend,
            config,
            embeddings,
            layers,
            output_norm,
            output,
            quantized,
            rope,
            rope_local: local,
            identity,
        })
    }
}

impl<B: Backend> Weights for Arc<Transformer<B>> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn device(&self) -> String {
        self.backend.description()
    }

    fn identity(&self) -> [u8; 32] {
        self.identity
    }

    fn page_bytes(&self, kind: CacheType) -> usize {
        CacheSpec { layout: self.config.cache_layout(), pages: 1, kind }.page_bytes()
    }

    fn adapter(&self, file: &AdapterFile) -> Result<Arc<dyn AdapterWeights>, Error> {
        Ok(Arc::new(Adapter::new(self, file)?))
    }

    fn runner(&self, pages: usize, kind: CacheType) -> Result<Box<dyn Forward>, Error> {
        Ok(Box::new(Runner::new(self.clone(), pages, kind)?))
    }

    fn layerwise(&self, kind: CacheType) -> Result<Box<dyn Layerwise>, Error> {
        Ok(Box::new(LayerwiseRunner::new(self.clone(), kind)?))
    }
}
