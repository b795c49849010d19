//! Functions that change logits.

use std::sync::Arc;

use crate::callback::ToolError;

/// Changes logits before a token is chosen.
#[uniffi::export(with_foreign)]
pub trait LogitsProcessor: Send + Sync {
    /// Receives the tokens so far and the logits of the next one, as 32-bit floats, one for each token of the
    /// vocabulary; returns as many. A thrown error ends the request.
    fn process(&self, tokens: Vec<u32>, logits: Vec<u8>) -> std::result::Result<Vec<u8>, ToolError>;
}

/// Converts a processor for `realm`.
pub(crate) fn processor(processor: Arc<dyn LogitsProcessor>) -> realm::LogitsProcessor {
    realm::LogitsProcessor::new_async(move |tokens, logits| {
        let bytes = logits.iter().flat_map(|logit| logit.to_ne_bytes()).collect();
        let processed = processor.process(tokens, bytes);
        std::future::ready(match processed {
            Ok(bytes) => {
                let (numbers, _) = bytes.as_chunks::<4>();
                Ok(numbers.iter().map(|number| f32::from_ne_bytes(*number)).collect())
            }
            Err(ToolError::Failed { message }) => Err(message),
        })
    })
}
