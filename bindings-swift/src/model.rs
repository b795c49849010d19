//! Models: text and tokens, generations, scores, embeddings, sequences, adapters.

use std::sync::Arc;

use realm::{EmbedOptions, unblock};

use crate::error::Result;
use crate::generation::{Generation, TokenLogprob, likeliest};
use crate::metrics::Metrics;
use crate::request::Request;
use crate::runtime::Tokenizer;
use crate::sequence::TokenSequence;

/// The way that hidden states become an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Pooling {
    /// The mean of the hidden states.
    Mean,
    /// The hidden state of the last token.
    Last,
    /// The hidden state of the first token.
    Cls,
}

impl From<Pooling> for realm::Pooling {
    fn from(pooling: Pooling) -> Self {
        match pooling {
            Pooling::Mean => Self::Mean,
            Pooling::Last => Self::Last,
            Pooling::Cls => Self::Cls,
        }
    }
}

/// Facts about a model.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ModelInfo {
    /// The reference that it was loaded by.
    pub reference: String,
    /// The name in the file, `general.name`.
    pub name: Option<String>,
    /// The architecture, such as `llama`.
    pub architecture: String,
    /// The number of weights.
    pub parameters: u64,
    /// The size of the file, in bytes.
    pub file_bytes: u64,
    /// The size of the vocabulary, in tokens.
    pub vocabulary: u64,
    /// The number of transformer layers.
    pub layers: u64,
    /// The longest context of one request, prompt and generation together, in tokens.
    pub context_length: u64,
    /// The longest context that the model was trained for, in tokens.
    pub trained_context_length: u64,
    /// The length of a hidden state, and so of an embedding.
    pub hidden: u64,
    /// The default pooling of embeddings.
    pub pooling: Pooling,
    /// True if it has a chat template.
    pub chat_template: bool,
    /// The device that it runs on.
    pub device: String,
}

/// The score of one token of a given text.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Score {
    /// The log-probability, in nats, of the token that follows in the text; nil after the last one.
    pub next: Option<f32>,
    /// The likeliest tokens in its place, likeliest first.
    pub top: Vec<TokenLogprob>,
}

/// A loaded model, as one tenant sees it. The weights are freed when the last model and the last generation
/// are released.
#[derive(uniffi::Object)]
pub struct Model(pub(crate) realm::Model);

#[uniffi::export]
impl Model {
    /// Returns facts about the model.
    pub fn info(&self) -> ModelInfo {
        let info = self.0.info();
        ModelInfo {
            reference: self.0.reference().to_owned(),
            name: info.name.clone(),
            architecture: info.architecture.clone(),
            parameters: info.parameters,
            file_bytes: info.file_bytes,
            vocabulary: info.vocabulary as u64,
            layers: info.layers as u64,
            context_length: info.context_length as u64,
            trained_context_length: info.trained_context_length as u64,
            hidden: info.hidden as u64,
            pooling: match info.pooling {
                realm::Pooling::Mean => Pooling::Mean,
                realm::Pooling::Last => Pooling::Last,
                realm::Pooling::Cls => Pooling::Cls,
            },
            chat_template: info.chat_template,
            device: info.device.clone(),
        }
    }

    /// Starts a request and returns at once. Prefer `stream` and `generate`, which end the request when their
    /// task is cancelled.
    pub fn start(&self, request: Request) -> Result<Arc<Generation>> {
        Ok(Arc::new(self.0.stream(request.convert()?)?.into()))
    }

    /// Encodes a text into token ids. With `special`, control tokens spelled in the text become those tokens:
    /// use it only for text that no user wrote. With `boundaries`, the begin and end tokens are added if the
    /// model expects them.
    #[uniffi::method(default(special = false, boundaries = true))]
    pub fn encode(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        self.0.encode_special(text, special, boundaries)
    }

    /// Decodes tokens into text, leaving out control tokens. Throws `InvalidArgument` for an id outside the
    /// vocabulary.
    pub fn decode(&self, tokens: Vec<u32>) -> Result<String> {
        Ok(self.0.decode(&tokens)?)
    }

    /// Returns the model's tokenizer, for everything else.
    pub fn tokenizer(&self) -> Arc<Tokenizer> {
        Arc::new(Tokenizer::Of(self.0.clone()))
    }

    /// Renders a request for a conversation with the model's chat template. The text is for reading only: it
    /// no longer shows which words are the template's and which a user's, so parsing control tokens in it is
    /// not safe. For tokens to give to the model, use `renderTokens`. Throws `Unsupported` for a model
    /// without a template, `InvalidArgument` with the template's own error or for another kind of prompt.
    pub fn render(&self, request: Request) -> Result<String> {
        Ok(self.0.render(&request.convert()?)?)
    }

    /// Returns the token ids of a request for a conversation, rendered with the model's chat template. Only
    /// the template can spell control tokens; a user's words cannot. Throws the same errors as `render`.
    pub fn render_tokens(&self, request: Request) -> Result<Vec<u32>> {
        Ok(self.0.render_tokens(&request.convert()?)?)
    }

    /// Returns, for each token, the log-probability of the token that follows it, and the `top` likeliest in
    /// its place.
    #[uniffi::method(default(top = 0))]
    pub async fn score(self: Arc<Self>, tokens: Vec<u32>, top: u64) -> Result<Vec<Score>> {
        let scored = self.0.score_async(&tokens, top as usize).await?;
        Ok(scored.into_iter().map(|s| Score { next: s.next, top: likeliest(s.top) }).collect())
    }

    /// Returns the log-probability of each token of `continuation` after `prompt`, in nats; their sum is the
    /// log-likelihood. Throws `InvalidArgument` if either is empty.
    pub async fn log_likelihood(
        self: Arc<Self>,
        prompt: Vec<u32>,
        continuation: Vec<u32>,
    ) -> Result<Vec<f32>> {
        Ok(self.0.log_likelihood_async(&prompt, &continuation).await?)
    }

    /// Returns the embedding of tokens, `[hidden]`; with `normalize` its length is 1, so that a dot product
    /// is the cosine. If `pooling` is nil, the model's file decides.
    #[uniffi::method(default(pooling = None, normalize = true))]
    pub async fn embed_tokens(
        self: Arc<Self>,
        tokens: Vec<u32>,
        pooling: Option<Pooling>,
        normalize: bool,
    ) -> Result<Vec<f32>> {
        let pooling = pooling.map(Into::into);
        Ok(self.0.embed_async(&tokens, &EmbedOptions { pooling, normalize }).await?)
    }

    /// Creates an empty sequence that the caller drives, one forward pass at a time.
    pub fn sequence(&self) -> Result<Arc<TokenSequence>> {
        Ok(Arc::new(self.0.sequence()?.into()))
    }

    /// Restores a sequence from the bytes of `TokenSequence.save`, written by this realm or by another one
    /// with the same `snapshotKey`. Throws `InvalidArgument` for bytes that are not signed with the realm's
    /// key or were changed since, and for bytes of another model, device, cache type or adapter;
    /// `LimitExceeded` if the sequence is longer than the context.
    pub async fn restore_sequence(self: Arc<Self>, bytes: Vec<u8>) -> Result<Arc<TokenSequence>> {
        let model = self.0.clone();
        Ok(Arc::new(unblock(move || model.restore_sequence(&bytes)).await?.into()))
    }

    /// Restores a sequence that a realm with another key saved. The format of the bytes is checked in full,
    /// but Realm cannot check that their keys and values are those that the model computes. Therefore the
    /// tenant's other requests do not use them. Throws `InvalidArgument` for anything but a saved sequence of
    /// this model, device, cache type and adapter; `LimitExceeded` if the sequence is longer than the
    /// context.
    pub async fn restore_foreign_sequence(self: Arc<Self>, bytes: Vec<u8>) -> Result<Arc<TokenSequence>> {
        let model = self.0.clone();
        Ok(Arc::new(unblock(move || model.restore_foreign_sequence(&bytes)).await?.into()))
    }

    /// Reads the model's counters and gauges, over all tenants since it was loaded.
    pub fn metrics(&self) -> Metrics {
        self.0.metrics().into()
    }

    /// Loads a LoRA adapter while requests run: a GGUF file, or the folder that PEFT saves. Throws `Io`,
    /// `InvalidAdapter` for one that contradicts itself or does not fit the model, `Unsupported` for kinds
    /// other than plain LoRA.
    pub async fn load_adapter(self: Arc<Self>, path: String) -> Result<Arc<Adapter>> {
        let model = self.0.clone();
        Ok(Arc::new(Adapter(unblock(move || model.load_adapter(path)).await?)))
    }

    /// Returns the same model with an adapter, and a factor on what the adapter adds. Generations, scores,
    /// embeddings and sequences are then those of the adapted model.
    #[uniffi::method(default(scale = 1.0))]
    pub fn adapted(&self, adapter: Arc<Adapter>, scale: f32) -> Arc<Model> {
        Arc::new(Self(self.0.adapted(&adapter.0, scale)))
    }
}

/// A LoRA adapter of a model. Unloaded when its last reference and the last request that uses it are gone.
#[derive(uniffi::Object)]
pub struct Adapter(pub(crate) realm::Adapter);

#[uniffi::export]
impl Adapter {
    /// Returns the name that it was loaded by; tenants' limits use this name.
    pub fn name(&self) -> String {
        self.0.name().to_owned()
    }

    /// Returns the largest rank of its matrices.
    pub fn rank(&self) -> u64 {
        self.0.rank() as u64
    }

    /// Returns the size of its matrices, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes() as u64
    }
}
