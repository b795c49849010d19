//! Messages as requests, and answers as messages.

use realm::{
    Chunk, EmbedOptions, Finish, FinishReason, Grammar, Limits, Message, Model, ModelInfo, Output, Pooling,
    Prompt, ReasoningFormat, Request, Sampling, Scored, SharedPrefix, Speculation, Token, TokenLogprob,
    ToolChoice,
};
use realm_protocol::{ApiError, Extras};
use realm_rpc::v1;
use serde_json::Value;
use v1::generate_request as asked;

/// What a message asks for: the model, what it names besides, and the request.
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) extras: Extras,
    pub(super) request: Request,
}

/// Reads a request.
///
/// # Errors
/// Status 400 with the field that is wrong.
pub(super) fn request(asked: v1::GenerateRequest) -> Result<Asked, ApiError> {
    let (reasoning, speculation) = (asked.reasoning_format, asked.speculation);
    let prompt = match asked.prompt {
        Some(asked::Prompt::Text(text)) => Prompt::Text(text),
        Some(asked::Prompt::Tokens(tokens)) => Prompt::Tokens(tokens.ids),
        Some(asked::Prompt::Conversation(conversation)) => {
            Prompt::Chat(conversation.messages.into_iter().map(message).collect::<Result<_, _>>()?)
        }
        None => {
            return Err(ApiError::invalid(
                "prompt",
                "the request has no prompt; give `text`, `tokens` or a `conversation`",
            ));
        }
    };
    let mut request = Request::new(prompt);
    request.special = asked.special;
    request.sampling = sampling(asked.sampling.unwrap_or_default());
    request.max_tokens = asked.max_tokens.map(size);
    request.stop = asked.stop;
    request.ignore_eos = asked.ignore_eos;
    request.logprobs = asked.logprobs.map(|n| n as usize);
    request.grammar = asked.grammar.map(grammar).transpose()?.flatten();
    request.reasoning_format = match known("reasoning_format", v1::ReasoningFormat::try_from(reasoning))? {
        v1::ReasoningFormat::Unspecified | v1::ReasoningFormat::Separate => ReasoningFormat::Separate,
        v1::ReasoningFormat::Inline => ReasoningFormat::Inline,
    };
    request.shared_prefix = match asked.shared_prefix {
        None | Some(asked::SharedPrefix::SharedSystem(false)) => SharedPrefix::Nothing,
        Some(asked::SharedPrefix::SharedSystem(true)) => SharedPrefix::System,
        Some(asked::SharedPrefix::SharedTokens(tokens)) => SharedPrefix::Tokens(size(tokens)),
    };
    request.speculation = match known("speculation", v1::Speculation::try_from(speculation))? {
        v1::Speculation::Unspecified => None,
        v1::Speculation::Auto => Some(Speculation::Auto),
        v1::Speculation::Off => Some(Speculation::Off),
        v1::Speculation::Lookup => Some(Speculation::Lookup),
        v1::Speculation::Draft => Some(Speculation::Draft),
    };
    request.tools = asked.tools.iter().map(|tool| object("tools", tool)).collect::<Result<_, _>>()?;
    request.tool_choice = match asked.tool_choice.and_then(|choice| choice.choice) {
        None | Some(v1::tool_choice::Choice::Auto(_)) => ToolChoice::Auto,
        Some(v1::tool_choice::Choice::None(_)) => ToolChoice::None,
        Some(v1::tool_choice::Choice::Required(_)) => ToolChoice::Required,
        Some(v1::tool_choice::Choice::Function(name)) => ToolChoice::Function(name),
    };
    if let Some(variables) = asked.template_variables
        && let Value::Object(variables) = object("template_variables", &variables)?
    {
        request.template_variables = variables;
    }
    request.add_generation_prompt = asked.add_generation_prompt;
    request.continue_final_message = asked.continue_final_message;
    request.enable_thinking = asked.enable_thinking;
    request.reasoning_effort = asked.reasoning_effort;
    if let Some(input) = asked.input {
        request.input = json("input", &input)?;
    }
    let extras = Extras { program: asked.program, adapter: asked.adapter.map(adapter).transpose()? };
    Ok(Asked { model: asked.model, extras, request })
}

fn message(message: v1::Message) -> Result<Message, ApiError> {
    match message.json {
        None => Ok(Message::new(&message.role, message.content)),
        Some(_) if !message.role.is_empty() || !message.content.is_empty() => Err(ApiError::invalid(
            "conversation.messages",
            "a message has `role` and `content`, or `json` in place of both; send one of them",
        )),
        Some(text) => Ok(object("conversation.messages.json", &text)?.into()),
    }
}

fn sampling(asked: v1::Sampling) -> Sampling {
    let default = Sampling::default();
    Sampling {
        temperature: asked.temperature.unwrap_or(default.temperature),
        top_k: asked.top_k.map_or(default.top_k, size),
        top_p: asked.top_p.unwrap_or(default.top_p),
        min_p: asked.min_p.unwrap_or(default.min_p),
        typical_p: asked.typical_p.unwrap_or(default.typical_p),
        repetition_penalty: asked.repetition_penalty.unwrap_or(default.repetition_penalty),
        repetition_window: asked.repetition_window.map_or(default.repetition_window, size),
        frequency_penalty: asked.frequency_penalty.unwrap_or(default.frequency_penalty),
        presence_penalty: asked.presence_penalty.unwrap_or(default.presence_penalty),
        logit_bias: asked.logit_bias,
        banned_tokens: asked.banned_tokens,
        seed: asked.seed,
    }
}

fn grammar(grammar: asked::Grammar) -> Result<Option<Grammar>, ApiError> {
    Ok(match grammar {
        asked::Grammar::JsonSchema(schema) => Some(Grammar::JsonSchema(json("json_schema", &schema)?)),
        asked::Grammar::JsonObject(wanted) => wanted.then_some(Grammar::JsonObject),
        asked::Grammar::Regex(expression) => Some(Grammar::Regex(expression)),
        asked::Grammar::Lark(text) => Some(Grammar::Lark(text)),
    })
}

/// Reads an adapter's name and its factor.
///
/// # Errors
/// Status 400 for a factor that is no number.
pub(super) fn adapter(adapter: v1::AdapterUse) -> Result<(String, f32), ApiError> {
    let scale = adapter.scale.unwrap_or(1.0);
    if !scale.is_finite() {
        return Err(ApiError::invalid(
            "adapter.scale",
            format!("adapter_scale is {scale}; it must be finite"),
        ));
    }
    Ok((adapter.name, scale))
}

/// Reads the options of vectors.
///
/// # Errors
/// Status 400 for a pooling that this server does not know.
pub(super) fn embed_options(asked: &v1::EmbedRequest) -> Result<EmbedOptions, ApiError> {
    let pooling = match known("pooling", v1::Pooling::try_from(asked.pooling))? {
        v1::Pooling::Unspecified => None,
        v1::Pooling::Mean => Some(Pooling::Mean),
        v1::Pooling::Last => Some(Pooling::Last),
        v1::Pooling::Cls => Some(Pooling::Cls),
    };
    Ok(EmbedOptions { pooling, normalize: asked.normalize.unwrap_or(true) })
}

/// Returns the tokens of a text.
///
/// # Errors
/// Status 400 if there is none.
pub(super) fn tokens(input: Option<v1::Input>, field: &str, model: &Model) -> Result<Vec<u32>, ApiError> {
    match input.and_then(|input| input.input) {
        Some(v1::input::Input::Text(text)) => Ok(model.encode(&text)),
        Some(v1::input::Input::Tokens(tokens)) => Ok(tokens.ids),
        None => Err(ApiError::invalid(field, format!("{field} is empty; give `text` or `tokens`"))),
    }
}

/// Reads what a forward pass returns.
///
/// # Errors
/// Status 400 for an output that this server does not know.
pub(super) fn output(output: i32) -> Result<Output, ApiError> {
    Ok(match known("output", v1::Output::try_from(output))? {
        v1::Output::Nothing => Output::Nothing,
        v1::Output::LastLogits => Output::LastLogits,
        v1::Output::Logits => Output::Logits,
        v1::Output::Hidden => Output::Hidden,
    })
}

fn known<T, E>(field: &str, value: Result<T, E>) -> Result<T, ApiError> {
    value.map_err(|_| {
        ApiError::unsupported(field, format!("{field} has a value that this server does not know"))
    })
}

fn json(field: &str, text: &str) -> Result<Value, ApiError> {
    serde_json::from_str(text)
        .map_err(|error| ApiError::invalid(field, format!("{field} is no JSON: {error}")))
}

fn object(field: &str, text: &str) -> Result<Value, ApiError> {
    let value = json(field, text)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::invalid(field, format!("{field} is no JSON object")))
    }
}

pub(super) fn model(name: &str, info: &ModelInfo) -> v1::Model {
    v1::Model {
        model: name.to_owned(),
        name: info.name.clone(),
        architecture: info.architecture.clone(),
        parameters: info.parameters,
        file_bytes: info.file_bytes,
        vocabulary: info.vocabulary as u64,
        layers: info.layers as u64,
        context_length: info.context_length as u64,
        trained_context_length: info.trained_context_length as u64,
        hidden: info.hidden as u64,
        pooling: match info.pooling {
            Pooling::Mean => v1::Pooling::Mean,
            Pooling::Last => v1::Pooling::Last,
            Pooling::Cls => v1::Pooling::Cls,
        }
        .into(),
        chat_template: info.chat_template,
        device: info.device.clone(),
        memory_bandwidth: info.memory_bandwidth,
    }
}

pub(super) fn limits(limits: &Limits) -> v1::Limits {
    v1::Limits {
        weight: limits.weight,
        max_concurrent: limits.max_concurrent.map(|most| most as u64),
        max_queued: limits.max_queued as u64,
        kv_tokens: limits.kv_tokens.map(|tokens| tokens as u64),
        tokens_per_minute: limits.tokens_per_minute,
        request_timeout_ms: limits
            .request_timeout
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        memory: limits.memory as u64,
    }
}

pub(super) fn chunk(chunk: Chunk) -> v1::Chunk {
    let call =
        |call: realm::ToolCall| v1::ToolCall { id: call.id, name: call.name, arguments: call.arguments };
    v1::Chunk {
        text: chunk.text,
        reasoning: chunk.reasoning,
        tokens: chunk.tokens.into_iter().map(token).collect(),
        tool_calls: chunk.tool_calls.into_iter().map(call).collect(),
        warnings: chunk.warnings,
        finish: chunk.finish.map(finish),
    }
}

fn token(token: Token) -> v1::Token {
    v1::Token { id: token.id, logprob: token.logprob, top: logprobs(token.top) }
}

fn logprobs(top: Vec<TokenLogprob>) -> Vec<v1::TokenLogprob> {
    top.into_iter().map(|token| v1::TokenLogprob { id: token.id, logprob: token.logprob }).collect()
}

fn finish(finish: Finish) -> v1::Finish {
    let reason = match finish.reason {
        FinishReason::Stop => v1::FinishReason::Stop,
        FinishReason::Length => v1::FinishReason::Length,
        FinishReason::ToolCalls => v1::FinishReason::ToolCalls,
        // The library's reasons grow with the protocol's.
        _ => v1::FinishReason::Unspecified,
    };
    let (usage, timings) = (finish.usage, finish.timings);
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    v1::Finish {
        reason: reason.into(),
        usage: Some(v1::Usage {
            prompt_tokens: usage.prompt_tokens as u64,
            cached_tokens: usage.cached_tokens as u64,
            generated_tokens: usage.generated_tokens as u64,
            reasoning_tokens: usage.reasoning_tokens as u64,
            draft_tokens: usage.draft_tokens as u64,
            accepted_tokens: usage.accepted_tokens as u64,
        }),
        timings: Some(v1::Timings {
            queued: nanos(timings.queued),
            prefill: nanos(timings.prefill),
            decode: nanos(timings.decode),
        }),
    }
}

pub(super) fn scores(scores: Vec<Scored>) -> Vec<v1::Scored> {
    scores.into_iter().map(|score| v1::Scored { next: score.next, top: logprobs(score.top) }).collect()
}

/// Returns a number of the protocol as one of this machine.
pub(super) fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
