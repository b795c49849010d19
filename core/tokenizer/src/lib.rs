//! Tokenizers and chat templates, from a GGUF file's metadata.
//!
//! ```
//! use realm_tokenizer::Tokenizer;
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
//! let file = realm_gguf::Gguf::open(path)?;
//! let tokenizer = Tokenizer::from_metadata(file.metadata())?;
//! let tokens = tokenizer.encode("one copy of the weights", false, false);
//! assert_eq!(tokenizer.decode(&tokens, false)?, "one copy of the weights");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Tokenizer`]: text to token ids and back. Byte-level BPE ([`bpe`](self)) with the pre-tokenizer that
//!   `tokenizer.ggml.pre` names, or SentencePiece's BPE as llama and gemma use it.
//! - [`Utf8Stream`]: bytes of tokens as text, never half a character.
//! - [`ChatTemplate`]: messages to a prompt, the way Hugging Face renders `tokenizer.chat_template`.
//!
//! Encoding takes time linear in the text (times the logarithm of its longest word), whatever the text is.
#![forbid(unsafe_code)]

mod bpe;
mod bytes;
mod decoder;
mod error;
mod merge;
mod names;
mod pretokenize;
mod python_json;
mod seeded;
mod sentencepiece;
mod special;
mod template;
mod tokenizer;
mod vocabulary;

pub use decoder::Utf8Stream;
pub use error::Error;
pub use pretokenize::PreTokenizer;
pub use realm_template::Rendered;
pub use template::{Capabilities, ChatTemplate, Conversation, SpecialTexts, template_names};
pub use tokenizer::Tokenizer;
pub use vocabulary::TokenKind;
