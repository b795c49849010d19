//! One set of weights, used by everybody.

use std::sync::Arc;

use realm_engine::{Engine, TokenLogprob};
use realm_gguf::Gguf;
use realm_model::Weights;
use realm_tokenizer::{ChatTemplate, Conversation, Tokenizer};

use crate::error::ErrorCode;
use crate::{Completion, Error, Generation, Message, Prompt, Request};

/// A loaded model. Cloning it is cheap and shares everything; the weights go when the last clone and the last
/// generation have gone.
#[derive(Clone)]
pub struct Model {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) info: ModelInfo,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// `general.name` of the file.
    pub name: Option<String>,
    /// Such as `llama`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Tokens that one request may have, prompt and generation together.
    pub context_length: usize,
    /// Tokens that the model was trained for.
    pub trained_context_length: usize,
    /// Whether it has a chat template.
    pub chat_template: bool,
    /// Where it runs.
    pub device: String,
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
            layers: config.layers,
            context_length: engine.context_length(),
            trained_context_length: config.context_length,
            chat_template,
            device: weights.device(),
        }
    }
}

impl Model {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// Token ids of `text`, with the begin token where the model expects one. Control tokens spelled in the
    /// text are not parsed: see [`encode_special`](Self::encode_special).
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.shared.tokenizer.encode(text, false, true)
    }

    /// Token ids of `text`. With `special`, control tokens spelled in it become those tokens: only for text
    /// that no user wrote. With `boundaries`, the begin and end tokens are added where the model expects them.
    pub fn encode_special(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        self.shared.tokenizer.encode(text, special, boundaries)
    }

    /// The text of `tokens`; control tokens are left out.
    ///
    /// # Errors
    /// `invalid-argument` for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        Ok(self.shared.tokenizer.decode(tokens, false)?)
    }

    /// The tokenizer, for everything else.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// The prompt that the model's chat template makes of a conversation, ending with the start of the
    /// assistant's answer.
    ///
    /// # Errors
    /// `unsupported` for a model without a template, `invalid-argument` with the template's own complaint.
    pub fn apply_chat_template(&self, messages: &[Message]) -> Result<String, Error> {
        self.render(&Request::chat(messages.iter().cloned()))
    }

    /// As [`apply_chat_template`](Self::apply_chat_template), with the tools and variables of a request for
    /// [`Prompt::Chat`].
    ///
    /// # Errors
    /// As above, and `invalid-argument` for another kind of prompt.
    pub fn render(&self, request: &Request) -> Result<String, Error> {
        let Prompt::Chat(messages) = &request.prompt else {
            return Err(Error::new(ErrorCode::InvalidArgument, "only a conversation can be rendered"));
        };
        let template = self.shared.template.as_ref().ok_or(realm_tokenizer::Error::NoTemplate)?;
        let conversation = Conversation {
            messages: messages.iter().map(|m| m.0.clone()).collect(),
            tools: request.tools.clone(),
            add_generation_prompt: true,
            variables: request.template_variables.clone(),
        };
        Ok(template.render(&conversation)?)
    }

    /// Starts a request and returns its stream at once.
    ///
    /// # Errors
    /// `invalid-argument` and `limit-exceeded` say what about the request is wrong.
    pub fn stream(&self, request: Request) -> Result<Generation, Error> {
        let prompt = match &request.prompt {
            Prompt::Text(text) => self.encode(text),
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Chat(_) => {
                let text = self.render(&request)?;
                // Most templates spell the begin token themselves.
                let tokenizer = &self.shared.tokenizer;
                let mut tokens = tokenizer.encode(&text, true, false);
                if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos())
                    && tokens.first() != Some(&bos)
                {
                    tokens.insert(0, bos);
                }
                tokens
            }
        };
        let request = realm_engine::Request {
            prompt,
            sampling: request.sampling,
            max_tokens: request.max_tokens,
            stop: request.stop,
            logprobs: request.logprobs,
            ignore_eos: request.ignore_eos,
            special: false,
        };
        Ok(Generation::new(self.shared.engine.generate(request)?, Arc::clone(&self.shared)))
    }

    /// Runs a request to its end. Blocks.
    ///
    /// # Errors
    /// As [`stream`](Self::stream), and what ended the request early.
    pub fn generate(&self, request: Request) -> Result<Completion, Error> {
        self.stream(request)?.finish()
    }

    /// Runs a request to its end, for tasks.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub async fn generate_async(&self, request: Request) -> Result<Completion, Error> {
        self.stream(request)?.finish_async().await
    }

    /// The `top` likeliest tokens after each of `tokens`, `[tokens][top]`. Blocks.
    ///
    /// # Errors
    /// `invalid-argument` and `limit-exceeded` say what about the request is wrong.
    pub fn score(&self, tokens: &[u32], top: usize) -> Result<Vec<Vec<TokenLogprob>>, Error> {
        Ok(self.shared.engine.score(tokens.to_vec(), top)?)
    }
}
