//! SentencePiece's BPE as llama and gemma use it (Kudo and Richardson 2018): no pre-tokenizer, spaces are
//! the character U+2581, the pair whose joined token scores highest is joined first, and what no token
//! spells falls back to bytes.

use realm_gguf::Metadata;

use crate::Error;
use crate::merge::{Merger, NONE};
use crate::vocabulary::{TokenKind, Vocabulary};

/// The character that stands for a space.
pub(crate) const SPACE: &str = "\u{2581}";

pub(crate) struct SentencePiece {
    /// For each token, its place in the order of scores: 0 is the highest.
    ranks: Vec<u32>,
    /// The token of each byte.
    bytes: [u32; 256],
    unknown: Option<u32>,
    /// Bytes of the longest token.
    longest: usize,
}

impl SentencePiece {
    pub(crate) fn from_metadata(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let scores = metadata.f32s("tokenizer.ggml.scores")?.unwrap_or_default();
        if scores.len() != vocabulary.len() {
            return Err(Error::InvalidModel(format!(
                "tokenizer.ggml.scores has {} entries for {} tokens",
                scores.len(),
                vocabulary.len()
            )));
        }
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        let mut ranks = vec![0; scores.len()];
        let mut rank = 0;
        for pair in 0..order.len() {
            // Equal scores share a rank: then the leftmost pair goes first.
            if pair > 0 && scores[order[pair] as usize] != scores[order[pair - 1] as usize] {
                rank += 1;
            }
            ranks[order[pair] as usize] = rank;
        }
        let byte = |byte: usize| {
            let spelled = vocabulary.id(format!("<0x{byte:02X}>").as_bytes());
            spelled.or_else(|| vocabulary.id(&[byte as u8])).unwrap_or(NONE)
        };
        Ok(Self {
            ranks,
            bytes: std::array::from_fn(byte),
            unknown: metadata.u32("tokenizer.ggml.unknown_token_id")?,
            longest: vocabulary.iter().map(|(_, token, _)| token.len()).max().unwrap_or(0),
        })
    }

    /// Encodes `text`, with a space before it if `prefix`.
    pub(crate) fn encode(&self, text: &str, prefix: bool, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        let mut spelled = String::with_capacity(text.len() + 3);
        if prefix {
            spelled.push_str(SPACE);
        }
        for part in text.split_inclusive(' ') {
            match part.strip_suffix(' ') {
                Some(word) => spelled.extend([word, SPACE]),
                None => spelled.push_str(part),
            }
        }
        let bytes = spelled.as_bytes();
        let mut merger = Merger::default();
        for (at, c) in spelled.char_indices() {
            let len = c.len_utf8();
            merger.push(vocabulary.id(&bytes[at..at + len]).unwrap_or(NONE), at, len);
        }
        merger.run(|left, right| {
            let len = (left.len + right.len) as usize;
            if len > self.longest {
                return None;
            }
            let start = left.start as usize;
            let id = vocabulary.id(&bytes[start..start + len])?;
            (vocabulary.kind(id) != Some(TokenKind::Unused)).then(|| (self.ranks[id as usize], id))
        });
        for symbol in merger.symbols() {
            if symbol.id != NONE {
                out.push(symbol.id);
                continue;
            }
            let start = symbol.start as usize;
            for &byte in &bytes[start..start + symbol.len as usize] {
                let id = self.bytes[byte as usize];
                out.extend(if id == NONE { self.unknown } else { Some(id) });
            }
        }
    }
}

/// The byte that a token such as `<0x0A>` stands for.
pub(crate) fn byte_of(token: &[u8]) -> Option<u8> {
    let hex = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}
