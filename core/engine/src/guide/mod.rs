//! Guided decoding: a generation that spells what a grammar allows.
//!
//! A [`Grammar`] is compiled by `Guides`, of which an engine has one, into a `Guide` for one generation. Before
//! each token the guide gives the [`TokenMask`](crate::TokenMask) of tokens that may come next; the sampler takes
//! one of those, and the guide goes on from it. The masks come from llguidance: it walks the trie of the
//! vocabulary with a lexer made of lazily built automata and an Earley parser, and takes tens of microseconds for
//! one, on threads of `MaskPool` while the forward pass runs.
//!
//! Where the grammar forces the next bytes (a property's name in quotes, say), the mask has one token: the one that
//! the tokenizer would spell those bytes with. So the model sees the text as it would have been encoded.

mod cache;
mod environment;
mod gbnf;
mod grammar;
mod matching;
mod pool;
mod rules;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::ParserFactory;
use realm_tokenizer::Tokenizer;

use crate::members::Members;
use crate::{Error, MemoryLedger};
use cache::Cache;
pub use grammar::Grammar;
pub use matching::Guide;
use pool::MaskPool;

/// Compiles grammars for one model.
pub(crate) struct Guides {
    tokenizer: Arc<Tokenizer>,
    factory: OnceLock<Result<ParserFactory, Error>>,
    cache: Mutex<Cache>,
    members: Arc<Members>,
    pool: Arc<MaskPool>,
}

impl Guides {
    /// Costs nothing until the first grammar comes.
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, members: Arc<Members>) -> Self {
        let (factory, cache, pool) = (OnceLock::new(), Mutex::default(), Arc::default());
        Self { tokenizer, factory, cache, members, pool }
    }

    /// A guide at the start of `grammar`. Compiles it on the caller's time, unless it is among those compiled lately for the same
    /// `owner`. How many of those are kept depends on the owner's part and account of `memory` alone: what grammars others use, and
    /// how many, does not show in the time this takes. Once for each model somebody waits for tables of the vocabulary.
    ///
    /// The compiled grammar is on the owner's account for as long as it is kept or guides anything. What the guide takes beside it
    /// ([`Guide::memory`]) is for the caller to count.
    ///
    /// # Errors
    /// `InvalidArgument` with llguidance's complaint about the grammar, `LimitExceeded` for one that is too large, and for more memory
    /// than the owner may hold.
    pub(crate) fn guide(&self, owner: u64, memory: &MemoryLedger, grammar: &Grammar) -> Result<Guide, Error> {
        let source = grammar.source()?;
        let factory = self.factory.get_or_init(|| environment::factory(&self.tokenizer));
        let factory = factory.as_ref().map_err(Error::clone)?;
        let entry = {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.divide(&self.members);
            cache.entry(owner, memory, source, self.members.part(owner))?
        };
        let parser = entry.parser(factory, grammar);
        if entry.is_unpaid() || entry.bytes() > cache::most(memory) {
            self.cache.lock().unwrap_or_else(PoisonError::into_inner).forget(owner, &entry);
        }
        Ok(Guide::new(parser?, entry, self.tokenizer.vocabulary_len(), Arc::clone(&self.pool)))
    }
}
