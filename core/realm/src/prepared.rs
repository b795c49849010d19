//! Requests that are tokenized and not started yet.

use std::sync::Arc;

use crate::answer::AnswerReader;
use crate::background::grammar_bytes;
use crate::{Error, Generation, LogitsProcessor, Model, processors};
#[cfg(feature = "sandbox")]
use crate::{Program, Request};

/// A request that is ready to start: its prompt is tokenized, and its options are checked. Holds no place in
/// a queue and no part of the KV cache.
pub struct PreparedRequest {
    pub(crate) model: Model,
    pub(crate) work: Work,
}

/// The party that answers, and what it needs.
pub(crate) enum Work {
    Engine {
        request: Box<realm_engine::Request>,
        processors: Vec<LogitsProcessor>,
        answer: Box<AnswerReader>,
    },
    #[cfg(feature = "sandbox")]
    Program { program: Program, request: Box<Request> },
}

impl PreparedRequest {
    /// The number of tokens of the prompt. 0 if a program of the tenant answers: it makes its own prompts.
    pub fn prompt_tokens(&self) -> usize {
        match &self.work {
            Work::Engine { request, .. } => request.prompt.len(),
            #[cfg(feature = "sandbox")]
            Work::Program { .. } => 0,
        }
    }

    /// The most tokens that the answer can have: the request's `max_tokens`, or what the context holds beside
    /// the prompt if that is less. 0 if the prompt is too long.
    pub fn max_tokens(&self) -> usize {
        let (prompt, limit) = match &self.work {
            Work::Engine { request, .. } => (request.prompt.len(), request.max_tokens),
            #[cfg(feature = "sandbox")]
            Work::Program { request, .. } => (0, request.max_tokens),
        };
        let room = self.model.context_of_tenant().saturating_sub(prompt);
        limit.map_or(room, |limit| limit.min(room))
    }

    /// Starts the request and returns its stream at once.
    ///
    /// # Errors
    /// `limit-exceeded` for a prompt that is too long, or a limit of the tenant; `invalid-argument` for
    /// options that the model does not allow; `overloaded` if too many requests wait already.
    pub fn start(self) -> Result<Generation, Error> {
        let Self { model, work } = self;
        match work {
            #[cfg(feature = "sandbox")]
            Work::Program { program, request } => model.run_program(&program, *request),
            Work::Engine { request, processors, answer } if !processors.is_empty() => {
                processors::start(&model, *request, processors, *answer)
            }
            Work::Engine { request, answer, .. } => {
                let bytes = grammar_bytes(request.grammar.as_ref());
                let tenant = &model.tenant.inner;
                let generation = model.prepare(bytes, || model.loaded.engine.generate(tenant, *request))?;
                Ok(Generation::new(generation, *answer, Arc::clone(&model.loaded)))
            }
        }
    }
}
