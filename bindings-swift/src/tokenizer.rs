//! Tokenizers.

use crate::error::{RealmError, Result};

/// A tokenizer: a model's, or one that was loaded without a model.
#[derive(uniffi::Object)]
pub enum Tokenizer {
    /// A model's tokenizer.
    Of(realm::Model),
    /// A tokenizer without a model.
    Alone(Box<realm::Tokenizer>),
}

impl std::ops::Deref for Tokenizer {
    type Target = realm::Tokenizer;

    fn deref(&self) -> &realm::Tokenizer {
        match self {
            Self::Of(model) => model.tokenizer(),
            Self::Alone(tokenizer) => tokenizer,
        }
    }
}

/// Facts about a tokenizer.
#[derive(Debug, Clone, uniffi::Record)]
pub struct TokenizerInfo {
    /// The number of tokens.
    pub vocabulary: u64,
    /// The begin-of-sequence token.
    pub bos: Option<u32>,
    /// The end-of-sequence token.
    pub eos: Option<u32>,
    /// True if the model expects the begin token before a text.
    pub adds_bos: bool,
    /// The tokens that end a generation.
    pub end_tokens: Vec<u32>,
}

#[uniffi::export]
impl Tokenizer {
    /// Returns facts about the tokenizer.
    pub fn info(&self) -> TokenizerInfo {
        TokenizerInfo {
            vocabulary: self.vocabulary_len() as u64,
            bos: self.bos(),
            eos: self.eos(),
            adds_bos: self.adds_bos(),
            end_tokens: self.end_tokens().to_vec(),
        }
    }

    /// Encodes a text into token ids, as `Model.encode` does.
    #[uniffi::method(name = "encode", default(special = false, boundaries = true))]
    pub fn encode_text(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        realm::Tokenizer::encode(self, text, special, boundaries)
    }

    /// Returns the bytes of tokens: they need not be whole characters. With `special`, control tokens are
    /// spelled. Throws `InvalidArgument` for an id outside the vocabulary.
    #[uniffi::method(default(special = false))]
    pub fn bytes(&self, tokens: Vec<u32>, special: bool) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for token in tokens {
            self.push_bytes(token, special, &mut bytes)
                .map_err(|error| RealmError::from(realm::Error::from(error)))?;
        }
        Ok(bytes)
    }

    /// Returns the id of the token with exactly this spelling, including special ones.
    #[uniffi::method(name = "tokenId")]
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.token_id(text)
    }
}
