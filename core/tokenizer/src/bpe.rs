//! Byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2): a pre-tokenizer splits text into words, and
//! within a word the pair whose merge was learned first is joined first.

use std::collections::HashMap;

use realm_gguf::Metadata;

use crate::Error;
use crate::bytes::ByteTable;
use crate::merge::{Merger, NONE};
use crate::pretokenize::PreTokenizer;
use crate::seeded::Seeded;
use crate::vocabulary::{TokenKind, Vocabulary};

pub(crate) struct Bpe {
    pre: PreTokenizer,
    /// Maps (left id, right id) to (rank, joined id).
    merges: HashMap<(u32, u32), (u32, u32), Seeded>,
    /// The token of each byte.
    bytes: [u32; 256],
}

impl Bpe {
    pub(crate) fn from_metadata(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let pre = PreTokenizer::named(metadata.str("tokenizer.ggml.pre")?.unwrap_or("default"))?;
        let lines = metadata.require_strings("tokenizer.ggml.merges")?;
        let mut merges = HashMap::with_capacity_and_hasher(lines.len(), Seeded::default());
        let table = ByteTable::new();
        let mut spelled = Vec::new();
        for (rank, line) in lines.iter().enumerate() {
            let bad = || {
                let line = String::from_utf8_lossy(line).chars().take(80).collect::<String>();
                Error::InvalidModel(format!("tokenizer.ggml.merges[{rank}] is not two tokens: `{line}`"))
            };
            let text = std::str::from_utf8(line).map_err(|_| bad())?;
            // In this spelling a space is never itself a character, so the first one separates the two
            // tokens.
            let (left, right) = text.split_once(' ').ok_or_else(bad)?;
            spelled.clear();
            table.decode(left, &mut spelled).ok_or_else(bad)?;
            let middle = spelled.len();
            table.decode(right, &mut spelled).ok_or_else(bad)?;
            let ids = (
                vocabulary.id(&spelled[..middle]),
                vocabulary.id(&spelled[middle..]),
                vocabulary.id(&spelled),
            );
            // A merge of tokens that the vocabulary lacks can never apply. Merges into control tokens are
            // skipped, so that text cannot become one.
            if let (Some(left), Some(right), Some(joined)) = ids
                && text_token(vocabulary, joined)
            {
                merges.entry((left, right)).or_insert((rank as u32, joined));
            }
        }
        let bytes = std::array::from_fn(|byte| vocabulary.id(&[byte as u8]).unwrap_or(NONE));
        Ok(Self { pre, merges, bytes })
    }

    /// Returns whether there is a token for every byte, so that no text is left out.
    pub(crate) fn knows_every_byte(&self) -> bool {
        !self.bytes.contains(&NONE)
    }

    /// Encodes `text`; stops when there are more tokens than `most`.
    pub(crate) fn encode(&self, text: &str, vocabulary: &Vocabulary, most: usize, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        self.pre.split(text, &mut |word| {
            if out.len() <= most {
                self.word(word.as_bytes(), vocabulary, &mut merger, out);
            }
        });
    }

    fn word(&self, word: &[u8], vocabulary: &Vocabulary, merger: &mut Merger, out: &mut Vec<u32>) {
        if self.pre.ignores_merges()
            && let Some(id) = vocabulary.id(word).filter(|&id| text_token(vocabulary, id))
        {
            return out.push(id);
        }
        merger.clear();
        for (at, &byte) in word.iter().enumerate() {
            merger.push(self.bytes[byte as usize], at, 1);
        }
        merger.run(|left, right| self.merges.get(&(left.id, right.id)).copied());
        // A vocabulary that lacks a byte cannot spell it; it is left out, as in llama.cpp.
        out.extend(merger.symbols().map(|s| s.id).filter(|&id| id != NONE));
    }
}

fn text_token(vocabulary: &Vocabulary, id: u32) -> bool {
    vocabulary.kind(id).is_some_and(TokenKind::is_text)
}
