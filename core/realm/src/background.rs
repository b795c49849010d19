//! Preparation of long prompts and grammars on threads of low priority.
//!
//! Rendering and tokenizing 128 KiB takes some 15 ms of a core, compiling a grammar of 64 KiB longer, and a
//! tenant may send one such request after the other only to have them refused. On the caller's own threads
//! that would take time from the threads that compute the model, which every tenant needs.

use std::sync::{Mutex, OnceLock, PoisonError};

use realm_compute::priority;
use realm_engine::Grammar;
use serde_json::Value;

/// The bytes of text up to which a prompt or a grammar is prepared on the caller's thread: some 2 ms of a
/// core for a prompt.
const SHORT: usize = 16 << 10;

/// The most threads of a model that prepare prompts and grammars.
const THREADS: usize = 8;

/// The bytes of stack of such a thread: as on most systems' main thread, for templates that recurse.
const STACK: usize = 8 << 20;

/// The threads that prepare a model's long prompts and grammars; they start with the first of these.
#[derive(Default)]
pub(crate) struct Background {
    pool: OnceLock<Option<rayon::ThreadPool>>,
}

/// Lets a tenant prepare one long prompt or grammar at a time, so that its next ones delay only itself.
#[derive(Debug, Default)]
pub(crate) struct Turn(Mutex<()>);

impl Background {
    /// Prepares a prompt or a grammar with this many bytes of text: a long one on a thread of low priority,
    /// for which the caller waits.
    pub(crate) fn prepare<T: Send>(
        &self,
        turn: &Turn,
        bytes: usize,
        prepare: impl FnOnce() -> T + Send,
    ) -> T {
        if bytes <= SHORT {
            return prepare();
        }
        let _turn = turn.0.lock().unwrap_or_else(PoisonError::into_inner);
        match self.pool.get_or_init(pool) {
            Some(pool) => pool.install(prepare),
            None => prepare(),
        }
    }
}

/// Returns the bytes of text of a grammar, if there is one.
pub(crate) fn grammar_bytes(grammar: Option<&Grammar>) -> usize {
    match grammar {
        Some(Grammar::JsonSchema(schema)) => json_bytes(schema),
        Some(Grammar::Regex(text) | Grammar::Lark(text)) => text.len(),
        _ => 0,
    }
}

fn json_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(json_bytes).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + json_bytes(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

fn pool() -> Option<rayon::ThreadPool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(cores.min(THREADS))
        .thread_name(|index| format!("realm-prompt-{index}"))
        .stack_size(STACK)
        .start_handler(|_| priority::lower());
    match pool.build() {
        Ok(pool) => Some(pool),
        Err(error) => {
            tracing::warn!(%error, "long prompts and grammars are prepared on their callers' threads");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, Request};

    fn thread_of(request: &Request) -> String {
        let name = || std::thread::current().name().unwrap_or_default().to_owned();
        Background::default().prepare(&Turn::default(), request.prompt.bytes(), name)
    }

    #[test]
    fn long_prompts_are_prepared_on_threads_of_their_own() {
        let long = "word ".repeat(SHORT / 5 + 1);
        let chat = [Message::system("Be brief."), Message::user(long.clone())];
        for request in [Request::text(long), Request::chat(chat)] {
            assert!(thread_of(&request).starts_with("realm-prompt-"));
        }
        let short = std::thread::current().name().unwrap_or_default().to_owned();
        for request in [Request::text("a word"), Request::tokens(vec![1; SHORT])] {
            assert_eq!(thread_of(&request), short);
        }
    }

    #[test]
    fn the_text_of_a_grammar_counts() {
        let bytes = |request: Request| grammar_bytes(request.grammar.as_ref());
        let long = "(a|b)".repeat(SHORT / 5 + 1);
        let properties: serde_json::Map<_, _> =
            (0..SHORT / 8).map(|i| (format!("key{i:05}"), Value::Bool(true))).collect();
        let schema = serde_json::json!({ "properties": properties });
        for request in [
            Request::text("a").regex(long.clone()),
            Request::text("a").lark(format!("start: /{long}/")),
            Request::text("a").json_schema(schema),
        ] {
            assert!(bytes(request) > SHORT);
        }
        assert_eq!(bytes(Request::text("a").regex("[ab]")), 4);
        assert_eq!(bytes(Request::text("a").json()), 0);
        assert_eq!(bytes(Request::text("a")), 0);
    }

    #[test]
    fn a_tenant_prepares_one_long_prompt_at_a_time() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (background, turn) = (Background::default(), Turn::default());
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    background.prepare(&turn, SHORT + 1, || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }
}
