//! Scores and embeddings of texts.

use realm_engine::{Answer, Pooling, Scored};

use crate::error::ErrorCode;
use crate::{Error, Model};

impl Model {
    /// Returns, for each of `tokens`, the log-probability of the token that follows it and the `top`
    /// likeliest tokens in its place. Blocks.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream).
    pub fn score(&self, tokens: &[u32], top: usize) -> Result<Vec<Scored>, Error> {
        Ok(self
            .loaded
            .engine
            .score(&self.tenant.inner, self.adapter.clone(), tokens.to_vec(), 0, top)?
            .wait()?)
    }

    /// Same as [`score`](Self::score), for tasks.
    ///
    /// # Errors
    /// Same as [`score`](Self::score).
    pub async fn score_async(&self, tokens: &[u32], top: usize) -> Result<Vec<Scored>, Error> {
        Ok(self
            .loaded
            .engine
            .score(&self.tenant.inner, self.adapter.clone(), tokens.to_vec(), 0, top)?
            .wait_async()
            .await?)
    }

    /// Returns the log-probability of each token of `continuation` after `prompt`, in nats; their sum is the
    /// log-likelihood. The part of the prompt that is in the prefix cache is not computed again. Blocks.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream), and `invalid-argument` if either is empty.
    pub fn log_likelihood(&self, prompt: &[u32], continuation: &[u32]) -> Result<Vec<f32>, Error> {
        Ok(likelihoods(self.likelihood_request(prompt, continuation)?.wait()?))
    }

    /// Same as [`log_likelihood`](Self::log_likelihood), for tasks.
    ///
    /// # Errors
    /// Same as [`log_likelihood`](Self::log_likelihood).
    pub async fn log_likelihood_async(
        &self,
        prompt: &[u32],
        continuation: &[u32],
    ) -> Result<Vec<f32>, Error> {
        Ok(likelihoods(self.likelihood_request(prompt, continuation)?.wait_async().await?))
    }

    fn likelihood_request(&self, prompt: &[u32], continuation: &[u32]) -> Result<Answer<Vec<Scored>>, Error> {
        if prompt.is_empty() || continuation.is_empty() {
            let why = "the prompt and the continuation need at least one token each";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        let tokens = [prompt, continuation].concat();
        Ok(self.loaded.engine.score(&self.tenant.inner, self.adapter.clone(), tokens, prompt.len() - 1, 0)?)
    }

    /// Returns the embedding of a text: a vector of length 1, `[hidden]`, pooled as the model's file says.
    /// Blocks.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream).
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        self.embed_with(&self.encode(text), &EmbedOptions::default())
    }

    /// Returns the embedding of tokens, with options. Blocks.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream).
    pub fn embed_with(&self, tokens: &[u32], options: &EmbedOptions) -> Result<Vec<f32>, Error> {
        Ok(self.embed_request(tokens, options)?.wait()?)
    }

    /// Same as [`embed_with`](Self::embed_with), for tasks.
    ///
    /// # Errors
    /// Same as [`embed_with`](Self::embed_with).
    pub async fn embed_async(&self, tokens: &[u32], options: &EmbedOptions) -> Result<Vec<f32>, Error> {
        Ok(self.embed_request(tokens, options)?.wait_async().await?)
    }

    fn embed_request(&self, tokens: &[u32], options: &EmbedOptions) -> Result<Answer<Vec<f32>>, Error> {
        let pooling = options.pooling.unwrap_or(self.frontend.info.pooling);
        Ok(self.loaded.engine.embed(
            &self.tenant.inner,
            self.adapter.clone(),
            tokens.to_vec(),
            pooling,
            options.normalize,
        )?)
    }
}

fn likelihoods(scores: Vec<Scored>) -> Vec<f32> {
    scores.into_iter().filter_map(|score| score.next).collect()
}

/// The options of an embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedOptions {
    /// The hidden states that the vector is computed from; `None` for the model file's own pooling.
    pub pooling: Option<Pooling>,
    /// True to scale the vector to length 1, so that a dot product is the cosine. The default is `true`.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self { pooling: None, normalize: true }
    }
}
