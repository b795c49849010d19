//! Guided decoding: generation of text that follows a grammar.
//!
//! A [`Grammar`] is compiled by `Guides`, of which an engine has one, into a `Guide` for one generation.
//! Before each token the guide gives the [`TokenMask`](crate::TokenMask) of tokens that may come next; the
//! sampler takes one of those, and the guide advances by it. The masks come from llguidance, which walks the
//! trie of the vocabulary with a lexer made of lazily built automata and an Earley parser. A mask takes tens
//! of microseconds, on threads of `MaskPool` while the forward pass runs.
//!
//! Where the grammar forces the next bytes (a property's name in quotes, say), the mask has one token: the
//! one with which the tokenizer would spell those bytes. So the model sees the text as it would have been
//! encoded.

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
    /// Creates a compiler, which does nothing before the first grammar.
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, members: Arc<Members>) -> Self {
        let (factory, cache, pool) = (OnceLock::new(), Mutex::default(), Arc::default());
        Self { tokenizer, factory, cache, members, pool }
    }

    /// Returns a guide at the start of `grammar`. Compiles it on the caller's thread, unless it is among the
    /// recently compiled grammars of the same `owner`. The number of those depends only on the owner's part
    /// and its account of `memory`, so the time reveals nothing about the grammars of others. A model's first
    /// grammar waits for tables of the vocabulary.
    ///
    /// The compiled grammar is on the owner's account as long as it is kept or guides a text. The caller
    /// counts the guide's own memory ([`Guide::memory`]).
    ///
    /// # Errors
    /// `InvalidArgument` with llguidance's error in the grammar; `LimitExceeded` for a grammar that is too
    /// large, and beyond the owner's memory limit.
    pub(crate) fn guide(&self, owner: u64, memory: &MemoryLedger, grammar: &Grammar) -> Result<Guide, Error> {
        if !self.tokenizer.spells() {
            let why = realm_tokenizer::Error::NoTokenizer;
            return Err(Error::InvalidArgument(format!("no grammar can guide this model: {why}")));
        }
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
