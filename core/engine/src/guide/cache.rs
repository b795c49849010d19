//! Grammars that were compiled lately.

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

/// States of one grammar's lexer at most.
pub(super) const MAX_LEXER_STATES: usize = 32_768;

/// Grammars that are kept for each tenant at most, and bytes of their lexers for all tenants together: each has its part.
const MAX_GRAMMARS: usize = 64;
const MAX_BYTES: usize = 256 << 20;

/// The part of what a tenant may hold that grammars which nothing uses may take: the tenant can't give them up.
const KEPT_PART: usize = 8;

/// Bytes of a compiled grammar, and of it for each byte of its source, beside what llguidance takes its lexer's tables for. Measured by
/// what a process grew by for 800 regular expressions, and for 64 of 400 and of 2,000 names each (`ledger` of the sandbox's tests).
const COMPILED_BYTES: usize = 8 << 10;
const SOURCE_BYTES: usize = 20;

/// Stack of the thread that compiles: references and rules are followed by recursion, and the deepest that fit the
/// limits on sources took 100 MiB of it. Memory that is not touched is not there.
const STACK: usize = 256 << 20;

/// The latest grammars of each owner, the one used last at the back.
///
/// Owners share nothing here, not even what was compiled from the same source: the lexer's states are built as they are met, so
/// that whoever came second would find out how far the first one went.
#[derive(Default)]
pub(super) struct Cache {
    by_owner: HashMap<u64, VecDeque<Arc<Entry>>, FxBuildHasher>,
    /// The change of members that owners were last compared with.
    seen: u64,
}

impl Cache {
    /// Forgets the grammars of owners who are gone.
    pub(super) fn divide(&mut self, members: &Members) {
        if let Some(there) = members.news(&mut self.seen) {
            let there: HashMap<u64, f64, FxBuildHasher> = there.into_iter().collect();
            self.by_owner.retain(|owner, _| there.contains_key(owner));
        }
    }

    /// The entry of a grammar, compiled or not, for an owner with this part of the memory, on the owner's account.
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

    /// Keeps an entry no longer.
    pub(super) fn forget(&mut self, owner: u64, entry: &Arc<Entry>) {
        if let Some(entries) = self.by_owner.get_mut(&owner) {
            entries.retain(|kept| !Arc::ptr_eq(kept, entry));
        }
    }
}

/// Bytes of grammars that are kept for an owner with this account at most, whatever its part is.
pub(super) fn most(memory: &MemoryLedger) -> usize {
    memory.limit() / KEPT_PART
}

/// A grammar. Whoever comes first compiles it, and those who want the same one wait.
pub(super) struct Entry {
    source: String,
    /// A parser at the start of the grammar. Its clones share its lexer, whose states are built as they are met:
    /// the next generation finds them there.
    compiled: OnceLock<Result<Mutex<TokenParser>, Error>>,
    /// What it takes of its owner's memory, and whether there was no more for what it has grown to.
    charge: Mutex<MemoryCharge>,
    unpaid: AtomicBool,
}

impl Entry {
    fn new(source: String, memory: &MemoryLedger) -> Result<Self, Error> {
        let charge = Mutex::new(memory.charge(MemoryKind::Code, size_of::<Self>() + source.len())?);
        Ok(Self { source, compiled: OnceLock::new(), charge, unpaid: AtomicBool::new(false) })
    }

    /// A parser at the start of the grammar.
    ///
    /// # Errors
    /// What it complains of; `LimitExceeded` if what is compiled is more than its owner may hold.
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

    /// Counts what the lexer has grown by, of which this parser is one: even beyond the limit, since llguidance bounds it.
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

    /// Bytes of memory of the compiled grammar, of which this is a parser. Waits for other parsers of it that compute a mask.
    fn memory(&self, parser: &TokenParser) -> usize {
        // Panics if a mask of this grammar did.
        let lexer = panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(parser.parser.lexer_stats().num_bytes)));
        size_of::<Self>() + self.source.len() * (1 + SOURCE_BYTES) + COMPILED_BYTES + lexer.unwrap_or(0)
    }

    /// Whether its owner has no memory for it.
    pub(super) fn is_unpaid(&self) -> bool {
        self.unpaid.load(Ordering::Relaxed)
    }

    /// Whether a lexer is so full, or so broken, that a new generation had better not share it. An error stays in
    /// a lexer, and would end all that share it.
    fn is_worn(&self) -> bool {
        let Some(Ok(parser)) = self.compiled.get() else { return false };
        // Panics if a mask of this grammar did.
        let worn = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            let parser = parser.lock().unwrap_or_else(PoisonError::into_inner);
            let stats = parser.parser.lexer_stats();
            Ok(stats.error || stats.num_states > MAX_LEXER_STATES / 2)
        }));
        worn.unwrap_or(true)
    }

    /// Bytes of its owner's memory that it takes.
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

/// What can't even start is refused where it is compiled. The first mask may still spend what was granted for
/// compiling; the second one costs what it will cost every generation.
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

/// What llguidance says, without what it says to its authors.
pub(super) fn brief(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some causes are in what they caused.
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

/// Both ends of a line, which may repeat a long source.
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

    /// Asks for a grammar; says whether it was there. Instead of compiling it, notes that it was.
    fn uses(cache: &mut Cache, owner: u64, source: String, part: f64) -> bool {
        let entry = cache.entry(owner, &MemoryLedger::new("tests", usize::MAX), source, part).unwrap();
        let there = entry.compiled.get().is_some();
        entry.compiled.get_or_init(|| Err(Error::Stopped));
        there
    }

    /// A tenant that fills the cache with grammars of its own and looks which are left finds out nothing about how many another
    /// one used: it could tell in nine of ten rounds.
    #[test]
    fn how_many_grammars_others_use_does_not_show() {
        let (mut cache, mut random) = (Cache::default(), leak::random(3));
        let (probe, other) = (1, 2);
        let seen = (0..leak::rounds()).map(|round| {
            let own = |i: usize| format!("round {round} grammar {i}");
            (0..MAX_GRAMMARS).for_each(|i| _ = uses(&mut cache, probe, own(i), 0.5));
            let secret = random(9);
            (0..secret).for_each(|i| _ = uses(&mut cache, other, format!("secret {round} {i}"), 0.5));
            // The newest first: the oldest are those that would be gone.
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
