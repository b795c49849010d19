//! The check, before a model is loaded, that it fits into the machine's memory.

use realm_engine::available_memory;

use crate::error::ErrorCode;
use crate::{Error, LoadOptions};

/// The bytes that a model takes of the machine's own memory.
pub(crate) struct Need {
    /// The bytes of weights. Loading reads and repacks them tensor by tensor, and frees what it read before
    /// the KV cache is allocated, so they count once.
    pub(crate) weights: u64,
    /// The bytes of the smallest KV cache that the options allow.
    pub(crate) cache: u64,
    /// The number of tokens in `cache`, if the options set it.
    pub(crate) kv_tokens: Option<usize>,
}

impl Need {
    /// Refuses a model so large that the system would end the process. Refuses nothing if the system does not
    /// say how much memory is available.
    ///
    /// # Errors
    /// `limit-exceeded`, with the bytes needed, the bytes available and the options that would fit.
    pub(crate) fn check(&self, options: &LoadOptions) -> Result<(), Error> {
        match available_memory() {
            Some(available) if self.weights.saturating_add(self.cache) > available => {
                Err(Error::new(ErrorCode::LimitExceeded, self.refusal(available, options)))
            }
            _ => Ok(()),
        }
    }

    fn refusal(&self, available: u64, options: &LoadOptions) -> String {
        let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
        let needed = format!("{} for weights and {} for the KV cache", mib(self.weights), mib(self.cache));
        let mut text = format!("the model needs {needed}; {} MiB of memory are available", available >> 20);
        let left = available.saturating_sub(self.weights);
        let fewer = self
            .kv_tokens
            .map(|tokens| (u128::from(left) * tokens as u128 / u128::from(self.cache.max(1))) as usize)
            .map(|tokens| tokens / 64 * 64)
            .filter(|&tokens| tokens > 0);
        if let Some(tokens) = fewer {
            text += &format!(
                ": lower `kv_tokens` (`--context`) to {tokens}, or store the cache as `q8_0` (`cache_type`)"
            );
        } else if self.weights <= available && options.kv_memory.is_some() {
            text += ": lower `kv_memory`";
        } else {
            text += ": free memory, or choose a smaller model or one with smaller weights, such as Q4_K_M";
            if options.gpu_layers.is_some() {
                text += ", or put more layers on the GPU with `gpu_layers`";
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_refusal_says_what_would_fit() {
        let options = LoadOptions::default();
        let need = Need { weights: 100 * MIB, cache: 400 * MIB, kv_tokens: Some(8192) };
        let text = need.refusal(300 * MIB, &options);
        assert!(text.contains("100 MiB for weights and 400 MiB for the KV cache; 300 MiB"), "{text}");
        assert!(text.contains("`kv_tokens` (`--context`) to 4096"), "{text}");
        let text = need.refusal(50 * MIB, &options);
        assert!(text.contains("50 MiB of memory are available: free memory, or choose a smaller"), "{text}");
        let need = Need { kv_tokens: None, ..need };
        let text = need.refusal(300 * MIB, &LoadOptions { kv_memory: Some(400 * MIB), ..options });
        assert!(text.contains("lower `kv_memory`"), "{text}");
    }
}
