//! Tokenizers.

use std::ffi::c_char;

use crate::error::{Error, attempt};
use crate::memory::{copy, free, object, put, text};

/// A tokenizer: a model's, or one that was loaded without a model.
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

/// Facts about a tokenizer. Tokens that it does not have are UINT32_MAX.
#[repr(C)]
pub struct TokenizerInfo {
    /// The number of tokens.
    pub vocabulary: usize,
    /// The begin-of-sequence token.
    pub bos: u32,
    /// The end-of-sequence token.
    pub eos: u32,
    /// True if the model expects the begin token before a text.
    pub adds_bos: bool,
    /// The tokens that end a generation. They belong to the tokenizer.
    pub end_tokens: *const u32,
    /// The number of end tokens.
    pub end_tokens_len: usize,
}

/// Writes facts about the tokenizer to `info`; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tokenizer_info(tokenizer: *const Tokenizer, info: *mut TokenizerInfo) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(tokenizer) = (unsafe { tokenizer.as_ref() }) else { return false };
    let ends = tokenizer.end_tokens();
    let said = TokenizerInfo {
        vocabulary: tokenizer.vocabulary_len(),
        bos: tokenizer.bos().unwrap_or(u32::MAX),
        eos: tokenizer.eos().unwrap_or(u32::MAX),
        adds_bos: tokenizer.adds_bos(),
        end_tokens: ends.as_ptr(),
        end_tokens_len: ends.len(),
    };
    // SAFETY: the caller's place for it, or NULL.
    unsafe { put(info, said) };
    true
}

/// Encodes a text into token ids as `realm_model_encode` does, for `realm_free`. Errors: `invalid-argument`
/// for text that is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: *const c_char,
    special: bool,
    boundaries: bool,
    len: *mut usize,
    error: *mut *mut Error,
) -> *mut u32 {
    // SAFETY: an object of ours, the caller's text, and places of the caller's.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let text = crate::memory::text(text, "text")?;
            copy(&object(tokenizer, "tokenizer")?.encode(text, special, boundaries), len)
        })
    }
}

/// Returns the bytes of tokens, for `realm_free`: they need not be whole characters. With `special`, control
/// tokens are spelled. The number of bytes goes to `len`. Errors: `invalid-argument` for an id outside the
/// vocabulary.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tokenizer_bytes(
    tokenizer: *const Tokenizer,
    tokens: *const u32,
    tokens_len: usize,
    special: bool,
    len: *mut usize,
    error: *mut *mut Error,
) -> *mut u8 {
    // SAFETY: an object of ours, the caller's array, and places of the caller's.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let tokenizer = object(tokenizer, "tokenizer")?;
            let mut bytes = Vec::new();
            for &token in crate::memory::array(tokens, tokens_len, "tokens")? {
                tokenizer.push_bytes(token, special, &mut bytes).map_err(realm::Error::from)?;
            }
            copy(&bytes, len)
        })
    }
}

/// Returns the id of the token with exactly this spelling, including special ones; UINT32_MAX if there is
/// none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tokenizer_token_id(
    tokenizer: *const Tokenizer,
    spelled: *const c_char,
) -> u32 {
    // SAFETY: an object of ours, or NULL, and the caller's text.
    let (tokenizer, spelled) = unsafe { (tokenizer.as_ref(), text(spelled, "spelled")) };
    let found = spelled.ok().and_then(|spelled| tokenizer?.token_id(spelled));
    found.unwrap_or(u32::MAX)
}

/// Frees a tokenizer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tokenizer_free(tokenizer: *mut Tokenizer) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(tokenizer) }
}
