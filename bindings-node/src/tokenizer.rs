//! Tokenizers.

use napi::bindgen_prelude::*;
use napi_derive::napi;
use serde_json::json;

use crate::error::failed;

/// A model's tokenizer.
#[napi]
pub struct NativeTokenizer(Inner);

/// A model's, which it shares, or one that was loaded alone.
enum Inner {
    OfModel(realm::Model),
    Alone(Box<realm::Tokenizer>),
}

impl NativeTokenizer {
    pub(crate) fn of_model(model: realm::Model) -> Self {
        Self(Inner::OfModel(model))
    }

    pub(crate) fn alone(tokenizer: realm::Tokenizer) -> Self {
        Self(Inner::Alone(Box::new(tokenizer)))
    }

    fn get(&self) -> &realm::Tokenizer {
        match &self.0 {
            Inner::OfModel(model) => model.tokenizer(),
            Inner::Alone(tokenizer) => tokenizer,
        }
    }
}

#[napi]
impl NativeTokenizer {
    /// Token ids of a text.
    #[napi]
    pub fn encode(&self, text: String, special: bool, boundaries: bool) -> Vec<u32> {
        self.get().encode(&text, special, boundaries)
    }

    /// The text of token ids.
    #[napi]
    pub fn decode(&self, tokens: Vec<u32>, special: bool) -> Result<String> {
        self.get().decode(&tokens, special).map_err(|error| failed(error.into()))
    }

    /// The token that is spelled exactly so.
    #[napi]
    pub fn token_id(&self, text: String) -> Option<u32> {
        self.get().token_id(&text)
    }

    /// Its properties, as JSON.
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
