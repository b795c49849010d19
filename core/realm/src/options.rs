//! Options of loading a model, and of vectors.

use realm_compute::CacheType;
use realm_engine::{Pooling, Speculation};

/// The options of loading a model. `ci/api` brings each field to every language.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadOptions {
    /// The number of tokens that the KV cache holds, over all requests of all tenants; 0 holds one request of
    /// the model's trained context length. By default what fits in `kv_memory`. One request has at most
    /// [`context_length`](Self::context_length) of them.
    pub kv_tokens: Option<usize>,
    /// The longest context of one request, prompt and generation together, in tokens. By default the length
    /// that the model was trained for, or less if the KV cache holds less. Beyond the trained length texts
    /// get worse, and the log warns.
    pub context_length: Option<usize>,
    /// The size of the KV cache, in bytes. By default on the CPU a quarter of the free memory, at most 8 GiB,
    /// where pages take memory when they are first used; on a GPU four fifths of the memory that the weights
    /// leave free.
    pub kv_memory: Option<u64>,
    /// The number format of the KV cache. 16-bit floats by default.
    pub cache_type: Option<CacheType>,
    /// A chat template in place of the file's own: its source, or the name of a builtin one, such as `chatml`
    /// or `llama3`.
    ///
    /// [`template_names`](crate::template_names) lists the builtin ones.
    pub chat_template: Option<String>,
    /// The source of drafts for requests that name none. By default any source.
    pub speculation: Speculation,
    /// A smaller model with the same vocabulary that drafts for this one: a path, a catalog name or an `hf:`
    /// reference.
    pub draft_model: Option<String>,
    /// The most requests that may wait, over all tenants; one more is refused as `overloaded`. By
    /// default 4096. Half of the places are divided among the tenants by their weights, at least one each; a
    /// tenant within its part is never refused.
    pub max_queued: Option<usize>,
    /// The number of layers on GPUs, counted from the last one; the output layer is on a GPU too, and the CPU
    /// computes the layers before. By default as many as fit beside a KV cache. Has no effect without a GPU.
    pub gpu_layers: Option<usize>,
    /// Whether the CPU computes the experts of a mixture of experts, and GPUs the rest of its layers. By
    /// default it does if all layers fit on GPUs only then. Has no effect without a GPU.
    pub experts_on_cpu: Option<bool>,
}

/// The options of an embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedOptions {
    /// The hidden states that the vector is computed from; `None` for the model file's own pooling.
    pub pooling: Option<Pooling>,
    /// True to scale the vector to length 1, so that a dot product is the cosine. The default is `true`.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self { pooling: None, normalize: true }
    }
}
