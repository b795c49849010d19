//! What a model's file says about itself, without loading it.

use std::path::Path;

use realm_gguf::Gguf;
use realm_model::ModelConfig;

use crate::Error;

/// What a GGUF file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct FileInfo {
    /// `general.name`.
    pub name: Option<String>,
    /// Such as `llama`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Transformer layers.
    pub layers: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Tokens that the model was trained for.
    pub trained_context_length: usize,
    /// Whether it has a chat template.
    pub chat_template: bool,
    /// For each tensor type its name, number of tensors and bytes, largest first.
    pub tensor_types: Vec<(String, usize, u64)>,
}

/// Reads a file's header.
///
/// # Errors
/// `io`, and `invalid-model` or `unsupported` for files that Realm can't run.
pub fn inspect(path: &Path) -> Result<FileInfo, Error> {
    let gguf = Gguf::open(path).map_err(Error::in_file(path))?;
    let config = ModelConfig::from_gguf(&gguf)?;
    let mut tensor_types: Vec<(String, usize, u64)> = Vec::new();
    for tensor in gguf.tensors() {
        let (name, bytes) = (tensor.ty.to_string(), tensor.bytes() as u64);
        match tensor_types.iter_mut().find(|(other, ..)| *other == name) {
            Some((_, count, total)) => {
                *count += 1;
                *total += bytes;
            }
            None => tensor_types.push((name, 1, bytes)),
        }
    }
    tensor_types.sort_by_key(|&(.., bytes)| std::cmp::Reverse(bytes));
    Ok(FileInfo {
        name: config.name,
        architecture: config.architecture.to_string(),
        parameters: config.parameters,
        layers: config.layers,
        vocabulary: config.vocab,
        trained_context_length: config.context_length,
        chat_template: gguf.metadata().get("tokenizer.chat_template").is_some(),
        tensor_types,
    })
}
