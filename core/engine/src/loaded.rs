//! A loaded model: its weights and engine, and the tokenizer and chat template that turn prompts into tokens.

use std::sync::Arc;

use realm_model::Weights;
use realm_tokenizer::{ChatTemplate, Conversation, Rendered, Tokenizer};

use crate::engine::Engine;

/// A model in memory, which all tenants share. The weights are freed when the last reference is dropped.
pub struct LoadedModel {
    /// The name that the model was loaded by; tenants' limits use this name.
    pub name: String,
    /// The engine, which batches the work of all tenants.
    pub engine: Engine,
    /// The weights and their shape.
    pub weights: Box<dyn Weights>,
    /// Encodes text into tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Renders conversations as text, if the model has a template.
    pub template: Option<ChatTemplate>,
    /// The last field, so that it is dropped after the weights and the KV cache.
    _trim: TrimMemory,
}

/// Asks the allocator, when dropped, to return a model's memory to the system.
struct TrimMemory;

impl Drop for TrimMemory {
    fn drop(&mut self) {
        realm_compute::trim_memory();
    }
}

/// The tokens or text that a request continues.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Text, as it is.
    Text(String),
    /// A conversation for the chat template.
    Chat(Conversation),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// The reason why a prompt has no tokens.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model has no tokenizer or no chat template, or the template cannot render the conversation.
    #[error(transparent)]
    Tokenizer(#[from] realm_tokenizer::Error),
    /// The prompt was not tokenized to its end.
    #[error(
        "the prompt of {bytes} bytes has more than {most} tokens, far more than a request may have: shorten it"
    )]
    TooLong {
        /// The size of the text, in bytes.
        bytes: usize,
        /// The most tokens that were counted.
        most: usize,
    },
}

impl LoadedModel {
    /// Puts a model together. `engine` runs `weights`, and `tokenizer` is the engine's.
    pub fn new(
        name: impl Into<String>,
        engine: Engine,
        weights: Box<dyn Weights>,
        tokenizer: Arc<Tokenizer>,
        template: Option<ChatTemplate>,
    ) -> Self {
        Self { name: name.into(), engine, weights, tokenizer, template, _trim: TrimMemory }
    }

    /// Returns the number of logits in a row: the tokens of the vocabulary, and in some models a few that
    /// stand for no token.
    pub fn vocabulary(&self) -> usize {
        self.weights.config().vocab
    }

    /// Renders a conversation with the chat template; the result marks which words are not the template's
    /// own.
    ///
    /// # Errors
    /// `NoTemplate` without a template, and the template's own error.
    pub fn render(&self, conversation: &Conversation) -> Result<Rendered, realm_tokenizer::Error> {
        let template = self.template.as_ref().ok_or(realm_tokenizer::Error::NoTemplate)?;
        template.render(conversation)
    }

    /// Returns the tokens of a prompt.
    ///
    /// # Errors
    /// Same as [`render`](Self::render).
    pub fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, PromptError> {
        self.tokenize_at_most(prompt, usize::MAX)
    }

    /// Same as [`tokenize`](Self::tokenize), for a prompt of at most `most` tokens. A longer one is refused
    /// before all of it is tokenized.
    ///
    /// # Errors
    /// Same as [`tokenize`](Self::tokenize), and `TooLong` for a longer prompt.
    pub fn tokenize_at_most(&self, prompt: &Prompt, most: usize) -> Result<Vec<u32>, PromptError> {
        match prompt {
            Prompt::Text(_) | Prompt::Chat(_) if !self.tokenizer.spells() => {
                Err(realm_tokenizer::Error::NoTokenizer.into())
            }
            Prompt::Text(text) => self.encode_at_most(text, false, most),
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
            Prompt::Chat(conversation) => {
                let Rendered { text, foreign } = self.render(conversation)?;
                let tokens = self.tokenizer.encode_rendered_at_most(&text, &foreign, false, most);
                let mut tokens = tokens.ok_or(PromptError::TooLong { bytes: text.len(), most })?;
                // Most templates spell the begin token themselves.
                if let Some(bos) = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos())
                    && tokens.first() != Some(&bos)
                {
                    tokens.insert(0, bos);
                }
                Ok(tokens)
            }
        }
    }

    /// Encodes a text of at most `most` tokens, with the begin token if the model expects one. With
    /// `special`, control tokens spelled in the text become those tokens.
    ///
    /// # Errors
    /// `TooLong` for a longer text, which is refused before all of it is tokenized.
    pub fn encode_at_most(&self, text: &str, special: bool, most: usize) -> Result<Vec<u32>, PromptError> {
        if !self.tokenizer.spells() {
            return Err(realm_tokenizer::Error::NoTokenizer.into());
        }
        let tokens = self.tokenizer.encode_at_most(text, special, true, most);
        tokens.ok_or(PromptError::TooLong { bytes: text.len(), most })
    }
}
