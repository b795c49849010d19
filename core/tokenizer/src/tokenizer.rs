//! Converts text to token ids and back.

use std::ops::Range;

use realm_gguf::Metadata;

use crate::bpe::Bpe;
use crate::names::{SENTENCE_END, ends_generation};
use crate::sentencepiece::{SPACE, SentencePiece, byte_of};
use crate::special::{Part, Scope, SpecialTokens};
use crate::vocabulary::{TokenKind, Vocabulary};
use crate::{Error, Utf8Stream};

/// The largest vocabulary of a model without tokenizer.
const MOST_UNSPELLED: u64 = 1 << 24;

enum Model {
    /// The file has no tokenizer; see [`Tokenizer::spells`].
    None,
    Bpe(Box<Bpe>),
    SentencePiece(Box<SentencePiece>),
}

/// A model's tokenizer.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: Model,
    special: SpecialTokens,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    /// Most bytes of text that one token can stand for; `None` if some text may get no token.
    most_bytes: Option<usize>,
}

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys. A file whose `tokenizer.ggml.model` is `no_vocab` gives a tokenizer
    /// that [spells](Self::spells) nothing.
    ///
    /// # Errors
    /// An unknown tokenizer model or pre-tokenizer (the error names it), and tables that contradict each
    /// other.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        let kind = metadata.require_str("tokenizer.ggml.model")?;
        let byte_level = match kind {
            "gpt2" => true,
            "llama" => false,
            "no_vocab" => return Self::unspelled(metadata),
            _ => {
                return Err(Error::InvalidModel(format!(
                    "tokenizer.ggml.model `{kind}` is not supported; supported are `gpt2`, `llama` and `no_vocab`"
                )));
            }
        };
        let vocabulary = Vocabulary::from_metadata(metadata, byte_level)?;
        let model = if byte_level {
            Model::Bpe(Box::new(Bpe::from_metadata(metadata, &vocabulary)?))
        } else {
            Model::SentencePiece(Box::new(SentencePiece::from_metadata(metadata, &vocabulary)?))
        };
        let id = |key: &str| {
            let id = optional(metadata.u32(&format!("tokenizer.ggml.{key}_token_id")))?;
            let known = (id as usize) < vocabulary.len();
            if !known {
                let len = vocabulary.len();
                tracing::warn!("tokenizer.ggml.{key}_token_id is {id}, and there are {len} tokens: left out");
            }
            known.then_some(id)
        };
        let flag = |key: &str| optional(metadata.bool(&format!("tokenizer.ggml.{key}")));
        let (bos, eos) = (id("bos"), id("eos"));
        let pre = metadata.str("tokenizer.ggml.pre")?.unwrap_or_default();
        // Llama's own files do not have the key and still expect a begin token.
        let bos_by_default = !byte_level || matches!(pre, "llama-bpe" | "llama3" | "llama-v3");
        let ends = generation_ends(&vocabulary, [eos, id("eot"), id("eom")]);
        // Phi-3's special tokens swallow the white space behind them; its files do not say so.
        let name = optional(metadata.str("general.name")).unwrap_or_default().to_lowercase();
        let phi3 = name.contains("phi-3") || name.contains("phi3");
        let strips = |token: &[u8]| phi3 && !matches!(token, b"<unk>" | b"<s>" | b"<|endoftext|>");
        let longest = vocabulary.iter().map(|(_, token, _)| token.len()).max().unwrap_or(0).max(1);
        let spells_all = match &model {
            Model::Bpe(bpe) => bpe.knows_every_byte(),
            Model::None => false,
            Model::SentencePiece(_) => {
                (0..=u8::MAX).all(|byte| vocabulary.id(format!("<0x{byte:02X}>").as_bytes()).is_some())
            }
        };
        Ok(Self {
            most_bytes: (spells_all && !phi3).then_some(longest),
            special: SpecialTokens::new(&vocabulary, strips)?,
            model,
            bos,
            eos,
            ends,
            add_bos: flag("add_bos_token").unwrap_or(bos_by_default),
            add_eos: flag("add_eos_token").unwrap_or(false),
            add_space_prefix: flag("add_space_prefix").unwrap_or(!byte_level),
            vocabulary,
        })
    }

    /// Makes the tokenizer of a file that has only the number of its tokens.
    fn unspelled(metadata: &Metadata) -> Result<Self, Error> {
        let key = format!("{}.vocab_size", metadata.require_str("general.architecture")?);
        let len =
            metadata.u64(&key)?.filter(|&len| (1..=MOST_UNSPELLED).contains(&len)).ok_or_else(|| {
                Error::InvalidModel(format!(
                    "the file has no tokenizer and no `{key}` from 1 to {MOST_UNSPELLED}"
                ))
            })?;
        let vocabulary = Vocabulary::unspelled(len as usize);
        Ok(Self {
            special: SpecialTokens::new(&vocabulary, |_| false)?,
            vocabulary,
            model: Model::None,
            bos: None,
            eos: None,
            ends: Vec::new(),
            add_bos: false,
            add_eos: false,
            add_space_prefix: false,
            most_bytes: None,
        })
    }

    /// Returns whether tokens have spellings. Without them no text has tokens, and all tokens together are
    /// the empty text.
    pub fn spells(&self) -> bool {
        !matches!(self.model, Model::None)
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

    /// Returns whether the model expects the begin token before a text (`tokenizer.ggml.add_bos_token`).
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// The tokens that end a generation: end of sequence, of turn, of message.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
    }

    /// Returns the kind of token `id`.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.vocabulary.kind(id)
    }

    /// Returns the id of the token that is spelled exactly `text`, special tokens included.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.id(text.as_bytes())
    }

    /// Encodes `text` as token ids. With `special`, control tokens spelled in the text (such as
    /// `<|im_start|>`), and user-defined ones that look like them (such as `<think>`), become those tokens:
    /// use it only for text that no user wrote. With `boundaries`, adds the begin and end tokens if the
    /// model's metadata asks for them.
    pub fn encode(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        self.encode_at_most(text, special, boundaries, usize::MAX).unwrap_or_default()
    }

    /// Same as [`encode`](Self::encode), with a limit of `most` tokens: `None` if the text has more. A text
    /// with more bytes than `most` tokens can stand for is refused without encoding it; any other text is
    /// encoded until the limit is exceeded.
    pub fn encode_at_most(
        &self,
        text: &str,
        special: bool,
        boundaries: bool,
        most: usize,
    ) -> Option<Vec<u32>> {
        let scope = if special { Scope::Outside(&[]) } else { Scope::Words };
        self.encode_scope(text, scope, boundaries, most)
    }

    /// Encodes a prompt that a template made. `foreign` are the byte ranges of words that come from outside:
    /// a user's, a tool's, a document's. Control tokens, and user-defined ones that look like them, are found
    /// only if none of their bytes is foreign; everything else is encoded as if there were no ranges.
    /// `boundaries` has the same meaning as in [`encode`](Self::encode).
    pub fn encode_rendered(&self, text: &str, foreign: &[Range<usize>], boundaries: bool) -> Vec<u32> {
        self.encode_rendered_at_most(text, foreign, boundaries, usize::MAX).unwrap_or_default()
    }

    /// Same as [`encode_rendered`](Self::encode_rendered), with the limit of
    /// [`encode_at_most`](Self::encode_at_most).
    pub fn encode_rendered_at_most(
        &self,
        text: &str,
        foreign: &[Range<usize>],
        boundaries: bool,
        most: usize,
    ) -> Option<Vec<u32>> {
        self.encode_scope(text, Scope::Outside(&joined(foreign)), boundaries, most)
    }

    fn encode_scope(&self, text: &str, scope: Scope<'_>, boundaries: bool, most: usize) -> Option<Vec<u32>> {
        if self.most_bytes.is_some_and(|bytes| text.len() / bytes > most) {
            return None;
        }
        let mut out = Vec::with_capacity((text.len() / 3).min(most) + 2);
        if boundaries && self.add_bos {
            out.extend(self.bos);
        }
        self.encode_parts(text, scope, true, most, &mut out);
        if boundaries && self.add_eos {
            out.extend(self.eos);
        }
        (out.len() <= most).then_some(out)
    }

    /// Encodes text that the model itself writes, in the middle of a text: adds no space before it, and finds
    /// all user-defined tokens.
    pub fn encode_after(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        self.encode_parts(text, Scope::Answer, false, usize::MAX, &mut out);
        out
    }

    /// Encodes the parts of a text. `after_special` is set if the text begins a text or follows a special
    /// token. Stops when there are more tokens than `most`.
    fn encode_parts(
        &self,
        text: &str,
        scope: Scope<'_>,
        mut after_special: bool,
        most: usize,
        out: &mut Vec<u32>,
    ) {
        self.special.split(text, scope, |part| match part {
            _ if out.len() > most => {}
            Part::Token(id) => {
                out.push(id);
                after_special = true;
            }
            Part::Text(text) => {
                match &self.model {
                    Model::None => {}
                    Model::Bpe(bpe) => bpe.encode(text, &self.vocabulary, most, out),
                    Model::SentencePiece(model) => {
                        let prefix = self.add_space_prefix && after_special;
                        model.encode(text, prefix, &self.vocabulary, most, out);
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

    /// Decodes `ids` to text. Control tokens are spelled only with `special`; bytes that are not UTF-8 become
    /// U+FFFD. If the model puts a space before a text, that space is removed.
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

/// Treats a value of a wrong type as absent and logs that, for keys that a file may leave out.
pub(crate) fn optional<T>(value: Result<Option<T>, realm_gguf::Error>) -> Option<T> {
    value.unwrap_or_else(|error| {
        tracing::warn!("left out: {error}");
        None
    })
}

/// Finds end tokens by id, and by name for files whose converter forgot the ids.
fn generation_ends(vocabulary: &Vocabulary, [eos, eot, eom]: [Option<u32>; 3]) -> Vec<u32> {
    let has = |name: &str| vocabulary.id(name.as_bytes()).is_some();
    // In gpt-oss's format `<|end|>` ends only a part of the answer, and these two end the answer.
    let harmony = has("<|return|>") && has("<|call|>");
    let by_name = vocabulary.iter().filter(|&(id, token, kind)| {
        let sentence_end = token == SENTENCE_END && eos.is_none_or(|eos| eos == id);
        kind == TokenKind::Control
            && (ends_generation(token) || sentence_end)
            && !(harmony && token == b"<|end|>")
    });
    let mut ends: Vec<u32> =
        [eos, eot, eom].into_iter().flatten().chain(by_name.map(|(id, ..)| id)).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// Sorts ranges, joins those that touch or overlap, and removes empty ones.
fn joined(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut sorted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<usize>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}
