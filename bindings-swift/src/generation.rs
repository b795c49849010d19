//! Running requests, their chunks, and whole answers.

use std::sync::Arc;

use crate::error::Result;

/// A token and the natural logarithm of its probability.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// In nats.
    pub logprob: f32,
}

pub(crate) fn likeliest(top: Vec<realm::TokenLogprob>) -> Vec<TokenLogprob> {
    top.into_iter().map(|token| TokenLogprob { id: token.id, logprob: token.logprob }).collect()
}

/// A generated token.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log-probability, where the request asked for it.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place, where the request asked for them.
    pub top: Vec<TokenLogprob>,
}

fn tokens(tokens: Vec<realm::Token>) -> Vec<Token> {
    let token =
        |token: realm::Token| Token { id: token.id, logprob: token.logprob, top: likeliest(token.top) };
    tokens.into_iter().map(token).collect()
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum FinishReason {
    /// The model said so with an end token, a stop string came, or the grammar is complete.
    Stop,
    /// `maxTokens`, or the end of the context.
    Length,
    /// As `stop`, after calls of tools: the model waits for what they return.
    ToolCalls,
}

/// Tokens used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of these, how many were computed by an earlier request.
    pub cached_tokens: u64,
    /// Generated, an end token included.
    pub generated_tokens: u64,
    /// Of these, how many belong to the model's thought.
    pub reasoning_tokens: u64,
    /// Tokens that were computed on the chance that they would follow.
    pub draft_tokens: u64,
    /// Of these, how many did.
    pub accepted_tokens: u64,
}

/// Seconds used.
#[derive(Debug, Clone, Copy, PartialEq, uniffi::Record)]
pub struct Timings {
    /// Waiting for a place in the batch.
    pub queued: f64,
    /// From there to the first token.
    pub prefill: f64,
    /// From the first token to the last.
    pub decode: f64,
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// Tokens used.
    pub usage: Usage,
    /// Time used.
    pub timings: Timings,
}

impl Finish {
    fn new(reason: realm::FinishReason, usage: realm::Usage, timings: realm::Timings) -> Self {
        Self {
            reason: match reason {
                realm::FinishReason::Stop => FinishReason::Stop,
                realm::FinishReason::Length => FinishReason::Length,
                realm::FinishReason::ToolCalls => FinishReason::ToolCalls,
            },
            usage: Usage {
                prompt_tokens: usage.prompt_tokens as u64,
                cached_tokens: usage.cached_tokens as u64,
                generated_tokens: usage.generated_tokens as u64,
                reasoning_tokens: usage.reasoning_tokens as u64,
                draft_tokens: usage.draft_tokens as u64,
                accepted_tokens: usage.accepted_tokens as u64,
            },
            timings: Timings {
                queued: timings.queued.as_secs_f64(),
                prefill: timings.prefill.as_secs_f64(),
                decode: timings.decode.as_secs_f64(),
            },
        }
    }
}

/// A call of a tool that the model asks for. Realm calls nothing: run it, append the model's message with its `tool_calls` and one
/// of the role `tool` with the result, and ask again.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ToolCall {
    /// What the result names it by.
    pub id: String,
    /// The tool's name. Nothing but the prompt keeps a model from making one up.
    pub name: String,
    /// The arguments: a JSON object, which may not fit the tool's schema.
    pub arguments: String,
}

fn tool_calls(calls: Vec<realm::ToolCall>) -> Vec<ToolCall> {
    let call = |realm::ToolCall { id, name, arguments }| ToolCall { id, name, arguments };
    calls.into_iter().map(call).collect()
}

/// A piece of a generation.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Chunk {
    /// New text; may be empty while a character or a stop string is unfinished.
    pub text: String,
    /// New text of the model's thought, which is not part of `text`.
    pub reasoning: String,
    /// New tokens.
    pub tokens: Vec<Token>,
    /// Tools that the model calls, each in one piece. Their spelling is not part of the text.
    pub tool_calls: Vec<ToolCall>,
    /// In the first chunk, what the request asked for and the model could only do in another way.
    pub warnings: Vec<String>,
    /// In the last chunk, how it ended.
    pub finish: Option<Finish>,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Completion {
    /// The text, without the stop string that ended it, without tool calls and without thoughts.
    pub text: String,
    /// What the model thought before its answer; empty if it did not.
    pub reasoning: String,
    /// The tokens, an end token included.
    pub tokens: Vec<Token>,
    /// Tools that the model calls.
    pub tool_calls: Vec<ToolCall>,
    /// What the request asked for and the model could only do in another way: that its chat template knows no tools, for example.
    /// Sentences for a log.
    pub warnings: Vec<String>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens used.
    pub usage: Usage,
    /// Time used.
    pub timings: Timings,
}

impl From<realm::Completion> for Completion {
    fn from(answer: realm::Completion) -> Self {
        let Finish { reason, usage, timings } =
            Finish::new(answer.finish_reason, answer.usage, answer.timings);
        let (tokens, tool_calls) = (tokens(answer.tokens), tool_calls(answer.tool_calls));
        Self {
            text: answer.text,
            reasoning: answer.reasoning,
            tokens,
            tool_calls,
            warnings: answer.warnings,
            finish_reason: reason,
            usage,
            timings,
        }
    }
}

/// A running request. When nobody holds it any more, the request is cancelled and its part of the KV cache is free. Any number of
/// tasks may ask it for chunks; each chunk goes to one of them.
#[derive(uniffi::Object)]
pub struct Generation(realm::SharedGeneration);

impl From<realm::Generation> for Generation {
    fn from(generation: realm::Generation) -> Self {
        Self(generation.into())
    }
}

#[uniffi::export]
impl Generation {
    /// The next chunk; nil after the last one and after `cancel`. Does not look at whether the task is cancelled: `Model.stream` and
    /// `Model.generate` do.
    pub async fn next_chunk(self: Arc<Self>) -> Result<Option<Chunk>> {
        let chunk = self.0.next_async().await.transpose()?;
        Ok(chunk.map(|chunk| Chunk {
            text: chunk.text,
            reasoning: chunk.reasoning,
            tokens: tokens(chunk.tokens),
            tool_calls: tool_calls(chunk.tool_calls),
            warnings: chunk.warnings,
            finish: chunk.finish.map(|finish| Finish::new(finish.reason, finish.usage, finish.timings)),
        }))
    }

    /// Waits for the end and puts what was not read yet together. Throws what ended the request early, `Cancelled` after `cancel`.
    pub async fn complete(self: Arc<Self>) -> Result<Completion> {
        Ok(self.0.finish_async().await?.into())
    }

    /// Ends the request at once and frees its part of the KV cache. Tasks that wait for its chunks are told that there is none.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether it was cancelled before it had ended.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
