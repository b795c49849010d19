//! `POST /v1/embeddings`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use realm::Prompt;
use serde_json::{Map, Value};

use super::completions::prompts;
use super::types::{Embedding, EmbeddingList, EmbeddingUsage, Vector};
use crate::ApiError;
use crate::fields::Fields;

/// The most inputs of one request, the same as OpenAI's limit.
const MAX_INPUTS: usize = 2048;

/// Texts to turn into vectors.
#[derive(Debug, Clone)]
pub struct EmbeddingRequest {
    /// The model's name.
    pub model: String,
    /// The texts to turn into vectors.
    pub inputs: Vec<EmbeddingInput>,
    /// True if vectors are written as base64 instead of numbers.
    pub base64: bool,
    /// The number of dimensions that vectors must have.
    pub dimensions: Option<usize>,
    /// Unknown fields.
    pub ignored: Vec<String>,
}

/// An input that becomes a vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbeddingInput {
    /// A text.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
}

impl EmbeddingRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Status 400 with the name of a field whose value is invalid or can't be honored.
    pub fn read(body: Map<String, Value>) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body, "");
        let model = fields.text("model")?.ok_or_else(|| {
            ApiError::invalid("model", "model is missing; name one, GET /v1/models lists those that are here")
        })?;
        let inputs = prompts(fields.take("input"), "input")?;
        let input = |prompt| match prompt {
            Prompt::Tokens(tokens) => EmbeddingInput::Tokens(tokens),
            Prompt::Text(text) => EmbeddingInput::Text(text),
            // Conversations are never among the inputs.
            _ => EmbeddingInput::Text(String::new()),
        };
        let inputs: Vec<_> = inputs.into_iter().map(input).collect();
        if inputs.iter().any(|input| matches!(input, EmbeddingInput::Text(text) if text.is_empty())) {
            return Err(ApiError::invalid("input", "input has an empty text, which has no vector"));
        }
        if inputs.len() > MAX_INPUTS {
            let message = format!("input has {} texts; at most {MAX_INPUTS} at once", inputs.len());
            return Err(ApiError::invalid("input", message));
        }
        let base64 = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(fields.invalid("encoding_format", "`float` or `base64`")),
        };
        let dimensions = fields.count("dimensions", 1)?;
        fields.skip(&["user"]);
        let mut ignored = Vec::new();
        fields.rest(&mut ignored);
        Ok(Self { model, inputs, base64, dimensions, ignored })
    }

    /// Refuses a number of dimensions that the model's vectors do not have.
    ///
    /// # Errors
    /// Status 400 for such a number.
    pub fn check_dimensions(&self, hidden: usize) -> Result<(), ApiError> {
        match self.dimensions {
            Some(dimensions) if dimensions != hidden => {
                let message = format!("dimensions is {dimensions}; this model's vectors have {hidden}");
                Err(ApiError::unsupported("dimensions", message))
            }
            _ => Ok(()),
        }
    }

    /// Returns the answer, given a vector for each input and the number of tokens of all.
    pub fn answer(&self, vectors: Vec<Vec<f32>>, tokens: usize) -> EmbeddingList {
        let each = |(index, vector): (usize, Vec<f32>)| Embedding {
            object: "embedding",
            index,
            embedding: if self.base64 { Vector::Base64(base64(&vector)) } else { Vector::Floats(vector) },
        };
        EmbeddingList {
            object: "list",
            data: vectors.into_iter().enumerate().map(each).collect(),
            model: self.model.clone(),
            usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
        }
    }
}

fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}
