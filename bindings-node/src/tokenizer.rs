//! Tokenizers.

use std::sync::Arc;

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm::unblock;
use serde_json::json;

use crate::error::failed;

/// A model's tokenizer.
#[napi]
pub struct NativeTokenizer(Inner);

/// A model's tokenizer, shared with the model, or one that was loaded without a model.
#[derive(Clone)]
enum Inner {
    OfModel(realm::Model),
    Alone(Arc<realm::Tokenizer>),
}

impl NativeTokenizer {
    pub(crate) fn of_model(model: realm::Model) -> Self {
        Self(Inner::OfModel(model))
    }

    pub(crate) fn alone(tokenizer: realm::Tokenizer) -> Self {
        Self(Inner::Alone(Arc::new(tokenizer)))
    }

    fn get(&self) -> &realm::Tokenizer {
        self.0.get()
    }
}

impl Inner {
    fn get(&self) -> &realm::Tokenizer {
        match self {
            Self::OfModel(model) => model.tokenizer(),
            Self::Alone(tokenizer) => tokenizer,
        }
    }
}

#[napi]
impl NativeTokenizer {
    /// Encodes a text into token ids.
    #[napi]
    pub fn encode(&self, text: String, special: bool, boundaries: bool) -> Uint32Array {
        self.get().encode(&text, special, boundaries).into()
    }

    /// Same as `encode`, on a thread of its own.
    #[napi]
    pub async fn encode_async(&self, text: String, special: bool, boundaries: bool) -> Result<Uint32Array> {
        let inner = self.0.clone();
        let encode = move || Ok(inner.get().encode(&text, special, boundaries));
        Ok(unblock(encode).await.map_err(failed)?.into())
    }

    /// Decodes token ids into text.
    #[napi]
    pub fn decode(&self, tokens: Uint32Array, special: bool) -> Result<String> {
        self.get().decode(&tokens, special).map_err(|error| failed(error.into()))
    }

    /// Returns the token with exactly this spelling.
    #[napi]
    pub fn token_id(&self, text: String) -> Option<u32> {
        self.get().token_id(&text)
    }

    /// Returns facts about the tokenizer, as JSON.
    #[napi]
    pub fn info(&self) -> String {
        let tokenizer = self.get();
        let info = json!({
            "vocabulary": tokenizer.vocabulary_len(), "bos": tokenizer.bos(), "eos": tokenizer.eos(),
            "addsBos": tokenizer.adds_bos(), "endTokens": tokenizer.end_tokens(),
        });
        info.to_string()
    }
}
