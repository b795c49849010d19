//! A call's generations: prepared, admitted, started and joined.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use realm::{Chunk, Completion, Finish, Generation, Model, Request, unblock};

use crate::ApiError;
use crate::gate::{Gate, Permit};

/// The running requests of one call.
pub(crate) struct Started {
    pub(crate) generations: Vec<Generation>,
    pub(crate) permit: Box<dyn Permit>,
    /// Tokens of all prompts; choices of one prompt share its tokens.
    pub(crate) prompt_tokens: usize,
}

/// Starts requests on a thread of their own, since long prompts and grammars take time. Every `n` of them
/// have the same prompt. If one request can't start, all are cancelled. `prompt` names the field that holds
/// the prompt.
pub(super) async fn start(
    model: &Model,
    requests: Vec<Request>,
    n: usize,
    prompt: &str,
    gate: &Arc<dyn Gate>,
) -> Result<Started, ApiError> {
    let (model, gate) = (model.clone(), Arc::clone(gate));
    let work = move || {
        let prepared: Result<Vec<_>, _> =
            requests.into_iter().map(|request| model.prepare_request(request)).collect();
        let prepared = prepared?;
        // A prompt that leaves no room is refused when it starts, with figures.
        if let Some(at) = prepared.iter().position(|request| request.max_tokens() == 0) {
            let mut prepared = prepared;
            prepared.swap_remove(at).start()?;
            return Err(ApiError::internal("a request without room has started"));
        }
        let prompt_tokens = prepared.iter().step_by(n).map(|request| request.prompt_tokens()).sum();
        let most = prepared.iter().map(|request| request.max_tokens()).sum();
        let permit = gate.admit(prompt_tokens, most)?;
        let generations: Result<_, _> = prepared.into_iter().map(|request| request.start()).collect();
        Ok(Started { generations: generations?, permit, prompt_tokens })
    };
    unblock(move || Ok(work())).await?.map_err(|error| error.prompt_is(prompt))
}

/// Starts one request, if `gate` admits it: for protocols with calls of their own. Dropping the generation
/// cancels the request, and dropping the permit ends the call.
///
/// # Errors
/// The failure that the caller gets in place of an answer.
pub async fn start_one(
    model: &Model,
    request: Request,
    gate: &Arc<dyn Gate>,
) -> Result<(Generation, Box<dyn Permit>), ApiError> {
    let Started { mut generations, permit, .. } = start(model, vec![request], 1, "prompt", gate).await?;
    let generation = generations.pop().ok_or_else(|| ApiError::internal("no request has started"))?;
    Ok((generation, permit))
}

impl Started {
    /// Waits for the end of all generations. Dropping the future cancels them.
    pub(super) async fn finish(self) -> Result<Vec<Completion>, ApiError> {
        let Self { generations, permit, .. } = self;
        let permit = Mutex::new(permit);
        try_join_all(generations.into_iter().map(|generation| joined(generation, &permit))).await
    }
}

/// Joins the chunks of a generation, and counts their tokens as they come.
async fn joined(mut generation: Generation, permit: &Mutex<Box<dyn Permit>>) -> Result<Completion, ApiError> {
    let mut text = String::new();
    let mut reasoning = String::new();
    let (mut tokens, mut tool_calls, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(chunk) = generation.next_async().await {
        let Chunk { finish, .. } = {
            let mut chunk = chunk?;
            text += &chunk.text;
            reasoning += &chunk.reasoning;
            permit.lock().unwrap_or_else(PoisonError::into_inner).generated(chunk.tokens.len());
            tokens.append(&mut chunk.tokens);
            tool_calls.append(&mut chunk.tool_calls);
            warnings.append(&mut chunk.warnings);
            chunk
        };
        if let Some(Finish { reason: finish_reason, usage, timings }) = finish {
            permit.lock().unwrap_or_else(PoisonError::into_inner).finished(&usage);
            return Ok(Completion {
                text,
                reasoning,
                tokens,
                tool_calls,
                warnings,
                finish_reason,
                usage,
                timings,
            });
        }
    }
    Err(ApiError::internal("the generation stopped without an end"))
}
