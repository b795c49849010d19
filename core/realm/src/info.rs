//! Facts about loaded models.

use realm_engine::{Engine, Pooling};
use realm_gguf::Gguf;
use realm_model::Weights;

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The name in the file, `general.name`.
    pub name: Option<String>,
    /// The architecture, such as `llama`.
    pub architecture: String,
    /// The number of weights.
    pub parameters: u64,
    /// The size of the file, in bytes.
    pub file_bytes: u64,
    /// The size of the vocabulary, in tokens.
    pub vocabulary: usize,
    /// The number of transformer layers.
    pub layers: usize,
    /// The longest context of one request, prompt and generation together, in tokens.
    pub context_length: usize,
    /// The longest context that the model was trained for, in tokens.
    pub trained_context_length: usize,
    /// The length of a hidden state, and so of an embedding.
    pub hidden: usize,
    /// The default pooling of embeddings: as the file says, or else the mean of the hidden states.
    pub pooling: Pooling,
    /// True if the model has a chat template.
    pub chat_template: bool,
    /// The device that the model runs on.
    pub device: String,
    /// The bytes per second that the device's memory delivers by its specification; `None` if the device does
    /// not say, as CPUs do not.
    pub memory_bandwidth: Option<u64>,
}

impl ModelInfo {
    pub(crate) fn new(gguf: &Gguf, weights: &dyn Weights, engine: &Engine, chat_template: bool) -> Self {
        let config = weights.config();
        Self {
            name: config.name.clone(),
            architecture: config.architecture.to_string(),
            parameters: config.parameters,
            file_bytes: gguf.file_bytes(),
            vocabulary: config.vocab,
            layers: config.layers.len(),
            context_length: engine.context_length(),
            trained_context_length: config.context_length,
            hidden: config.hidden,
            pooling: match config.pooling {
                Some(realm_model::Pooling::Cls) => Pooling::Cls,
                Some(realm_model::Pooling::Last) => Pooling::Last,
                Some(realm_model::Pooling::Mean) | None => Pooling::Mean,
            },
            chat_template,
            device: weights.device(),
            memory_bandwidth: weights.memory_bandwidth(),
        }
    }
}
