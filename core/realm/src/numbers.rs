//! What a model says of a text in numbers: scores and embeddings.

use realm_engine::{Answer, Pooling, Scored};

use crate::error::ErrorCode;
use crate::{Error, Model};

impl Model {
    /// For each of `tokens` the log-probability of the one that follows, and the `top` likeliest in its place. Blocks.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn score(&self, tokens: &[u32], top: usize) -> Result<Vec<Scored>, Error> {
        Ok(self
            .shared
            .engine
            .score(&self.tenant.inner, self.adapter.clone(), tokens.to_vec(), 0, top)?
            .wait()?)
    }

    /// As [`score`](Self::score), for tasks.
    ///
    /// # Errors
    /// As above.
    pub async fn score_async(&self, tokens: &[u32], top: usize) -> Result<Vec<Scored>, Error> {
        Ok(self
            .shared
            .engine
            .score(&self.tenant.inner, self.adapter.clone(), tokens.to_vec(), 0, top)?
            .wait_async()
            .await?)
    }

    /// The log-probability of each token of `continuation` after `prompt`, in nats; their sum is the log-likelihood.
    /// What is known of the prompt is not computed again. Blocks.
    ///
    /// # Errors
    /// As [`stream`](Self::stream), and `invalid-argument` if either is empty.
    pub fn log_likelihood(&self, prompt: &[u32], continuation: &[u32]) -> Result<Vec<f32>, Error> {
        Ok(likelihoods(self.likelihood_request(prompt, continuation)?.wait()?))
    }

    /// As [`log_likelihood`](Self::log_likelihood), for tasks.
    ///
    /// # Errors
    /// As above.
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
        Ok(self.shared.engine.score(&self.tenant.inner, self.adapter.clone(), tokens, prompt.len() - 1, 0)?)
    }

    /// One vector of length 1 for a text, `[hidden]`, pooled as the model's file says. Blocks.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        self.embed_with(&self.encode(text), &EmbedOptions::default())
    }

    /// The vector for tokens, with options. Blocks.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn embed_with(&self, tokens: &[u32], options: &EmbedOptions) -> Result<Vec<f32>, Error> {
        Ok(self.embed_request(tokens, options)?.wait()?)
    }

    /// As [`embed_with`](Self::embed_with), for tasks.
    ///
    /// # Errors
    /// As above.
    pub async fn embed_async(&self, tokens: &[u32], options: &EmbedOptions) -> Result<Vec<f32>, Error> {
        Ok(self.embed_request(tokens, options)?.wait_async().await?)
    }

    fn embed_request(&self, tokens: &[u32], options: &EmbedOptions) -> Result<Answer<Vec<f32>>, Error> {
        let pooling = options.pooling.unwrap_or(self.shared.info.pooling);
        Ok(self.shared.engine.embed(
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

/// How a text becomes a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedOptions {
    /// Which hidden states count; `None` for what the model's file says.
    pub pooling: Option<Pooling>,
    /// Scale it to length 1, so that a dot product is the cosine.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self { pooling: None, normalize: true }
    }
}
