//! Requests as messages, and messages as answers.

use std::time::Duration;

use realm_engine::{
    Forwarded, Grammar, Output, Pooling, Sampling, Scored, Speculation, Timings, Token, TokenLogprob, Usage,
};
use realm_rpc::v1;
use v1::generate_request as asked;

use crate::error::ErrorCode;
use crate::remote::Adapted;
use crate::{
    Adapter, Chunk, Error, Finish, FinishReason, Limits, ModelInfo, Prompt, ReasoningFormat, Request,
    SharedPrefix, ToolCall, ToolChoice,
};

/// Returns a request as a message.
///
/// # Errors
/// `invalid-argument` for an adapter of this process, `unsupported` for a grammar that the protocol lacks.
pub(super) fn request(model: &str, request: Request) -> Result<v1::GenerateRequest, Error> {
    let adapter = request.adapter.map(|adapter| (adapter, request.adapter_scale));
    Ok(v1::GenerateRequest {
        model: model.to_owned(),
        prompt: Some(match request.prompt {
            Prompt::Text(text) => asked::Prompt::Text(text),
            Prompt::Tokens(ids) => asked::Prompt::Tokens(v1::Tokens { ids }),
            Prompt::Chat(messages) => {
                let json = |message: crate::Message| v1::Message {
                    json: Some(message.0.to_string()),
                    ..v1::Message::default()
                };
                asked::Prompt::Conversation(v1::Conversation {
                    messages: messages.into_iter().map(json).collect(),
                })
            }
        }),
        special: request.special,
        sampling: Some(sampling(request.sampling)),
        max_tokens: request.max_tokens.map(|most| most as u64),
        stop: request.stop,
        ignore_eos: request.ignore_eos,
        logprobs: request.logprobs.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        grammar: request.grammar.map(grammar).transpose()?,
        reasoning_format: match request.reasoning_format {
            ReasoningFormat::Separate => v1::ReasoningFormat::Separate,
            ReasoningFormat::Inline => v1::ReasoningFormat::Inline,
        }
        .into(),
        adapter: adapter_use(&adapter)?,
        program: None,
        input: Some(request.input).filter(|input| !input.is_null()).map(|input| input.to_string()),
        shared_prefix: match request.shared_prefix {
            SharedPrefix::Nothing => None,
            SharedPrefix::System => Some(asked::SharedPrefix::SharedSystem(true)),
            SharedPrefix::Tokens(tokens) => Some(asked::SharedPrefix::SharedTokens(tokens as u64)),
        },
        speculation: request.speculation.map_or(Ok(v1::Speculation::Unspecified), speculation)?.into(),
        tools: request.tools.iter().map(ToString::to_string).collect(),
        tool_choice: Some(v1::ToolChoice {
            choice: Some(match request.tool_choice {
                ToolChoice::Auto => v1::tool_choice::Choice::Auto(true),
                ToolChoice::None => v1::tool_choice::Choice::None(true),
                ToolChoice::Required => v1::tool_choice::Choice::Required(true),
                ToolChoice::Function(name) => v1::tool_choice::Choice::Function(name),
            }),
        }),
        template_variables: Some(request.template_variables)
            .filter(|variables| !variables.is_empty())
            .map(|variables| serde_json::Value::Object(variables).to_string()),
        add_generation_prompt: request.add_generation_prompt,
        continue_final_message: request.continue_final_message,
        enable_thinking: request.enable_thinking,
        reasoning_effort: request.reasoning_effort,
    })
}

fn sampling(sampling: Sampling) -> v1::Sampling {
    v1::Sampling {
        temperature: Some(sampling.temperature),
        top_k: Some(sampling.top_k as u64),
        top_p: Some(sampling.top_p),
        min_p: Some(sampling.min_p),
        typical_p: Some(sampling.typical_p),
        repetition_penalty: Some(sampling.repetition_penalty),
        repetition_window: Some(sampling.repetition_window as u64),
        frequency_penalty: Some(sampling.frequency_penalty),
        presence_penalty: Some(sampling.presence_penalty),
        logit_bias: sampling.logit_bias,
        banned_tokens: sampling.banned_tokens,
        seed: sampling.seed,
    }
}

fn grammar(grammar: Grammar) -> Result<asked::Grammar, Error> {
    Ok(match grammar {
        Grammar::JsonSchema(schema) => asked::Grammar::JsonSchema(schema.to_string()),
        Grammar::JsonObject => asked::Grammar::JsonObject(true),
        Grammar::Regex(expression) => asked::Grammar::Regex(expression),
        Grammar::Lark(text) => asked::Grammar::Lark(text),
        _ => return Err(newer("grammar")),
    })
}

fn speculation(speculation: Speculation) -> Result<v1::Speculation, Error> {
    Ok(match speculation {
        Speculation::Auto => v1::Speculation::Auto,
        Speculation::Off => v1::Speculation::Off,
        Speculation::Lookup => v1::Speculation::Lookup,
        Speculation::Draft => v1::Speculation::Draft,
        _ => return Err(newer("source of drafts")),
    })
}

fn newer(what: &str) -> Error {
    Error::new(ErrorCode::Unsupported, format!("the protocol of servers has no such {what}"))
}

/// Returns an adapter by the server's name.
pub(super) fn adapter_use(adapted: &Adapted) -> Result<Option<v1::AdapterUse>, Error> {
    let named = |(adapter, scale): &(Adapter, f32)| {
        Ok(v1::AdapterUse { name: adapter.name_at_server()?.to_owned(), scale: Some(*scale) })
    };
    adapted.as_ref().map(named).transpose()
}

pub(super) fn pooling(pooling: Option<Pooling>) -> i32 {
    match pooling {
        None => v1::Pooling::Unspecified,
        Some(Pooling::Mean) => v1::Pooling::Mean,
        Some(Pooling::Last) => v1::Pooling::Last,
        Some(Pooling::Cls) => v1::Pooling::Cls,
    }
    .into()
}

pub(super) fn output(output: Output) -> i32 {
    match output {
        Output::Nothing => v1::Output::Nothing,
        Output::LastLogits => v1::Output::LastLogits,
        Output::Logits => v1::Output::Logits,
        Output::Hidden => v1::Output::Hidden,
    }
    .into()
}

pub(super) fn tokens(ids: Vec<u32>) -> v1::Input {
    v1::Input { input: Some(v1::input::Input::Tokens(v1::Tokens { ids })) }
}

pub(super) fn info(facts: v1::Model) -> ModelInfo {
    ModelInfo {
        pooling: match facts.pooling() {
            v1::Pooling::Last => Pooling::Last,
            v1::Pooling::Cls => Pooling::Cls,
            v1::Pooling::Mean | v1::Pooling::Unspecified => Pooling::Mean,
        },
        name: facts.name,
        architecture: facts.architecture,
        parameters: facts.parameters,
        file_bytes: facts.file_bytes,
        vocabulary: size(facts.vocabulary),
        layers: size(facts.layers),
        context_length: size(facts.context_length),
        trained_context_length: size(facts.trained_context_length),
        hidden: size(facts.hidden),
        chat_template: facts.chat_template,
        device: facts.device,
        memory_bandwidth: facts.memory_bandwidth,
    }
}

pub(super) fn limits(limits: &v1::Limits) -> Limits {
    Limits {
        weight: limits.weight,
        max_concurrent: limits.max_concurrent.map(size),
        max_queued: size(limits.max_queued),
        kv_tokens: limits.kv_tokens.map(size),
        tokens_per_minute: limits.tokens_per_minute,
        request_timeout: limits.request_timeout_ms.map(Duration::from_millis),
        memory: size(limits.memory),
        ..Limits::default()
    }
}

/// Returns a chunk of an answer.
///
/// # Errors
/// `unsupported` for an end that a newer server has.
pub(super) fn chunk(chunk: v1::Chunk) -> Result<Chunk, Error> {
    let call = |call: v1::ToolCall| ToolCall { id: call.id, name: call.name, arguments: call.arguments };
    Ok(Chunk {
        text: chunk.text,
        reasoning: chunk.reasoning,
        tokens: chunk.tokens.into_iter().map(token).collect(),
        tool_calls: chunk.tool_calls.into_iter().map(call).collect(),
        warnings: chunk.warnings,
        finish: chunk.finish.map(finish).transpose()?,
    })
}

fn token(token: v1::Token) -> Token {
    Token { id: token.id, logprob: token.logprob, top: logprobs(token.top) }
}

fn logprobs(top: Vec<v1::TokenLogprob>) -> Vec<TokenLogprob> {
    top.into_iter().map(|token| TokenLogprob { id: token.id, logprob: token.logprob }).collect()
}

fn finish(finish: v1::Finish) -> Result<Finish, Error> {
    let reason = match finish.reason() {
        v1::FinishReason::Stop => FinishReason::Stop,
        v1::FinishReason::Length => FinishReason::Length,
        v1::FinishReason::ToolCalls => FinishReason::ToolCalls,
        v1::FinishReason::Unspecified => return Err(newer("end of an answer; update this package")),
    };
    let (usage, timings) = (finish.usage.unwrap_or_default(), finish.timings.unwrap_or_default());
    Ok(Finish {
        reason,
        usage: Usage {
            prompt_tokens: size(usage.prompt_tokens),
            cached_tokens: size(usage.cached_tokens),
            generated_tokens: size(usage.generated_tokens),
            reasoning_tokens: size(usage.reasoning_tokens),
            draft_tokens: size(usage.draft_tokens),
            accepted_tokens: size(usage.accepted_tokens),
        },
        timings: Timings {
            queued: Duration::from_nanos(timings.queued),
            prefill: Duration::from_nanos(timings.prefill),
            decode: Duration::from_nanos(timings.decode),
        },
    })
}

pub(super) fn scores(scores: Vec<v1::Scored>) -> Vec<Scored> {
    scores.into_iter().map(|score| Scored { next: score.next, top: logprobs(score.top) }).collect()
}

pub(super) fn forwarded(last: v1::Forwarded, values: Vec<f32>) -> Forwarded {
    Forwarded { values, width: size(last.width), cached: size(last.cached) }
}

pub(super) fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
