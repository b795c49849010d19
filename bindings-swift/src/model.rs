//! Models: texts and tokens, generations, scores, vectors, sequences, adapters.

use std::sync::Arc;

use realm::{EmbedOptions, unblock};

use crate::error::Result;
use crate::generation::{Generation, TokenLogprob, likeliest};
use crate::metrics::Metrics;
use crate::request::Request;
use crate::runtime::Tokenizer;
use crate::sequence::TokenSequence;

/// How hidden states become an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the last token.
    Last,
    /// That of the first token.
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

/// What a model is.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ModelInfo {
    /// What it was loaded by.
    pub reference: String,
    /// `general.name` of the file.
    pub name: Option<String>,
    /// Such as `llama`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: u64,
    /// Transformer layers.
    pub layers: u64,
    /// Tokens that one request may have, prompt and generation together.
    pub context_length: u64,
    /// Tokens that the model was trained for.
    pub trained_context_length: u64,
    /// Numbers in a hidden state, and so in an embedding.
    pub hidden: u64,
    /// How hidden states become an embedding.
    pub pooling: Pooling,
    /// Whether it has a chat template.
    pub chat_template: bool,
    /// Where it runs.
    pub device: String,
}

/// What a model says of one token of a given text.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Score {
    /// Log-probability, in nats, of the token that follows in the text; nil after the last one.
    pub next: Option<f32>,
    /// The likeliest tokens in its place, likeliest first.
    pub top: Vec<TokenLogprob>,
}

/// A loaded model, as one tenant sees it. The weights go when the last model and the last generation have gone.
#[derive(uniffi::Object)]
pub struct Model(pub(crate) realm::Model);

#[uniffi::export]
impl Model {
    /// What the model is.
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

    /// Starts a request and returns at once. `stream` and `generate` say more about it, and end it when their task is cancelled.
    pub fn start(&self, request: Request) -> Result<Arc<Generation>> {
        Ok(Arc::new(self.0.stream(request.convert()?)?.into()))
    }

    /// Token ids of a text. With `special`, control tokens spelled in it become those tokens: only for text that no user wrote. With
    /// `boundaries`, the begin and end tokens are added where the model expects them.
    #[uniffi::method(default(special = false, boundaries = true))]
    pub fn encode(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        self.0.encode_special(text, special, boundaries)
    }

    /// The text of tokens; control tokens are left out. Throws `InvalidArgument` for an id outside the vocabulary.
    pub fn decode(&self, tokens: Vec<u32>) -> Result<String> {
        Ok(self.0.decode(&tokens)?)
    }

    /// The model's tokenizer, for everything else.
    pub fn tokenizer(&self) -> Arc<Tokenizer> {
        Arc::new(Tokenizer::Of(self.0.clone()))
    }

    /// The prompt that the model's chat template makes of a request for a conversation, to look at: as text it no longer says which
    /// words are the template's and which a user's, so that control tokens in it can't be parsed safely. `renderTokens` gives what
    /// the model reads. Throws `Unsupported` for a model without a
    /// template, `InvalidArgument` with the template's own complaint or for another kind of prompt.
    pub fn render(&self, request: Request) -> Result<String> {
        Ok(self.0.render(&request.convert()?)?)
    }

    /// Token ids of the prompt that the model's chat template makes of a request for a conversation. A user's words in it are words,
    /// whatever they spell. Throws as `render`.
    pub fn render_tokens(&self, request: Request) -> Result<Vec<u32>> {
        Ok(self.0.render_tokens(&request.convert()?)?)
    }

    /// For each token the log-probability of the one that follows, and the `top` likeliest in its place.
    #[uniffi::method(default(top = 0))]
    pub async fn score(self: Arc<Self>, tokens: Vec<u32>, top: u64) -> Result<Vec<Score>> {
        let scored = self.0.score_async(&tokens, top as usize).await?;
        Ok(scored.into_iter().map(|s| Score { next: s.next, top: likeliest(s.top) }).collect())
    }

    /// The log-probability of each token of `continuation` after `prompt`, in nats; their sum is the log-likelihood. Throws
    /// `InvalidArgument` if either is empty.
    pub async fn log_likelihood(
        self: Arc<Self>,
        prompt: Vec<u32>,
        continuation: Vec<u32>,
    ) -> Result<Vec<f32>> {
        Ok(self.0.log_likelihood_async(&prompt, &continuation).await?)
    }

    /// One vector for tokens, `[hidden]`; with `normalize` its length is 1, so that a dot product is the cosine. `pooling` nil is what
    /// the model's file says.
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

    /// An empty sequence that the caller drives forward by forward.
    pub fn sequence(&self) -> Result<Arc<TokenSequence>> {
        Ok(Arc::new(self.0.sequence()?.into()))
    }

    /// A sequence from what `TokenSequence.save` gave, in this realm or another one of the same `snapshotKey`. Throws `InvalidArgument` for
    /// bytes that are not signed with the realm's key or were altered since, and for those of another model, device, cache type or
    /// adapter; `LimitExceeded` if it is longer than the context.
    pub async fn restore_sequence(self: Arc<Self>, bytes: Vec<u8>) -> Result<Arc<TokenSequence>> {
        let model = self.0.clone();
        Ok(Arc::new(unblock(move || model.restore_sequence(&bytes)).await?.into()))
    }

    /// A sequence from what a realm of another key saved. Its form is checked in full; whether its keys and values are what the model
    /// computes, nobody can know. The tenant's other requests don't use them. Throws `InvalidArgument` for anything but a saved sequence of
    /// this model, device, cache type and adapter; `LimitExceeded` as above.
    pub async fn restore_foreign_sequence(self: Arc<Self>, bytes: Vec<u8>) -> Result<Arc<TokenSequence>> {
        let model = self.0.clone();
        Ok(Arc::new(unblock(move || model.restore_foreign_sequence(&bytes)).await?.into()))
    }

    /// What the model has done for all tenants since it was loaded, and how it stands.
    pub fn metrics(&self) -> Metrics {
        self.0.metrics().into()
    }

    /// Loads a LoRA adapter while requests run: a GGUF file, or the folder that PEFT saves. Throws `Io`, `InvalidAdapter` for one that
    /// contradicts itself or does not fit the model, `Unsupported` for kinds other than plain LoRA.
    pub async fn load_adapter(self: Arc<Self>, path: String) -> Result<Arc<Adapter>> {
        let model = self.0.clone();
        Ok(Arc::new(Adapter(unblock(move || model.load_adapter(path)).await?)))
    }

    /// The same model with an adapter and a factor on what it adds: generations, scores, embeddings and sequences are the changed
    /// model's.
    #[uniffi::method(default(scale = 1.0))]
    pub fn adapted(&self, adapter: Arc<Adapter>, scale: f32) -> Arc<Model> {
        Arc::new(Self(self.0.adapted(&adapter.0, scale)))
    }
}

/// A LoRA adapter on a model. Unloaded when nobody holds it and the last request that uses it has gone.
#[derive(uniffi::Object)]
pub struct Adapter(pub(crate) realm::Adapter);

#[uniffi::export]
impl Adapter {
    /// What it was loaded by, which tenants' limits name.
    pub fn name(&self) -> String {
        self.0.name().to_owned()
    }

    /// Its largest rank.
    pub fn rank(&self) -> u64 {
        self.0.rank() as u64
    }

    /// Bytes that its matrices take.
    pub fn bytes(&self) -> u64 {
        self.0.bytes() as u64
    }
}
