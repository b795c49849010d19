//! The token table of a GGUF file.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use realm_gguf::Metadata;

use crate::Error;
use crate::bytes::ByteTable;
use crate::names::mend_kinds;
use crate::seeded::Seeded;

/// The kind of a token: its `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Ordinary text.
    Normal,
    /// Stands for text that the vocabulary cannot spell.
    Unknown,
    /// Structure, such as `<|im_start|>`: text becomes such a token only if special tokens are asked for.
    Control,
    /// Added text that is always one token.
    UserDefined,
    /// A gap in the table.
    Unused,
    /// One byte, such as `<0x0A>`.
    Byte,
}

impl TokenKind {
    /// Returns the kind for a number in `tokenizer.ggml.token_type`.
    fn of_type(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }

    /// Returns whether text can become such a token.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined)
    }
}

/// The tokens as bytes, and their ids.
pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    /// Ids by the hash of their tokens, whose bytes are stored once, in `bytes`: a map with keys of its own
    /// would take four times the memory.
    ids: HashTable<u32>,
    hasher: Seeded,
}

impl Vocabulary {
    /// Reads `tokenizer.ggml.tokens` and `token_type`. With `byte_level`, ordinary tokens are spelled with
    /// GPT-2's characters for bytes.
    pub(crate) fn from_metadata(metadata: &Metadata, byte_level: bool) -> Result<Self, Error> {
        let tokens = metadata.require_strings("tokenizer.ggml.tokens")?;
        let types = metadata.i32s("tokenizer.ggml.token_type")?;
        let typed = types.is_some();
        let types = types.unwrap_or_else(|| vec![1; tokens.len()]);
        if types.len() != tokens.len() {
            return Err(Error::InvalidModel(format!(
                "tokenizer.ggml.token_type has {} entries for {} tokens",
                types.len(),
                tokens.len()
            )));
        }
        let mut kinds: Vec<_> = types.into_iter().map(TokenKind::of_type).collect();
        let mended = mend_kinds(tokens, &mut kinds, byte_level, typed);
        let table = ByteTable::new();
        let mut this = Self::with_capacity(tokens.len());
        let mut spelled = Vec::new();
        // Vocabularies may have single characters beside the tokens that spell their bytes (Command R): text
        // means the latter.
        let mut characters = Vec::new();
        for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
            spelled.clear();
            // Added tokens (control, user defined) are plain text even in a byte-level vocabulary.
            let plain = !byte_level
                || kind != TokenKind::Normal
                || std::str::from_utf8(token)
                    .ok()
                    .and_then(|text| table.decode(text, &mut spelled))
                    .is_none();
            this.append(if plain { token } else { &spelled }, kind);
            if plain && byte_level && kind == TokenKind::Normal {
                characters.push(id as u32);
            } else {
                this.index(id as u32);
            }
        }
        characters.into_iter().for_each(|id| this.index(id));
        this.warn_of(&mended, typed);
        Ok(this)
    }

    /// Makes a vocabulary of `len` tokens without spelling.
    pub(crate) fn unspelled(len: usize) -> Self {
        let mut this = Self::with_capacity(len);
        for id in 0..len as u32 {
            this.append(&[], TokenKind::Unused);
            this.index(id);
        }
        this
    }

    fn with_capacity(len: usize) -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(len),
            kinds: Vec::with_capacity(len),
            ids: HashTable::with_capacity(len),
            hasher: Seeded::default(),
        }
    }

    /// Logs the tokens that became control tokens although the file does not call them so.
    fn warn_of(&self, mended: &[u32], typed: bool) {
        /// Most tokens that a warning names.
        const NAMED: usize = 8;
        if mended.is_empty() {
            return;
        }
        let named =
            mended.iter().take(NAMED).filter_map(|&id| Some(String::from_utf8_lossy(self.token(id)?)));
        let mut names = named.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if mended.len() > NAMED {
            names += &format!(" and {} more", mended.len() - NAMED);
        }
        let why =
            if typed { "the file types them otherwise" } else { "the file has no tokenizer.ggml.token_type" };
        tracing::warn!("{names}: taken for control tokens by name; {why}, probably a fault of its converter");
    }

    /// Appends a token, without making it known by its spelling.
    fn append(&mut self, token: &[u8], kind: TokenKind) {
        self.bytes.extend_from_slice(token);
        self.ends.push(self.bytes.len() as u32);
        self.kinds.push(kind);
    }

    /// Makes token `id` known by its spelling, unless another one is already.
    fn index(&mut self, id: u32) {
        let (bytes, ends, kinds, hasher) = (&self.bytes, &self.ends, &self.kinds, &self.hasher);
        let hash = |id: &u32| hasher.hash_one(slice(bytes, ends, *id));
        let same = |other: &u32| slice(bytes, ends, *other) == slice(bytes, ends, id);
        // If two tokens have the same spelling, text means the ordinary one.
        match self.ids.entry(hash(&id), same, hash) {
            Entry::Vacant(free) => {
                free.insert(id);
            }
            Entry::Occupied(mut taken) => {
                if kinds[id as usize] == TokenKind::Normal
                    && kinds[*taken.get() as usize] != TokenKind::Normal
                {
                    *taken.get_mut() = id;
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(crate) fn token(&self, id: u32) -> Option<&[u8]> {
        ((id as usize) < self.len()).then(|| slice(&self.bytes, &self.ends, id))
    }

    pub(crate) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    pub(crate) fn id(&self, token: &[u8]) -> Option<u32> {
        self.ids.find(self.hasher.hash_one(token), |&id| slice(&self.bytes, &self.ends, id) == token).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8], TokenKind)> {
        (0..self.len() as u32).filter_map(|id| Some((id, self.token(id)?, self.kind(id)?)))
    }
}

/// Returns the bytes of token `id`, which must exist.
fn slice<'a>(bytes: &'a [u8], ends: &[u32], id: u32) -> &'a [u8] {
    let start = if id == 0 { 0 } else { ends[id as usize - 1] };
    &bytes[start as usize..ends[id as usize] as usize]
}
