//! A model's vocabulary in the form that llguidance walks.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::ParserLimits;
use llguidance::toktrie::{INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{ParserFactory, panic_utils};
use realm_tokenizer::{TokenKind, Tokenizer};

use crate::Error;

/// The longest token that the trie can hold, in bytes.
const LONGEST_TOKEN: usize = 1000;

struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl Vocabulary {
    /// Returns the longest token that begins `bytes`, and its length.
    fn longest(&self, bytes: &[u8]) -> Option<(TokenId, usize)> {
        let (mut node, mut found) = (self.trie.root(), None);
        for (i, &byte) in bytes.iter().enumerate() {
            let Some(next) = self.trie.child_at_byte(node, byte) else { break };
            node = next;
            found = node.token_id().map(|token| (token, i + 1)).or(found);
        }
        found
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let mut tokens =
            self.trie.tokenize_with_greedy_fallback(bytes, |text| self.tokenizer.encode_after(text));
        // Some tokenizers write a character as another one (SentencePiece a `▁` as a space) or leave it out.
        // Tokens from there on would be no part of the text that the grammar forces; longest matches spell
        // it.
        let mut rest = bytes;
        let goes_on = |token: &&TokenId| {
            let spelled = self.trie.token(**token);
            let after = rest.strip_prefix(spelled).filter(|_| !spelled.is_empty());
            rest = after.unwrap_or(rest);
            after.is_some()
        };
        let same = tokens.iter().take_while(goes_on).count();
        tokens.truncate(same);
        while let Some((token, len)) = self.longest(rest) {
            tokens.push(token);
            rest = &rest[len..];
        }
        tokens
    }
}

/// Builds the trie of the vocabulary and the tables that make masks cheap.
///
/// # Errors
/// `InvalidArgument` for a vocabulary that llguidance can't hold.
pub(super) fn factory(tokenizer: &Arc<Tokenizer>) -> Result<ParserFactory, Error> {
    let tokenizer = Arc::clone(tokenizer);
    // The trie asserts its expectations of a vocabulary, and a model's file may hold anything.
    panic_utils::catch_unwind(AssertUnwindSafe(move || {
        let words: Vec<_> =
            (0..tokenizer.vocabulary_len() as u32).map(|id| spelling(&tokenizer, id)).collect();
        let ends = tokenizer.end_tokens();
        let end = ends.first().copied().unwrap_or(INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(ends);
        }
        let environment: TokEnv = Arc::new(Vocabulary { trie, tokenizer });
        let mut factory = ParserFactory::new_simple(&environment)?;
        *factory.limits_mut() = limits();
        factory.quiet();
        Ok(factory)
    }))
    .map_err(|error| {
        Error::InvalidArgument(format!(
            "this model's vocabulary can't be guided: {}",
            super::cache::brief(&error)
        ))
    })
}

/// The limits of one grammar. llguidance's own are for a process that serves one user; these are tighter,
/// since other tenants' tokens wait for the mask.
fn limits() -> ParserLimits {
    ParserLimits {
        // A state of a lexer takes 1 to 2 KiB, and compiled grammars are kept.
        max_lexer_states: super::cache::MAX_LEXER_STATES,
        step_lexer_fuel: 50_000,
        step_max_items: 20_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Returns the bytes that a token adds to the text. Control tokens add none: after the marker a grammar can
/// name them, and they are never taken for text. A token with no bytes is never allowed.
fn spelling(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let special = match tokenizer.kind(id) {
        Some(TokenKind::Control | TokenKind::Unknown) => true,
        Some(TokenKind::Unused) | None => return bytes,
        // An end token ends the text, whatever its kind: spelled inside a string it would end the generation
        // there.
        _ => tokenizer.end_tokens().contains(&id),
    };
    if special {
        bytes.push(TokTrie::SPECIAL_TOKEN_MARKER);
    }
    let known = tokenizer.push_bytes(id, true, &mut bytes).is_ok();
    // The marker is no byte of UTF-8 text, so a token whose text begins with it is of no use.
    let marked = !special && bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER);
    if !known || marked || bytes.len() > LONGEST_TOKEN {
        bytes.clear();
    }
    bytes
}
