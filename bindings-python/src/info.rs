//! What models, files and texts are.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::errors::Result;
use crate::record::record;
use crate::results::{TokenLogprob, logprobs};

record! {
    /// What a model is.
    ModelInfo {
        /// `general.name` of the file.
        name: Option<String>,
        /// Such as `llama`.
        architecture: String,
        /// Number of weights.
        parameters: u64,
        /// Bytes of the file.
        file_bytes: u64,
        /// Tokens in the vocabulary.
        vocabulary: usize,
        /// Transformer layers.
        layers: usize,
        /// Tokens that one request may have, prompt and generation together.
        context_length: usize,
        /// Tokens that the model was trained for.
        trained_context_length: usize,
        /// Numbers in a hidden state, and so in an embedding.
        hidden: usize,
        /// How hidden states become an embedding: `"mean"`, `"last"` or `"cls"`.
        pooling: String,
        /// Whether it has a chat template.
        chat_template: bool,
        /// Where it runs.
        device: String,
    }
}

record! {
    /// What a GGUF file holds.
    FileInfo {
        /// `general.name` of the file.
        name: Option<String>,
        /// Such as `llama`.
        architecture: String,
        /// Number of weights.
        parameters: u64,
        /// Transformer layers.
        layers: usize,
        /// Tokens in the vocabulary.
        vocabulary: usize,
        /// Tokens that the model was trained for.
        trained_context_length: usize,
        /// Whether it has a chat template.
        chat_template: bool,
        /// For each tensor type its name, number of tensors and bytes, largest first.
        tensor_types: Vec<(String, usize, u64)>,
    }
}

record! {
    /// What a model says of one position of a text.
    Scored {
        /// The log-probability of the token that follows in the text, in nats; `None` after the last one.
        next: Option<f32>,
        /// The likeliest tokens in its place, likeliest first.
        top: Vec<Py<TokenLogprob>>,
    }
}

/// Reads a GGUF file's header, without loading the model.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, path: PathBuf) -> Result<FileInfo> {
    let info = py.detach(|| realm::inspect(&path))?;
    let realm::FileInfo {
        name, architecture, parameters, layers, vocabulary, trained_context_length, ..
    } = info;
    let (chat_template, tensor_types) = (info.chat_template, info.tensor_types);
    Ok(FileInfo {
        name,
        architecture,
        parameters,
        layers,
        vocabulary,
        trained_context_length,
        chat_template,
        tensor_types,
    })
}

pub(crate) fn scores(py: Python<'_>, scores: Vec<realm::Scored>) -> PyResult<Vec<Scored>> {
    scores.iter().map(|score| Ok(Scored { next: score.next, top: logprobs(py, &score.top)? })).collect()
}

impl From<realm::ModelInfo> for ModelInfo {
    fn from(info: realm::ModelInfo) -> Self {
        Self {
            name: info.name,
            architecture: info.architecture,
            parameters: info.parameters,
            file_bytes: info.file_bytes,
            vocabulary: info.vocabulary,
            layers: info.layers,
            context_length: info.context_length,
            trained_context_length: info.trained_context_length,
            hidden: info.hidden,
            pooling: info.pooling.as_str().into(),
            chat_template: info.chat_template,
            device: info.device,
        }
    }
}
