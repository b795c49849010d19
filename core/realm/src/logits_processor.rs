//! Functions of the application's that change logits before a token is chosen.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::Error;
use crate::error::ErrorCode;

type Processed = Pin<Box<dyn Future<Output = Result<Vec<f32>, String>> + Send>>;

/// A function that receives the tokens so far, prompt included, and the logits of the next one,
/// `[vocabulary]`, and may change the logits. It is called once for each token, before penalties, temperature
/// and the other sampling options; a logit of -infinity excludes a token. With a grammar, the tokens that it
/// forbids are -infinity already. An error ends the request.
#[derive(Clone)]
pub struct LogitsProcessor(Arc<dyn Fn(Vec<u32>, Vec<f32>) -> Processed + Send + Sync>);

impl LogitsProcessor {
    /// Creates a processor from a function that changes logits in place.
    pub fn new(process: impl Fn(&[u32], &mut [f32]) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self::new_async(move |tokens, mut logits| {
            let processed = process(&tokens, &mut logits);
            std::future::ready(processed.map(|()| logits))
        })
    }

    /// Creates a processor from an async function that takes tokens and logits and returns the same number of
    /// logits.
    pub fn new_async<F>(process: impl Fn(Vec<u32>, Vec<f32>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<f32>, String>> + Send + 'static,
    {
        Self(Arc::new(move |tokens, logits| Box::pin(process(tokens, logits))))
    }

    /// Returns the changed logits, after a check that they are as many and numbers or -infinity.
    pub(crate) async fn process(&self, tokens: &[u32], logits: Vec<f32>) -> Result<Vec<f32>, Error> {
        let expected = logits.len();
        let processed = (self.0)(tokens.to_vec(), logits).await;
        let logits = processed
            .map_err(|why| Error::new(ErrorCode::Failed, format_args!("a logits processor failed: {why}")))?;
        if logits.len() != expected {
            let why = format!(
                "a logits processor returned {} logits; it must be {expected}, one for each token",
                logits.len()
            );
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if let Some(token) = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            let why = format!(
                "a logits processor made the logit of token {token} {}; it must be a number or -infinity",
                logits[token]
            );
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        Ok(logits)
    }
}

impl fmt::Debug for LogitsProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogitsProcessor")
    }
}
