//! Text to token ids and back.

use realm_gguf::Metadata;

use crate::bpe::Bpe;
use crate::sentencepiece::{SPACE, SentencePiece, byte_of};
use crate::special::{Part, SpecialTokens};
use crate::vocabulary::{TokenKind, Vocabulary};
use crate::{Error, Utf8Stream};

enum Model {
    Bpe(Box<Bpe>),
    SentencePiece(Box<SentencePiece>),
}

/// A model's tokenizer.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: Model,
    user_defined: SpecialTokens,
    special: SpecialTokens,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
}

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys.
    ///
    /// # Errors
    /// A tokenizer model or pre-tokenizer that is not known is named; tables that contradict each other are
    /// refused.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        let kind = metadata.require_str("tokenizer.ggml.model")?;
        let byte_level = match kind {
            "gpt2" => true,
            "llama" => false,
            _ => {
                return Err(Error::InvalidModel(format!(
                    "tokenizer.ggml.model `{kind}` is not supported; supported are `gpt2` and `llama`"
                )));
            }
        };
        let vocabulary = Vocabulary::from_metadata(metadata, byte_level)?;
        let model = if byte_level {
            Model::Bpe(Box::new(Bpe::from_metadata(metadata, &vocabulary)?))
        } else {
            Model::SentencePiece(Box::new(SentencePiece::from_metadata(metadata, &vocabulary)?))
        };
        let id = |key: &str| -> Result<Option<u32>, Error> {
            let id = metadata.u32(&format!("tokenizer.ggml.{key}_token_id"))?;
            Ok(id.filter(|&id| (id as usize) < vocabulary.len()))
        };
        let flag = |key: &str| metadata.bool(&format!("tokenizer.ggml.{key}"));
        let (bos, eos) = (id("bos")?, id("eos")?);
        let pre = metadata.str("tokenizer.ggml.pre")?.unwrap_or_default();
        // Llama's own files ask for a begin token by being Llama's, not by a key.
        let bos_by_default = !byte_level || matches!(pre, "llama-bpe" | "llama3" | "llama-v3");
        let ends = generation_ends(&vocabulary, [eos, id("eot")?, id("eom")?]);
        // Phi-3's special tokens swallow the white space after them; its files do not say so.
        let name = metadata.str("general.name")?.unwrap_or_default().to_lowercase();
        let phi3 = name.contains("phi-3") || name.contains("phi3");
        let strips = |token: &[u8]| phi3 && !matches!(token, b"<unk>" | b"<s>" | b"<|endoftext|>");
        Ok(Self {
            user_defined: SpecialTokens::new(&vocabulary, false, strips)?,
            special: SpecialTokens::new(&vocabulary, true, strips)?,
            model,
            bos,
            eos,
            ends,
            add_bos: flag("add_bos_token")?.unwrap_or(bos_by_default),
            add_eos: flag("add_eos_token")?.unwrap_or(false),
            add_space_prefix: flag("add_space_prefix")?.unwrap_or(!byte_level),
            vocabulary,
        })
    }

    /// Number of tokens.
    pub fn vocabulary_len(&self) -> usize {
        self.vocabulary.len()
    }

    /// The begin-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-sequence token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the model expects the begin token before a text (`tokenizer.ggml.add_bos_token`).
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// The tokens that end a generation: end of sequence, of turn, of message.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
    }

    /// What kind of token `id` is.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.vocabulary.kind(id)
    }

    /// The id of the token that is spelled exactly `text`, a special one included.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.id(text.as_bytes())
    }

    /// Token ids of `text`. With `special`, control tokens spelled in the text (such as `<|im_start|>`)
    /// become those tokens: only for prompts that a template made, never for a user's words. With
    /// `boundaries`, the begin and end tokens are added where the model's metadata asks for them.
    pub fn encode(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if boundaries && self.add_bos {
            out.extend(self.bos);
        }
        self.encode_parts(text, special, true, &mut out);
        if boundaries && self.add_eos {
            out.extend(self.eos);
        }
        out
    }

    /// Token ids of text that goes on from other text: as [`encode`](Self::encode), but no space is put before it.
    pub fn encode_after(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        self.encode_parts(text, false, false, &mut out);
        out
    }

    /// `after_special` says whether the text begins a text, or follows a special token.
    fn encode_parts(&self, text: &str, special: bool, mut after_special: bool, out: &mut Vec<u32>) {
        let tokens = if special { &self.special } else { &self.user_defined };
        tokens.split(text, |part| match part {
            Part::Token(id) => {
                out.push(id);
                after_special = true;
            }
            Part::Text(text) => {
                match &self.model {
                    Model::Bpe(bpe) => bpe.encode(text, &self.vocabulary, out),
                    Model::SentencePiece(model) => {
                        let prefix = self.add_space_prefix && after_special;
                        model.encode(text, prefix, &self.vocabulary, out);
                    }
                }
                after_special = false;
            }
        });
    }

    /// Appends the bytes of one token to `out`. Control tokens are spelled only with `special`.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn push_bytes(&self, id: u32, special: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let (Some(token), Some(kind)) = (self.vocabulary.token(id), self.vocabulary.kind(id)) else {
            return Err(Error::UnknownToken { id, vocabulary: self.vocabulary.len() });
        };
        match (kind, &self.model) {
            (TokenKind::Control | TokenKind::Unknown, _) if !special => {}
            (TokenKind::Normal | TokenKind::UserDefined, Model::SentencePiece(_)) => {
                let mut rest = token;
                while let Some(at) = rest.windows(SPACE.len()).position(|w| w == SPACE.as_bytes()) {
                    out.extend_from_slice(&rest[..at]);
                    out.push(b' ');
                    rest = &rest[at + SPACE.len()..];
                }
                out.extend_from_slice(rest);
            }
            (TokenKind::Byte, _) => match byte_of(token) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(token),
            },
            _ => out.extend_from_slice(token),
        }
        Ok(())
    }

    /// The text of `ids`. Control tokens are spelled only with `special`; bytes that are not UTF-8 become
    /// U+FFFD. Where the model puts a space before a text, the first one is taken off again.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String, Error> {
        let mut bytes = Vec::new();
        for &id in ids {
            self.push_bytes(id, special, &mut bytes)?;
        }
        let mut stream = Utf8Stream::new();
        let mut text = stream.push(&bytes);
        text += &stream.finish();
        if self.add_space_prefix && text.starts_with(' ') {
            text.remove(0);
        }
        Ok(text)
    }
}

/// End tokens by id, and by name where a converter forgot the ids.
fn generation_ends(vocabulary: &Vocabulary, named: [Option<u32>; 3]) -> Vec<u32> {
    const NAMES: [&str; 8] = [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eom_id|>",
        "<EOT>",
    ];
    let by_name = NAMES.iter().filter_map(|name| {
        let id = vocabulary.id(name.as_bytes())?;
        matches!(vocabulary.kind(id), Some(TokenKind::Control | TokenKind::UserDefined)).then_some(id)
    });
    let mut ends: Vec<u32> = named.into_iter().flatten().chain(by_name).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}
