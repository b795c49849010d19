//! Requests that are tokenized and not started yet.

use std::sync::Arc;

use realm_handover::block_on;

use crate::answer::AnswerReader;
use crate::background::grammar_bytes;
use crate::model::LocalModel;
use crate::remote::RemoteModel;
use crate::{Error, Generation, LogitsProcessor, Request, processors};

/// A request that is ready to start: its prompt is tokenized, and its options are checked. Holds no place in
/// a queue and no part of the KV cache.
pub struct PreparedRequest {
    pub(crate) work: Work,
}

/// The party that answers, and what it needs.
pub(crate) enum Work {
    Engine {
        model: LocalModel,
        request: Box<realm_engine::Request>,
        processors: Vec<LogitsProcessor>,
        answer: Box<AnswerReader>,
    },
    #[cfg(feature = "sandbox")]
    Program {
        model: LocalModel,
        program: crate::Program,
        request: Box<Request>,
    },
    Remote {
        model: RemoteModel,
        request: Box<Request>,
        prompt_tokens: usize,
        max_tokens: usize,
    },
}

impl PreparedRequest {
    /// The number of tokens of the prompt. 0 if a program of the tenant answers: it makes its own prompts.
    pub fn prompt_tokens(&self) -> usize {
        match &self.work {
            Work::Engine { request, .. } => request.prompt.len(),
            #[cfg(feature = "sandbox")]
            Work::Program { .. } => 0,
            Work::Remote { prompt_tokens, .. } => *prompt_tokens,
        }
    }

    /// The most tokens that the answer can have: the request's `max_tokens`, or what the context holds beside
    /// the prompt if that is less. 0 if the prompt is too long.
    pub fn max_tokens(&self) -> usize {
        let (model, prompt, limit) = match &self.work {
            Work::Engine { model, request, .. } => (model, request.prompt.len(), request.max_tokens),
            #[cfg(feature = "sandbox")]
            Work::Program { model, request, .. } => (model, 0, request.max_tokens),
            Work::Remote { max_tokens, .. } => return *max_tokens,
        };
        let room = model.context_of_tenant().saturating_sub(prompt);
        limit.map_or(room, |limit| limit.min(room))
    }

    /// Starts the request and returns its stream at once.
    ///
    /// # Errors
    /// `limit-exceeded` for a prompt that is too long, or a limit of the tenant; `invalid-argument` for
    /// options that the model does not allow; `overloaded` if too many requests wait already.
    pub fn start(self) -> Result<Generation, Error> {
        match self.work {
            #[cfg(feature = "sandbox")]
            Work::Program { model, program, request } => model.run_program(&program, *request),
            Work::Remote { model, request, .. } => block_on(model.stream(*request)),
            Work::Engine { model, request, processors, answer } if !processors.is_empty() => {
                processors::start(&model, *request, processors, *answer)
            }
            Work::Engine { model, request, answer, .. } => {
                let bytes = grammar_bytes(request.grammar.as_ref());
                let tenant = &model.tenant.inner;
                let generation = model.prepare(bytes, || model.loaded.engine.generate(tenant, *request))?;
                Ok(Generation::new(generation, *answer, Arc::clone(&model.loaded)))
            }
        }
    }
}
