//! Running requests, their chunks, and whole answers.

use std::sync::Arc;

use crate::error::Result;

/// A token and the natural logarithm of its probability.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// The log-probability, in nats.
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
    /// Its log-probability, if the request asked for it.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place, if the request asked for them.
    pub top: Vec<TokenLogprob>,
}

fn tokens(tokens: Vec<realm::Token>) -> Vec<Token> {
    let token =
        |token: realm::Token| Token { id: token.id, logprob: token.logprob, top: likeliest(token.top) };
    tokens.into_iter().map(token).collect()
}

/// The reason why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum FinishReason {
    /// The model wrote an end token, a stop string appeared, or the grammar is complete.
    Stop,
    /// The text reached `maxTokens` or the end of the context.
    Length,
    /// The model called tools and waits for their results.
    ToolCalls,
}

/// The numbers of tokens used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Those of the prompt's tokens that an earlier request computed.
    pub cached_tokens: u64,
    /// Tokens generated, including an end token.
    pub generated_tokens: u64,
    /// Those of the generated tokens that belong to the model's thought.
    pub reasoning_tokens: u64,
    /// Tokens computed on the chance that they follow.
    pub draft_tokens: u64,
    /// Those of the draft tokens that did follow.
    pub accepted_tokens: u64,
}

/// The time used, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, uniffi::Record)]
pub struct Timings {
    /// The time of waiting for a place in the batch.
    pub queued: f64,
    /// The time from there to the first token.
    pub prefill: f64,
    /// The time from the first token to the last.
    pub decode: f64,
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Finish {
    /// The reason.
    pub reason: FinishReason,
    /// The numbers of tokens used.
    pub usage: Usage,
    /// The time used.
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

/// A tool call that the model asks for. Realm does not run it: run the tool, append the model's message with
/// its `tool_calls` and a message of the role `tool` with the result, and ask again.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ToolCall {
    /// The id that the result refers to.
    pub id: String,
    /// The tool's name. The model may make up a name that no tool has.
    pub name: String,
    /// The arguments: a JSON object, which may not fit the tool's schema.
    pub arguments: String,
}

fn tool_calls(calls: Vec<realm::ToolCall>) -> Vec<ToolCall> {
    let call = |realm::ToolCall { id, name, arguments }| ToolCall { id, name, arguments };
    calls.into_iter().map(call).collect()
}

/// A part of a generation.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Chunk {
    /// New text; may be empty while a character or a stop string is unfinished.
    pub text: String,
    /// New text of the model's thought, which is not part of `text`.
    pub reasoning: String,
    /// New tokens.
    pub tokens: Vec<Token>,
    /// New tool calls, each complete. Their spelling is not part of the text.
    pub tool_calls: Vec<ToolCall>,
    /// In the first chunk, options of the request that the model could serve only in another way.
    pub warnings: Vec<String>,
    /// In the last chunk, the end of the generation.
    pub finish: Option<Finish>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Completion {
    /// The text, without the stop string that ended it, without tool calls and without thoughts.
    pub text: String,
    /// The model's thought before its answer; empty if it had none.
    pub reasoning: String,
    /// The tokens, including an end token.
    pub tokens: Vec<Token>,
    /// The tool calls of the answer.
    pub tool_calls: Vec<ToolCall>,
    /// Options of the request that the model could serve only in another way, for example tools that its chat
    /// template does not know. Sentences for a log.
    pub warnings: Vec<String>,
    /// The reason why the answer ended.
    pub finish_reason: FinishReason,
    /// The numbers of tokens used.
    pub usage: Usage,
    /// The time used.
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

/// A running request. When its last reference is released, the request is cancelled and its part of the KV
/// cache is freed. Any number of tasks may ask it for chunks; each chunk goes to one of them.
#[derive(uniffi::Object)]
pub struct Generation(realm::SharedGeneration);

impl From<realm::Generation> for Generation {
    fn from(generation: realm::Generation) -> Self {
        Self(generation.into())
    }
}

#[uniffi::export]
impl Generation {
    /// Returns the next chunk; nil after the last one and after `cancel`. Does not check whether the task is
    /// cancelled; `Model.stream` and `Model.generate` do.
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

    /// Waits for the end and joins the chunks that were not read yet. Throws the error that ended the request
    /// early, `Cancelled` after `cancel`.
    pub async fn complete(self: Arc<Self>) -> Result<Completion> {
        Ok(self.0.finish_async().await?.into())
    }

    /// Ends the request at once and frees its part of the KV cache. Tasks that wait for its chunks get nil.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Returns whether the request was cancelled before it ended.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
