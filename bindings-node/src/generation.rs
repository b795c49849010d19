//! Running requests and their results.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use napi::Status;
use napi::bindgen_prelude::*;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use realm::SharedGeneration;

use crate::environment::promise;
use crate::error::failed;
use crate::handle::dispose;

/// A token and its log-probability.
#[napi(object, object_from_js = false)]
pub struct TokenLogprob {
    /// The token's id.
    pub id: u32,
    /// The log-probability, in nats.
    pub logprob: f64,
}

/// A generated token.
#[napi(object, object_from_js = false)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log-probability in nats, if the request asked for it.
    pub logprob: Option<f64>,
    /// The likeliest tokens in its place, if the request asked for them.
    pub top: Option<Vec<TokenLogprob>>,
}

/// A tool call that the model asks for.
#[napi(object, object_from_js = false)]
pub struct ToolCall {
    /// The id that the result refers to.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments: a JSON object.
    pub arguments: String,
}

/// The number of tokens used.
#[napi(object, object_from_js = false)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Those of the prompt's tokens that an earlier request computed.
    pub cached_tokens: u32,
    /// Tokens generated, including an end token.
    pub generated_tokens: u32,
    /// Those of the generated tokens that belong to the model's thought.
    pub reasoning_tokens: u32,
    /// Tokens computed on the chance that they follow.
    pub draft_tokens: u32,
    /// Those of the draft tokens that did follow.
    pub accepted_tokens: u32,
}

/// The time used, in milliseconds.
#[napi(object, object_from_js = false)]
pub struct Timings {
    /// The time of waiting for a place in the batch.
    pub queued: f64,
    /// The time from there to the first token.
    pub prefill: f64,
    /// The time from the first token to the last.
    pub decode: f64,
}

/// A part of an answer.
#[napi(object, object_from_js = false)]
pub struct Chunk {
    /// New text; may be empty while a character or a stop string is unfinished.
    pub text: String,
    /// New text of the model's thought, if there is any.
    pub reasoning: Option<String>,
    /// New tokens.
    pub tokens: Vec<Token>,
    /// New tool calls, if there are any.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// In the first chunk, options of the request that the model could serve only in another way, if there
    /// are any.
    pub warnings: Option<Vec<String>>,
    /// In the last chunk, the reason why the answer ended.
    pub finish_reason: Option<&'static str>,
    /// In the last chunk, the number of tokens used.
    pub usage: Option<Usage>,
    /// In the last chunk, the time used.
    pub timings: Option<Timings>,
}

/// A whole answer.
#[napi(object, object_from_js = false)]
pub struct Completion {
    /// The text, without the stop string that ended it, without tool calls and without thoughts.
    pub text: String,
    /// The model's thought before its answer; empty if it had none.
    pub reasoning: String,
    /// The tokens, including an end token.
    pub tokens: Vec<Token>,
    /// The tool calls of the answer.
    pub tool_calls: Vec<ToolCall>,
    /// Options of the request that the model could serve only in another way.
    pub warnings: Vec<String>,
    /// The reason why the answer ended.
    pub finish_reason: &'static str,
    /// The number of tokens used.
    pub usage: Usage,
    /// The time used.
    pub timings: Timings,
}

fn tokens(tokens: Vec<realm::Token>) -> Vec<Token> {
    let likely = |t: realm::TokenLogprob| TokenLogprob { id: t.id, logprob: f64::from(t.logprob) };
    let token = |token: realm::Token| Token {
        id: token.id,
        logprob: token.logprob.map(f64::from),
        top: (!token.top.is_empty()).then(|| token.top.into_iter().map(likely).collect()),
    };
    tokens.into_iter().map(token).collect()
}

fn tool_calls(calls: Vec<realm::ToolCall>) -> Vec<ToolCall> {
    let call = |realm::ToolCall { id, name, arguments }| ToolCall { id, name, arguments };
    calls.into_iter().map(call).collect()
}

impl From<realm::Usage> for Usage {
    fn from(usage: realm::Usage) -> Self {
        // No context is longer than 32 bits can count.
        Self {
            prompt_tokens: usage.prompt_tokens as u32,
            cached_tokens: usage.cached_tokens as u32,
            generated_tokens: usage.generated_tokens as u32,
            reasoning_tokens: usage.reasoning_tokens as u32,
            draft_tokens: usage.draft_tokens as u32,
            accepted_tokens: usage.accepted_tokens as u32,
        }
    }
}

impl From<realm::Timings> for Timings {
    fn from(timings: realm::Timings) -> Self {
        let (queued, prefill, decode) = (timings.queued, timings.prefill, timings.decode);
        let [queued, prefill, decode] = [queued, prefill, decode].map(|time| time.as_secs_f64() * 1000.0);
        Self { queued, prefill, decode }
    }
}

impl From<realm::Chunk> for Chunk {
    fn from(chunk: realm::Chunk) -> Self {
        let finish = chunk.finish;
        Self {
            text: chunk.text,
            // Most chunks have none, and converting empty values takes time, too.
            reasoning: (!chunk.reasoning.is_empty()).then_some(chunk.reasoning),
            tokens: tokens(chunk.tokens),
            warnings: (!chunk.warnings.is_empty()).then_some(chunk.warnings),
            tool_calls: (!chunk.tool_calls.is_empty()).then(|| tool_calls(chunk.tool_calls)),
            finish_reason: finish.as_ref().map(|finish| finish.reason.as_str()),
            usage: finish.as_ref().map(|finish| finish.usage.into()),
            timings: finish.as_ref().map(|finish| finish.timings.into()),
        }
    }
}

impl From<realm::Completion> for Completion {
    fn from(completion: realm::Completion) -> Self {
        Self {
            text: completion.text,
            reasoning: completion.reasoning,
            warnings: completion.warnings,
            tokens: tokens(completion.tokens),
            tool_calls: tool_calls(completion.tool_calls),
            finish_reason: completion.finish_reason.as_str(),
            usage: completion.usage.into(),
            timings: completion.timings.into(),
        }
    }
}

type Tell = ThreadsafeFunction<u32, (), u32, Status, false, true>;

/// A bell that rings on Node's thread: the thread with a new chunk, often the engine's, rings it directly and
/// does not wait. It keeps no process alive.
#[napi]
pub struct NativeBell(Arc<Tell>);

#[napi]
impl NativeBell {
    /// Creates a bell that calls a function.
    #[napi(constructor)]
    pub fn new(ring: Function<'_, u32, ()>) -> Result<Self> {
        Ok(Self(Arc::new(ring.build_threadsafe_function::<u32>().weak::<true>().build()?)))
    }
}

/// Rings a bell once when a reader can go on.
struct Ring {
    bell: Arc<Tell>,
    id: u32,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        // A thread of Node's that has ended cannot be rung.
        let _ = self.bell.call(self.id, ThreadsafeFunctionCallMode::NonBlocking);
    }
}

/// Returns a waker that rings a bell with an id.
pub(crate) fn ring(bell: &NativeBell, id: u32) -> Waker {
    Waker::from(Arc::new(Ring { bell: Arc::clone(&bell.0), id }))
}

/// A running request.
#[napi]
pub struct NativeGeneration {
    generation: SharedGeneration,
}

impl NativeGeneration {
    pub(crate) fn new(generation: realm::Generation) -> Self {
        Self { generation: generation.into() }
    }
}

#[napi]
impl NativeGeneration {
    /// Returns the next chunk if there is one, `true` if there will be none, and `false` if there is none
    /// yet: then the bell rings with `id` when there may be one.
    #[napi]
    pub fn poll(&self, bell: &NativeBell, id: u32) -> Result<Either<Chunk, bool>> {
        let waker = ring(bell, id);
        match self.generation.poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(chunk)) => Ok(Either::A(chunk.map_err(failed)?.into())),
            Poll::Ready(None) => Ok(Either::B(true)),
            Poll::Pending => Ok(Either::B(false)),
        }
    }

    /// Joins the chunks that were not read yet into a completion.
    #[napi(ts_return_type = "Promise<Completion>")]
    pub fn finish<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Completion>> {
        let generation = self.generation.clone();
        promise(env, async move { Ok(generation.finish_async().await.map_err(failed)?.into()) })
    }

    /// Ends the request.
    #[napi]
    pub fn cancel(&self) {
        let generation = self.generation.clone();
        generation.cancel();
        dispose(generation);
    }
}
