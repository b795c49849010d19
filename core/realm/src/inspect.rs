//! Facts from a model's file or folder, without loading it.

use std::path::Path;

use realm_model::ModelConfig;

use crate::Error;

/// Facts from the header of a GGUF file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileInfo {
    /// The name in the file, `general.name`.
    pub name: Option<String>,
    /// The architecture, such as `llama`.
    pub architecture: String,
    /// The number of weights.
    pub parameters: u64,
    /// The number of transformer layers.
    pub layers: usize,
    /// The size of the vocabulary, in tokens.
    pub vocabulary: usize,
    /// The longest context that the model was trained for, in tokens.
    pub trained_context_length: usize,
    /// True if the file has a chat template.
    pub chat_template: bool,
    /// For each tensor type its name, its number of tensors and its bytes, largest first.
    pub tensor_types: Vec<(String, usize, u64)>,
}

/// Reads the header of a GGUF file, or the index of a folder as transformers saves it.
///
/// # Errors
/// `io` for a file that cannot be read, and `invalid-model` or `unsupported` for one that Realm cannot run.
pub fn inspect(path: &Path) -> Result<FileInfo, Error> {
    let gguf = realm_convert::open(path).map_err(Error::in_file(path))?;
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
        layers: config.layers.len(),
        vocabulary: config.vocab,
        trained_context_length: config.context_length,
        chat_template: gguf.metadata().get("tokenizer.chat_template").is_some(),
        tensor_types,
    })
}
