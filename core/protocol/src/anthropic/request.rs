//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use realm::{Completion, Message, Prompt, Request, Sampling, Tokenizer, ToolChoice};
use serde_json::{Map, Value, json};

use super::types::{Answer, Block, Usage};
use super::{StopFinder, content, stop_reason};
use crate::fields::Fields;
use crate::openai::Head;
use crate::{ApiError, Extras};

/// A conversation, and options for its answer.
#[derive(Debug, Clone)]
pub struct MessagesRequest {
    /// The model's name.
    pub model: String,
    /// The request.
    pub request: Request,
    /// True if the answer is streamed.
    pub stream: bool,
    /// True if the answer may have more than one call; otherwise further calls are left out.
    pub parallel_tool_calls: bool,
    /// Unknown fields, and those without effect.
    pub ignored: Vec<String>,
    /// The program and the adapter that it names.
    pub extras: Extras,
}

/// Fields of Anthropic's that Realm can't honor.
const NOT_HONOURED: [&str; 4] = ["container", "context_management", "mcp_servers", "fallbacks"];

/// Fields about the caller and the purpose, which change no text.
const WITHOUT_EFFECT: [&str; 7] = [
    "metadata",
    "service_tier",
    "inference_geo",
    "cache_control",
    "diagnostics",
    "user_profile_id",
    "workspace_id",
];

impl MessagesRequest {
    /// Reads a body. `max_tokens` may be missing if the answer is not wanted, as for counting tokens.
    ///
    /// # Errors
    /// Status 400 with the name of a field whose value is invalid or can't be honored.
    pub fn read(body: Map<String, Value>, counts: bool) -> Result<Self, ApiError> {
        let mut ignored = Vec::new();
        let mut fields = Fields::new(body, "");
        let model = fields.text("model")?.ok_or_else(|| {
            ApiError::invalid("model", "model is missing; name one, GET /v1/models lists those that are here")
        })?;
        let mut messages = content::system(fields.take("system"), &mut ignored)?;
        let said = fields.list("messages")?.unwrap_or_default();
        if said.is_empty() {
            return Err(ApiError::invalid("messages", "messages needs at least one message"));
        }
        for (index, message) in said.into_iter().enumerate() {
            content::message(message, &format!("messages[{index}]"), &mut messages, &mut ignored)?;
        }
        // An answer that the caller has begun.
        let begun = messages.last().is_some_and(|message| message["role"] == "assistant");
        let messages = messages.into_iter().map(Message::from).collect();
        let mut request = Request::new(Prompt::Chat(messages));
        request.continue_final_message = begun;
        request.max_tokens = fields.count("max_tokens", 1)?;
        if request.max_tokens.is_none() && !counts {
            return Err(ApiError::invalid(
                "max_tokens",
                "max_tokens is missing; it is the most tokens of the answer",
            ));
        }
        request.sampling = sampling(&mut fields)?;
        let stops = fields.list("stop_sequences")?.unwrap_or_default();
        let stops: Option<Vec<String>> = stops.iter().map(|stop| stop.as_str().map(str::to_owned)).collect();
        request.stop = stops
            .filter(|stops| !stops.iter().any(String::is_empty))
            .ok_or_else(|| fields.invalid("stop_sequences", "an array of strings, none of them empty"))?;
        let parallel_tool_calls = tools(&mut fields, &mut request, &mut ignored)?;
        thinking(&mut fields, &mut request, &mut ignored)?;
        output(&mut fields, &mut request, &mut ignored)?;
        let stream = fields.flag("stream")?.unwrap_or(false);
        fields.skip(&WITHOUT_EFFECT);
        for key in NOT_HONOURED {
            if fields.take(key).is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty())) {
                return Err(ApiError::unsupported(key, format!("{key} is not supported; leave it out")));
            }
        }
        let extras = crate::openai::own(&mut fields, &mut request, &mut ignored)?;
        fields.rest(&mut ignored);
        Ok(Self { model, request, stream, parallel_tool_calls, ignored, extras })
    }

    /// Returns the answer.
    pub fn answer(&self, completion: Completion, tokenizer: &Tokenizer) -> Answer {
        let mut stops = StopFinder::new(&self.request.stop);
        stops.read(&completion.tokens, tokenizer);
        let stop = stops.found(completion.finish_reason);
        let most = if self.parallel_tool_calls { usize::MAX } else { 1 };
        let mut content = Vec::new();
        if !completion.reasoning.is_empty() {
            content.push(Block::Thinking { thinking: completion.reasoning, signature: String::new() });
        }
        if !completion.text.is_empty() {
            content.push(Block::Text { text: completion.text });
        }
        content.extend(completion.tool_calls.into_iter().take(most).map(Block::call));
        Answer {
            id: self.head().id,
            kind: "message",
            role: "assistant",
            model: self.model.clone(),
            content,
            stop_reason: Some(stop_reason(completion.finish_reason, stop)),
            stop_sequence: stop.map(str::to_owned),
            usage: Usage::of(&completion.usage),
        }
    }

    /// Returns a head for the answer.
    pub fn head(&self) -> Head {
        Head::new("msg_", &*self.model)
    }
}

/// Reads sampling options. Anthropic's defaults leave the distribution unchanged.
fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        temperature: fields.number("temperature")?.unwrap_or(1.0),
        top_p: fields.number("top_p")?.unwrap_or(1.0),
        top_k: fields.count("top_k", 0)?.unwrap_or(0),
        min_p: 0.0,
        ..Sampling::default()
    })
}

/// Reads `tools` and `tool_choice`; returns whether there may be several calls at once.
fn tools(fields: &mut Fields, request: &mut Request, ignored: &mut Vec<String>) -> Result<bool, ApiError> {
    for (index, tool) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("tools[{index}]");
        let mut tool = Fields::of(tool, &path)?;
        let kind = tool.text("type")?.unwrap_or_else(|| "custom".to_owned());
        if kind != "custom" {
            let why = format!(
                "{path} is of type `{kind}`, which runs on Anthropic's servers; only `custom` is supported"
            );
            return Err(ApiError::unsupported(path, why));
        }
        let name = tool.text("name")?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| tool.invalid("name", "a string that is not empty"))?;
        let schema = tool.object("input_schema")?.unwrap_or_default();
        let mut function = json!({"name": name, "parameters": schema});
        if let Some(description) = tool.text("description")? {
            function["description"] = description.into();
        }
        tool.skip(&[
            "cache_control",
            "strict",
            "eager_input_streaming",
            "defer_loading",
            "allowed_callers",
            "input_examples",
        ]);
        tool.rest(ignored);
        request.tools.push(json!({"type": "function", "function": function}));
    }
    let Some(choice) = fields.take("tool_choice") else { return Ok(true) };
    let mut choice = Fields::of(choice, "tool_choice")?;
    let parallel = !choice.flag("disable_parallel_tool_use")?.unwrap_or(false);
    let kind = choice.text("type")?.unwrap_or_default();
    let named = |name: &str| request.tools.iter().any(|tool| tool["function"]["name"] == name);
    request.tool_choice = match kind.as_str() {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" if request.tools.is_empty() => {
            return Err(ApiError::invalid(
                "tool_choice",
                "tool_choice asks for a call, and `tools` is empty",
            ));
        }
        "any" => ToolChoice::Required,
        "tool" => match choice.text("name")?.filter(|name| named(name)) {
            Some(name) => ToolChoice::Function(name),
            None => return Err(choice.invalid("name", "the name of one of `tools`")),
        },
        _ => return Err(choice.invalid("type", "`auto`, `any`, `tool` or `none`")),
    };
    choice.rest(ignored);
    Ok(parallel)
}

fn thinking(fields: &mut Fields, request: &mut Request, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let Some(thinking) = fields.take("thinking") else { return Ok(()) };
    let mut thinking = Fields::of(thinking, "thinking")?;
    request.enable_thinking = match thinking.text("type")?.as_deref() {
        Some("enabled") => Some(true),
        Some("disabled") => Some(false),
        Some("adaptive") => None,
        _ => return Err(thinking.invalid("type", "`enabled`, `disabled` or `adaptive`")),
    };
    // A budget is a wish of the caller's, which no model here knows; `max_tokens` bounds the thought, too.
    thinking.rest(ignored);
    Ok(())
}

/// Reads the schema that guides the answer, and its effort.
fn output(fields: &mut Fields, request: &mut Request, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let mut format = fields.take("output_format");
    if let Some(config) = fields.take("output_config") {
        let mut config = Fields::of(config, "output_config")?;
        format = config.take("format").or(format);
        if let Some(effort) = config.text("effort")? {
            request.reasoning_effort = Some(effort);
        }
        config.rest(ignored);
    }
    let Some(format) = format else { return Ok(()) };
    let name = "output_config.format";
    if format["type"] != "json_schema" {
        let why = format!("{name} must be of type `json_schema`, with a `schema`");
        return Err(ApiError::invalid(name, why));
    }
    let guided = request.clone().response_format(&format);
    *request = guided.map_err(|error| ApiError::from(error).param(name))?;
    Ok(())
}
