//! SentencePiece's BPE in llama's and gemma's variant (Kudo and Richardson 2018): there is no pre-tokenizer,
//! spaces are the character U+2581, the pair whose joined token scores highest is joined first, and text that
//! no token spells becomes byte tokens.

use realm_gguf::Metadata;

use crate::Error;
use crate::merge::{Merger, NONE};
use crate::tokenizer::optional;
use crate::vocabulary::{TokenKind, Vocabulary};

/// The character that stands for a space.
pub(crate) const SPACE: &str = "\u{2581}";

pub(crate) struct SentencePiece {
    /// Rank of each token in the order of scores: 0 is the highest.
    ranks: Vec<u32>,
    /// The token of each byte.
    bytes: [u32; 256],
    unknown: Option<u32>,
    /// Length of the longest token in bytes.
    longest: usize,
    /// Bytes that may precede a space inside a token. After any other byte, no token spans the start of a
    /// word, so words can be encoded one by one.
    glued: [bool; 256],
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
            // Equal scores share a rank, so that the leftmost pair goes first.
            if pair > 0 && scores[order[pair] as usize] != scores[order[pair - 1] as usize] {
                rank += 1;
            }
            ranks[order[pair] as usize] = rank;
        }
        let byte = |byte: usize| {
            let spelled = vocabulary.id(format!("<0x{byte:02X}>").as_bytes());
            spelled.or_else(|| vocabulary.id(&[byte as u8])).unwrap_or(NONE)
        };
        let mut glued = [false; 256];
        for (_, token, _) in vocabulary.iter().filter(|&(_, _, kind)| kind.is_text()) {
            let mut at = 0;
            while let Some(space) = next_word(&token[at..], &[false; 256]) {
                at += space;
                glued[token[at - 1] as usize] = true;
            }
        }
        Ok(Self {
            ranks,
            bytes: std::array::from_fn(byte),
            unknown: optional(metadata.u32("tokenizer.ggml.unknown_token_id"))
                .filter(|&id| (id as usize) < vocabulary.len()),
            glued,
            longest: vocabulary.iter().map(|(_, token, _)| token.len()).max().unwrap_or(0),
        })
    }

    /// Encodes `text`, with a space before it if `prefix`.
    pub(crate) fn encode(
        &self,
        text: &str,
        prefix: bool,
        vocabulary: &Vocabulary,
        most: usize,
        out: &mut Vec<u32>,
    ) {
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
        let mut merger = Merger::default();
        let mut rest = spelled.as_str();
        while !rest.is_empty() && out.len() <= most {
            let len = next_word(rest.as_bytes(), &self.glued).unwrap_or(rest.len());
            let (word, after) = rest.split_at(len);
            self.word(word, vocabulary, &mut merger, out);
            rest = after;
        }
    }

    fn word(&self, word: &str, vocabulary: &Vocabulary, merger: &mut Merger, out: &mut Vec<u32>) {
        let bytes = word.as_bytes();
        // Text must not become a control token, nor may the text `<0x0A>` become a line break.
        let token = |range: std::ops::Range<usize>| {
            vocabulary.id(&bytes[range]).filter(|&id| vocabulary.kind(id).is_some_and(TokenKind::is_text))
        };
        merger.clear();
        for (at, c) in word.char_indices() {
            let len = c.len_utf8();
            merger.push(token(at..at + len).unwrap_or(NONE), at, len);
        }
        merger.run(|left, right| {
            let (start, len) = (left.start as usize, (left.len + right.len) as usize);
            if len > self.longest {
                return None;
            }
            token(start..start + len).map(|id| (self.ranks[id as usize], id))
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

/// Returns the start of the next word: a space behind another character that is not `glued` to it.
fn next_word(text: &[u8], glued: &[bool; 256]) -> Option<usize> {
    let space = SPACE.as_bytes();
    let starts = text.windows(space.len()).enumerate().filter(|(_, w)| *w == space).map(|(at, _)| at);
    starts.into_iter().find(|&at| at > 0 && !text[..at].ends_with(space) && !glued[text[at - 1] as usize])
}

/// Returns the byte that a token such as `<0x0A>` stands for.
pub(crate) fn byte_of(token: &[u8]) -> Option<u8> {
    let hex = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}
