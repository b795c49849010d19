//! Lists of requests and texts in one call.

use std::sync::Arc;

use realm::{EmbedOptions, unblock};

use crate::error::Result;
use crate::generation::{Completion, likeliest};
use crate::model::{Model, Pooling, Score};
use crate::request::Request;

/// The outcome of one request of a list: a completion, or an error.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Outcome {
    /// The answer.
    pub completion: Option<Completion>,
    /// The error's code, such as `limit-exceeded`.
    pub code: Option<String>,
    /// The error's message.
    pub message: Option<String>,
}

#[uniffi::export]
impl Model {
    /// Answers many requests; the completions are in their order. A window of them runs at once, so a list of
    /// any length never fills a queue. The first error ends the call, and its message has the request's
    /// index.
    pub async fn generate_many(self: Arc<Self>, requests: Vec<Request>) -> Result<Vec<Completion>> {
        let requests = requests.into_iter().map(Request::convert).collect::<Result<_>>()?;
        let all = self.0.generate_many_async(requests).await?;
        Ok(all.into_iter().map(Completion::from).collect())
    }

    /// Same as `generateMany`, but a request that fails does not stop the others.
    pub async fn generate_each(self: Arc<Self>, requests: Vec<Request>) -> Result<Vec<Outcome>> {
        let requests = requests.into_iter().map(Request::convert).collect::<Result<_>>()?;
        let each = self.0.generate_each_async(requests).await.into_iter();
        let outcome = |result| match result {
            Ok(completion) => {
                let completion: realm::Completion = completion;
                Outcome { completion: Some(completion.into()), code: None, message: None }
            }
            Err(error) => {
                let error: realm::Error = error;
                Outcome {
                    completion: None,
                    code: Some(error.code().as_str().to_owned()),
                    message: Some(error.message().to_owned()),
                }
            }
        };
        Ok(each.map(outcome).collect())
    }

    /// Returns an embedding, `[hidden]`, for each text; thousands are fine. With `normalize` their lengths
    /// are 1. An error has the text's index.
    #[uniffi::method(default(pooling = None, normalize = true))]
    pub async fn embed_many(
        self: Arc<Self>,
        texts: Vec<String>,
        pooling: Option<Pooling>,
        normalize: bool,
    ) -> Result<Vec<Vec<f32>>> {
        let options = EmbedOptions { pooling: pooling.map(Into::into), normalize };
        let model = self.0.clone();
        let tokens = unblock(move || Ok(model.encode_many(&texts, false, true))).await?;
        Ok(self.0.embed_many_async(tokens, &options).await?)
    }

    /// Same as `score`, for each of many texts.
    #[uniffi::method(default(top = 0))]
    pub async fn score_many(self: Arc<Self>, texts: Vec<Vec<u32>>, top: u64) -> Result<Vec<Vec<Score>>> {
        let all = self.0.score_many_async(texts, top as usize).await?.into_iter();
        let score = |score: realm::Scored| Score { next: score.next, top: likeliest(score.top) };
        Ok(all.map(|text| text.into_iter().map(score).collect()).collect())
    }

    /// Encodes many texts into token ids, each as `encode` does.
    #[uniffi::method(default(special = false, boundaries = true))]
    pub fn encode_many(&self, texts: Vec<String>, special: bool, boundaries: bool) -> Vec<Vec<u32>> {
        self.0.encode_many(&texts, special, boundaries)
    }
}
