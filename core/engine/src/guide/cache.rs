//! A cache of recently compiled grammars.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use llguidance::api::StopReason;
use llguidance::{ParserFactory, TokenParser, panic_utils};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Grammar;
use crate::members::Members;
use crate::{Error, MemoryCharge, MemoryKind, MemoryLedger};

/// The most states of one grammar's lexer.
pub(super) const MAX_LEXER_STATES: usize = 32_768;

/// The most grammars that are kept for each tenant, and the most bytes of lexers for all tenants together, of
/// which each has its part.
const MAX_GRAMMARS: usize = 64;
const MAX_BYTES: usize = 256 << 20;

/// Grammars that nothing uses may take at most one part in this many of a tenant's memory limit, since the
/// tenant can't free them.
const KEPT_PART: usize = 8;

/// Bytes of a compiled grammar, and for each byte of its source, besides the tables of its lexer as
/// llguidance counts them. Measured by the growth of a process for 800 regular expressions, and for 64 of 400
/// and of 2,000 names each (`ledger` of the sandbox's tests).
const COMPILED_BYTES: usize = 8 << 10;
const SOURCE_BYTES: usize = 20;

/// The stack of the thread that compiles. References and rules are followed by recursion, and the deepest
/// that fit the limits on sources took 100 MiB. Untouched stack takes no memory.
const STACK: usize = 256 << 20;

/// The latest grammars of each owner, the most recently used one at the back.
///
/// Owners share nothing here, not even grammars of the same source: the lexer's states are built on first
/// use, so a second owner could find out how far the first one went.
#[derive(Default)]
pub(super) struct Cache {
    by_owner: HashMap<u64, VecDeque<Arc<Entry>>, FxBuildHasher>,
    /// The change of members that owners were last compared with.
    seen: u64,
}

impl Cache {
    /// Drops the grammars of owners that are gone.
    pub(super) fn divide(&mut self, members: &Members) {
        if let Some(there) = members.news(&mut self.seen) {
            let there: HashMap<u64, f64, FxBuildHasher> = there.into_iter().collect();
            self.by_owner.retain(|owner, _| there.contains_key(owner));
        }
    }

    /// Returns the entry of a grammar, compiled or not, for an owner with this part of the memory, on the
    /// owner's account.
    pub(super) fn entry(
        &mut self,
        owner: u64,
        memory: &MemoryLedger,
        source: String,
        part: f64,
    ) -> Result<Arc<Entry>, Error> {
        let entries = self.by_owner.entry(owner).or_default();
        let found = entries.iter().position(|e| e.source == source);
        let entry = found.and_then(|at| entries.remove(at)).filter(|entry| !entry.is_worn());
        let entry = entry.map_or_else(|| Entry::new(source, memory).map(Arc::new), Ok)?;
        let (mut bytes, most) = (0, ((MAX_BYTES as f64 * part) as usize).min(most(memory)));
        let kept = entries.iter().rev().take(MAX_GRAMMARS - 1).take_while(|entry| {
            bytes += entry.bytes();
            bytes <= most
        });
        let kept = kept.count();
        entries.drain(..entries.len() - kept);
        entries.push_back(Arc::clone(&entry));
        Ok(entry)
    }

    /// Drops an entry.
    pub(super) fn forget(&mut self, owner: u64, entry: &Arc<Entry>) {
        if let Some(entries) = self.by_owner.get_mut(&owner) {
            entries.retain(|kept| !Arc::ptr_eq(kept, entry));
        }
    }
}

/// The most bytes of grammars that are kept for an owner with this account, whatever its part is.
pub(super) fn most(memory: &MemoryLedger) -> usize {
    memory.limit() / KEPT_PART
}

/// A grammar. The first user compiles it, and others that want the same one wait.
pub(super) struct Entry {
    source: String,
    /// A parser at the start of the grammar. Its clones share its lexer, whose states are built on first use,
    /// so the next generation finds them.
    compiled: OnceLock<Result<Mutex<TokenParser>, Error>>,
    /// The charge for its memory, and whether the owner had no memory left for its growth.
    charge: Mutex<MemoryCharge>,
    unpaid: AtomicBool,
}

impl Entry {
    fn new(source: String, memory: &MemoryLedger) -> Result<Self, Error> {
        let charge = Mutex::new(memory.charge(MemoryKind::Code, size_of::<Self>() + source.len())?);
        Ok(Self { source, compiled: OnceLock::new(), charge, unpaid: AtomicBool::new(false) })
    }

    /// Returns a parser at the start of the grammar.
    ///
    /// # Errors
    /// `InvalidArgument` with the error in the grammar; `LimitExceeded` if the compiled grammar exceeds its
    /// owner's memory limit.
    pub(super) fn parser(&self, factory: &ParserFactory, grammar: &Grammar) -> Result<TokenParser, Error> {
        let compiled = self.compiled.get_or_init(|| Ok(Mutex::new(compile(factory, grammar)?)));
        let parser = compiled.as_ref().map_err(Error::clone)?;
        let parser = parser.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = self.memory(&parser);
        let mut charge = self.charge();
        let more = bytes.saturating_sub(charge.bytes());
        let paid = charge.grow(more);
        self.unpaid.store(paid.is_err(), Ordering::Relaxed);
        paid.map(|()| parser)
    }

    /// Counts the growth of the lexer, which this parser shares. The charge may exceed the limit, since
    /// llguidance bounds the lexer.
    pub(super) fn count(&self, parser: &TokenParser) {
        let bytes = self.memory(parser);
        let mut charge = self.charge();
        if bytes > charge.bytes() {
            charge.set(bytes);
        }
    }

    fn charge(&self) -> MutexGuard<'_, MemoryCharge> {
        self.charge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of memory of the compiled grammar that this parser belongs to. Waits for its other parsers that
    /// compute a mask.
    fn memory(&self, parser: &TokenParser) -> usize {
        // Panics if a mask of this grammar has panicked.
        let lexer = panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(parser.parser.lexer_stats().num_bytes)));
        size_of::<Self>() + self.source.len() * (1 + SOURCE_BYTES) + COMPILED_BYTES + lexer.unwrap_or(0)
    }

    /// Returns whether its owner has no memory for it.
    pub(super) fn is_unpaid(&self) -> bool {
        self.unpaid.load(Ordering::Relaxed)
    }

    /// Returns whether a lexer is too full or broken for a new generation to share it. An error stays in a
    /// lexer, and would end all generations that share it.
    fn is_worn(&self) -> bool {
        let Some(Ok(parser)) = self.compiled.get() else { return false };
        // Panics if a mask of this grammar has panicked.
        let worn = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            let parser = parser.lock().unwrap_or_else(PoisonError::into_inner);
            let stats = parser.parser.lexer_stats();
            Ok(stats.error || stats.num_states > MAX_LEXER_STATES / 2)
        }));
        worn.unwrap_or(true)
    }

    /// Bytes of its owner's memory that the entry takes.
    pub(super) fn bytes(&self) -> usize {
        self.charge().bytes()
    }
}

fn compile(factory: &ParserFactory, grammar: &Grammar) -> Result<TokenParser, Error> {
    let refused =
        |why: &str| Error::InvalidArgument(format!("the {} is not supported: {why}", grammar.name()));
    std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new()
            .name("realm-grammar".into())
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                let init = grammar.to_llguidance(factory.limits()).map_err(anyhow::Error::msg)?;
                let mut parser = factory.create_parser_from_init_default(init)?;
                parser.start_without_prompt();
                panic_utils::catch_unwind(AssertUnwindSafe(|| try_start(&mut parser)))?;
                Ok(parser)
            })
            .map_err(|why| Error::LimitExceeded(format!("a thread to compile the grammar: {why}")))?;
        let compiled = compiler.join().map_err(|_| refused("llguidance failed on it"))?;
        compiled.map_err(|error: anyhow::Error| refused(&brief(&error)))
    })
}

/// Refuses a grammar that can't even start when it is compiled. The first mask may still spend the budget of
/// compiling; the second one costs the same for every generation.
fn try_start(parser: &mut TokenParser) -> anyhow::Result<()> {
    for _ in 0..2 {
        if let Err(error) = parser.compute_mask() {
            anyhow::ensure!(
                parser.stop_reason() != StopReason::NoExtensionBias,
                "no text is what it asks for"
            );
            return Err(error);
        }
        if let Some(error) = parser.parser.get_error() {
            anyhow::bail!(error.message());
        }
    }
    Ok(())
}

/// Returns llguidance's error, without its messages to its own authors.
pub(super) fn brief(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some causes are part of the errors that they caused.
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    let marks = ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"];
    let end = marks.iter().filter_map(|mark| text.find(mark)).min();
    let lines = text[..end.unwrap_or(text.len())].trim().lines().take(12);
    lines.map(shorten).collect::<Vec<_>>().join("\n")
}

/// Returns both ends of a line, which may repeat a long source.
fn shorten(line: &str) -> String {
    const END: usize = 80;
    match (line.char_indices().nth(END), line.char_indices().nth_back(END)) {
        (Some((head, _)), Some((tail, _))) if head < tail => {
            format!("{} […] {}", &line[..head], &line[tail..])
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leak;

    /// Asks for a grammar; returns whether it was cached. Marks it as compiled instead of compiling it.
    fn uses(cache: &mut Cache, owner: u64, source: String, part: f64) -> bool {
        let entry = cache.entry(owner, &MemoryLedger::new("tests", usize::MAX), source, part).unwrap();
        let there = entry.compiled.get().is_some();
        entry.compiled.get_or_init(|| Err(Error::Stopped));
        there
    }

    /// A tenant that fills the cache with grammars of its own and checks which are left finds out nothing
    /// about how many another tenant used. Before, it could tell in nine of ten rounds.
    #[test]
    fn how_many_grammars_others_use_does_not_show() {
        let (mut cache, mut random) = (Cache::default(), leak::random(3));
        let (probe, other) = (1, 2);
        let seen = (0..leak::rounds()).map(|round| {
            let own = |i: usize| format!("round {round} grammar {i}");
            (0..MAX_GRAMMARS).for_each(|i| _ = uses(&mut cache, probe, own(i), 0.5));
            let secret = random(9);
            (0..secret).for_each(|i| _ = uses(&mut cache, other, format!("secret {round} {i}"), 0.5));
            // The newest first, since the oldest are evicted first.
            let left = (0..MAX_GRAMMARS).rev().take_while(|&i| uses(&mut cache, probe, own(i), 0.5)).count();
            (secret, left)
        });
        leak::assert_tells_nothing(&seen.collect::<Vec<_>>());
    }

    #[test]
    fn an_owner_keeps_what_its_part_holds_and_nothing_of_owners_who_are_gone_stays() {
        let mut cache = Cache::default();
        let large = |i: usize| format!("{i}{}", " ".repeat(1 << 20));
        let held = |cache: &mut Cache, part: f64| {
            (0..40).for_each(|i| _ = uses(cache, 1, large(i), part));
            cache.by_owner[&1].len()
        };
        assert_eq!(held(&mut cache, 0.1), 26, "25 MiB, and the one that was asked for");
        assert_eq!(held(&mut cache, 1.0), 40);
        cache.divide(&Members::default());
        assert!(cache.by_owner.is_empty());
    }
}
