//! A model's configuration, read from a file's metadata and checked.

use realm_compute::CacheLayout;
use realm_gguf::{Gguf, Metadata, Value};

use crate::Error;
use crate::arch::{Architecture, WindowPattern};
use crate::rope::RopeScaling;

/// A model's shape.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// The model's architecture.
    pub architecture: Architecture,
    /// The model's name, `general.name`.
    pub name: Option<String>,
    /// Number of transformer layers.
    pub layers: usize,
    /// Numbers per hidden state.
    pub hidden: usize,
    /// Numbers per hidden state of the feed-forward network.
    pub feed_forward: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key/value heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Number of tokens in the vocabulary.
    pub vocab: usize,
    /// The longest context that the model was trained for, in tokens.
    pub context_length: usize,
    /// Epsilon of the norms.
    pub rms_eps: f32,
    /// Base of the rope frequencies.
    pub rope_freq_base: f32,
    /// Base in layers with a window, if it differs.
    pub rope_freq_base_local: Option<f32>,
    /// Rotated numbers per head.
    pub rope_dim: usize,
    /// The scaling of rope beyond the context of the original training.
    pub rope_scaling: RopeScaling,
    /// Sliding window in tokens; `None` without one.
    pub window: Option<usize>,
    /// Factor on attention scores.
    pub attention_scale: f32,
    /// Soft cap on attention scores.
    pub attention_soft_cap: Option<f32>,
    /// Soft cap on logits.
    pub final_soft_cap: Option<f32>,
    /// The pooling of hidden states to an embedding, if the file names one.
    pub pooling: Option<Pooling>,
    /// Number of weights in the file.
    pub parameters: u64,
}

/// The hidden states that make up an embedding: `pooling_type` of a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all hidden states.
    Mean,
    /// The hidden state of the first token.
    Cls,
    /// The hidden state of the last token.
    Last,
}

/// The largest dimension that is accepted. Larger ones are a mistake, and would overflow products of two.
const MOST: u64 = 1 << 24;

struct Reader<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl Reader<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// A dimension: 1 to [`MOST`].
    fn optional_dim(&self, name: &str) -> Result<Option<usize>, Error> {
        let key = self.key(name);
        // Some files have one number per layer; all have to be the same.
        let value = match self.metadata.get(&key) {
            Some(Value::Array(array)) => {
                let all = array.integers().unwrap_or_default();
                match all.first() {
                    Some(first) if all.iter().all(|v| v == first) => u64::try_from(*first).ok(),
                    _ => {
                        return Err(Error::Unsupported(format!(
                            "metadata `{key}` differs from layer to layer"
                        )));
                    }
                }
            }
            _ => self.metadata.u64(&key)?,
        };
        match value {
            None => Ok(None),
            Some(v) if (1..=MOST).contains(&v) => Ok(Some(v as usize)),
            Some(v) => Err(Error::InvalidModel(format!("metadata `{key}` is {v}; 1 to {MOST} are possible"))),
        }
    }

    /// Returns the sliding window in tokens. Exporters write 0 for a model of the family without one (Phi-4).
    fn window(&self) -> Result<Option<usize>, Error> {
        let name = "attention.sliding_window";
        if self.metadata.get(&self.key(name)).and_then(Value::integer) == Some(0) {
            return Ok(None);
        }
        self.optional_dim(name)
    }

    fn dim(&self, name: &str) -> Result<usize, Error> {
        self.optional_dim(name)?
            .ok_or_else(|| Error::InvalidModel(format!("metadata `{}` is missing", self.key(name))))
    }

    /// Reads a float that is finite and above 0.
    fn optional_float(&self, name: &str) -> Result<Option<f32>, Error> {
        let key = self.key(name);
        match self.metadata.f32(&key)? {
            Some(v) if v.is_finite() && v > 0.0 => Ok(Some(v)),
            Some(v) => Err(Error::InvalidModel(format!("metadata `{key}` is {v}; it has to be above 0"))),
            None => Ok(None),
        }
    }
}

impl ModelConfig {
    /// The factor on embeddings.
    pub(crate) fn embedding_scale(&self) -> f32 {
        if self.architecture.traits().scaled_embeddings { (self.hidden as f32).sqrt() } else { 1.0 }
    }

    /// Reads and checks the metadata.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let metadata = gguf.metadata();
        let architecture = Architecture::from_name(metadata.require_str("general.architecture")?)?;
        let traits = architecture.traits();
        let r = Reader { metadata, prefix: architecture.name() };
        if metadata.u64(&r.key("expert_count"))?.unwrap_or(0) > 0 {
            return Err(Error::Unsupported("models with experts (MoE) are not supported".into()));
        }
        let (layers, hidden, heads) =
            (r.dim("block_count")?, r.dim("embedding_length")?, r.dim("attention.head_count")?);
        // Each layer has tensors of its own. Without this check, a wrong number of layers could allocate
        // gigabytes.
        let tensors = gguf.tensors().len();
        if layers > tensors {
            return Err(Error::InvalidModel(format!(
                "{layers} layers are claimed, and the file has {tensors} tensors"
            )));
        }
        let kv_heads = r.optional_dim("attention.head_count_kv")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::InvalidModel(format!("{heads} query heads over {kv_heads} key/value heads")));
        }
        let head_dim = match r.optional_dim("attention.key_length")? {
            Some(dim) => dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(Error::InvalidModel(format!("{heads} heads over {hidden} numbers"))),
        };
        if r.optional_dim("attention.value_length")?.is_some_and(|v| v != head_dim) {
            return Err(Error::Unsupported("keys and values of different lengths are not supported".into()));
        }
        let rope_dim = r.optional_dim("rope.dimension_count")?.unwrap_or(head_dim);
        if rope_dim > head_dim || !rope_dim.is_multiple_of(2) {
            return Err(Error::InvalidModel(format!("{rope_dim} rotated numbers in heads of {head_dim}")));
        }
        let embeddings = gguf.require_tensor("token_embd.weight")?;
        let vocab = embeddings.shape.get(1).copied().unwrap_or(0);
        if vocab == 0 || vocab > MOST {
            return Err(Error::InvalidModel(format!("a vocabulary of {vocab} tokens")));
        }
        let context_length = r.dim("context_length")?;
        // The largest models of both Gemma generations scale by the hidden size per head instead of the
        // head's own size.
        let by_hidden =
            matches!((architecture, layers), (Architecture::Gemma2, 46) | (Architecture::Gemma3, 62));
        let scale_of = if by_hidden { hidden as f32 / heads as f32 } else { head_dim as f32 };
        // The first files of Gemma 2 lack these.
        let default_caps = architecture == Architecture::Gemma2;
        let default_window = default_caps.then_some(4096);
        let cap = |name: &str, default: f32| -> Result<Option<f32>, Error> {
            Ok(r.optional_float(name)?.or(default_caps.then_some(default)))
        };
        Ok(Self {
            architecture,
            // A name of another type is no reason not to run the model.
            name: metadata.str("general.name").ok().flatten().map(str::to_owned),
            layers,
            hidden,
            feed_forward: r.dim("feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
            vocab: vocab as usize,
            context_length,
            rms_eps: r.optional_float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6),
            rope_freq_base: r.optional_float("rope.freq_base")?.unwrap_or(10_000.0),
            rope_freq_base_local: r.optional_float("rope.freq_base_swa")?.or(traits.local_rope_base),
            rope_dim,
            rope_scaling: RopeScaling::from_metadata(metadata, architecture.name(), context_length)?,
            window: r.window()?.or(default_window),
            attention_scale: r.optional_float("attention.scale")?.unwrap_or(1.0 / scale_of.sqrt()),
            attention_soft_cap: cap("attn_logit_softcapping", 50.0)?,
            final_soft_cap: cap("final_logit_softcapping", 30.0)?,
            // 0 is no pooling, 4 the ranking of a classifier's head.
            pooling: match metadata.u64(&r.key("pooling_type")).ok().flatten() {
                Some(1) => Some(Pooling::Mean),
                Some(2) => Some(Pooling::Cls),
                Some(3) => Some(Pooling::Last),
                _ => None,
            },
            parameters: gguf.tensors().iter().map(|t| t.len() as u64).sum(),
        })
    }

    /// Returns how layers share the pages of the KV cache.
    pub fn cache_layout(&self) -> CacheLayout {
        let windows: Vec<_> = (0..self.layers).map(|layer| self.window_of(layer)).collect();
        CacheLayout::new(self.kv_heads, self.head_dim, &windows)
    }

    /// The sliding window of layer `layer`, if it has one.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        match self.architecture.traits().window {
            WindowPattern::All => self.window,
            WindowPattern::AllButEvery(n) => self.window.filter(|_| layer % n < n - 1),
        }
    }
}
