//! Grammars that were compiled lately.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::StopReason;
use llguidance::{ParserFactory, TokenParser, panic_utils};

use super::Grammar;
use crate::Error;

/// States of one grammar's lexer at most.
pub(super) const MAX_LEXER_STATES: usize = 32_768;

/// Grammars that are kept at most, and bytes of their lexers.
const MAX_GRAMMARS: usize = 64;
const MAX_BYTES: usize = 256 << 20;

/// Stack of the thread that compiles: references and rules are followed by recursion, and the deepest that fit the
/// limits on sources took 100 MiB of it. Memory that is not touched is not there.
const STACK: usize = 256 << 20;

/// The latest grammars, the one used last at the back.
#[derive(Default)]
pub(super) struct Cache {
    entries: VecDeque<Arc<Entry>>,
}

impl Cache {
    /// The entry of a grammar, compiled or not.
    pub(super) fn entry(&mut self, owner: u64, source: String) -> Arc<Entry> {
        let found = self.entries.iter().position(|e| e.owner == owner && e.source == source);
        let entry = found.and_then(|at| self.entries.remove(at)).filter(|entry| !entry.is_worn());
        let entry = entry.unwrap_or_else(|| Arc::new(Entry { owner, source, compiled: OnceLock::new() }));
        let mut bytes = 0;
        let kept = self.entries.iter().rev().take(MAX_GRAMMARS - 1).take_while(|entry| {
            bytes += entry.bytes();
            bytes <= MAX_BYTES
        });
        let kept = kept.count();
        self.entries.drain(..self.entries.len() - kept);
        self.entries.push_back(Arc::clone(&entry));
        entry
    }
}

/// A grammar. Whoever comes first compiles it, and those who want the same one wait.
pub(super) struct Entry {
    owner: u64,
    source: String,
    /// A parser at the start of the grammar. Its clones share its lexer, whose states are built as they are met:
    /// the next generation finds them there.
    compiled: OnceLock<Result<Mutex<TokenParser>, Error>>,
}

impl Entry {
    /// A parser at the start of the grammar.
    pub(super) fn parser(&self, factory: &ParserFactory, grammar: &Grammar) -> Result<TokenParser, Error> {
        let compiled = self.compiled.get_or_init(|| Ok(Mutex::new(compile(factory, grammar)?)));
        let parser = compiled.as_ref().map_err(Error::clone)?;
        Ok(parser.lock().unwrap_or_else(PoisonError::into_inner).clone())
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

    fn bytes(&self) -> usize {
        let Some(Ok(parser)) = self.compiled.get() else { return self.source.len() };
        let bytes = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            Ok(parser.lock().unwrap_or_else(PoisonError::into_inner).parser.lexer_stats().num_bytes)
        }));
        self.source.len() + bytes.unwrap_or(0)
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
