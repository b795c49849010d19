//! Scores and embeddings of texts.

use realm_engine::{Answer, Scored};
use realm_handover::block_on;

use crate::error::ErrorCode;
use crate::model::{Inner, LocalModel};
use crate::{EmbedOptions, Error, Model};

impl Model {
    /// Returns, for each of `tokens`, the log-probability of the token that follows it and the `top`
    /// likeliest tokens in its place. Blocks.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream).
    pub fn score(&self, tokens: &[u32], top: usize) -> Result<Vec<Scored>, Error> {
        match &self.inner {
            Inner::Local(model) => Ok(model.score(tokens.to_vec(), 0, top)?.wait()?),
            Inner::Remote(model) => block_on(model.served.score(&model.adapter, tokens.to_vec(), top)),
        }
    }

    /// Same as [`score`](Self::score), for tasks.
    ///
    /// # Errors
    /// Same as [`score`](Self::score).
    pub async fn score_async(&self, tokens: &[u32], top: usize) -> Result<Vec<Scored>, Error> {
        match &self.inner {
            Inner::Local(model) => Ok(model.score(tokens.to_vec(), 0, top)?.wait_async().await?),
            Inner::Remote(model) => model.served.score(&model.adapter, tokens.to_vec(), top).await,
        }
    }

    /// Returns the log-probability of each token of `continuation` after `prompt`, in nats; their sum is the
    /// log-likelihood. The part of the prompt that is in the prefix cache is not computed again. Blocks.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream), and `invalid-argument` if either is empty.
    pub fn log_likelihood(&self, prompt: &[u32], continuation: &[u32]) -> Result<Vec<f32>, Error> {
        check_likelihood(prompt, continuation)?;
        let (prompt, continuation) = (prompt.to_vec(), continuation.to_vec());
        Ok(likelihoods(match &self.inner {
            Inner::Local(model) => model.likelihood(prompt, &continuation)?.wait()?,
            Inner::Remote(model) => {
                block_on(model.served.score_continuation(&model.adapter, prompt, continuation))?
            }
        }))
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
        check_likelihood(prompt, continuation)?;
        let (prompt, continuation) = (prompt.to_vec(), continuation.to_vec());
        Ok(likelihoods(match &self.inner {
            Inner::Local(model) => model.likelihood(prompt, &continuation)?.wait_async().await?,
            Inner::Remote(model) => {
                model.served.score_continuation(&model.adapter, prompt, continuation).await?
            }
        }))
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
        match &self.inner {
            Inner::Local(model) => Ok(model.embed(tokens, options)?.wait()?),
            Inner::Remote(model) => block_on(model.served.embed(&model.adapter, tokens.to_vec(), options)),
        }
    }

    /// Same as [`embed_with`](Self::embed_with), for tasks.
    ///
    /// # Errors
    /// Same as [`embed_with`](Self::embed_with).
    pub async fn embed_async(&self, tokens: &[u32], options: &EmbedOptions) -> Result<Vec<f32>, Error> {
        match &self.inner {
            Inner::Local(model) => Ok(model.embed(tokens, options)?.wait_async().await?),
            Inner::Remote(model) => model.served.embed(&model.adapter, tokens.to_vec(), options).await,
        }
    }
}

impl LocalModel {
    /// Scores the tokens that follow the one at index `from` and later ones.
    fn score(&self, tokens: Vec<u32>, from: usize, top: usize) -> Result<Answer<Vec<Scored>>, Error> {
        Ok(self.loaded.engine.score(&self.tenant.inner, self.engine_adapter()?, tokens, from, top)?)
    }

    fn likelihood(&self, mut prompt: Vec<u32>, continuation: &[u32]) -> Result<Answer<Vec<Scored>>, Error> {
        let from = prompt.len() - 1;
        prompt.extend_from_slice(continuation);
        self.score(prompt, from, 0)
    }

    fn embed(&self, tokens: &[u32], options: &EmbedOptions) -> Result<Answer<Vec<f32>>, Error> {
        let pooling = options.pooling.unwrap_or(self.frontend.info.pooling);
        Ok(self.loaded.engine.embed(
            &self.tenant.inner,
            self.engine_adapter()?,
            tokens.to_vec(),
            pooling,
            options.normalize,
        )?)
    }
}

fn check_likelihood(prompt: &[u32], continuation: &[u32]) -> Result<(), Error> {
    if prompt.is_empty() || continuation.is_empty() {
        let why = "the prompt and the continuation need at least one token each";
        return Err(Error::new(ErrorCode::InvalidArgument, why));
    }
    Ok(())
}

fn likelihoods(scores: Vec<Scored>) -> Vec<f32> {
    scores.into_iter().filter_map(|score| score.next).collect()
}
