//! Facts about models, files and texts.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::errors::Result;
use crate::record::record;
use crate::results::{TokenLogprob, logprobs};

record! {
    /// Facts about a loaded model.
    ModelInfo {
        /// The name in the file, `general.name`.
        name: Option<String>,
        /// The architecture, such as `llama`.
        architecture: String,
        /// The number of weights.
        parameters: u64,
        /// The size of the file, in bytes.
        file_bytes: u64,
        /// The size of the vocabulary, in tokens.
        vocabulary: usize,
        /// The number of transformer layers.
        layers: usize,
        /// The longest context of one request, prompt and generation together, in tokens.
        context_length: usize,
        /// The longest context that the model was trained for, in tokens.
        trained_context_length: usize,
        /// The length of a hidden state, and so of an embedding.
        hidden: usize,
        /// The default pooling of embeddings: `"mean"`, `"last"` or `"cls"`.
        pooling: String,
        /// True if it has a chat template.
        chat_template: bool,
        /// The device that it runs on.
        device: String,
    }
}

record! {
    /// Facts from the header of a GGUF file.
    FileInfo {
        /// The name in the file, `general.name`.
        name: Option<String>,
        /// The architecture, such as `llama`.
        architecture: String,
        /// The number of weights.
        parameters: u64,
        /// The number of transformer layers.
        layers: usize,
        /// The size of the vocabulary, in tokens.
        vocabulary: usize,
        /// The longest context that the model was trained for, in tokens.
        trained_context_length: usize,
        /// True if it has a chat template.
        chat_template: bool,
        /// For each tensor type its name, number of tensors and bytes, largest first.
        tensor_types: Vec<(String, usize, u64)>,
    }
}

record! {
    /// The score of one position of a text.
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
