//! `POST /v1/responses`.

use realm::Completion;
use serde_json::{Map, Value, json};

use super::items;
use super::output::{self, Items};
use crate::ApiError;
use crate::fields::Fields;
use crate::openai::{ChatRequest, Head};

/// A conversation, and options for its answer.
#[derive(Debug, Clone)]
pub struct ResponsesRequest {
    /// The same request in the form of chat completions.
    pub chat: ChatRequest,
    /// The fields of the answer that repeat the request.
    echo: Map<String, Value>,
}

/// Fields that need a state, or work that goes on without the caller, with the values that ask for nothing.
const NOT_HONOURED: [(&str, Option<Value>, &str); 6] = [
    ("previous_response_id", None, "this server keeps no responses; send the whole conversation as `input`"),
    ("conversation", None, "this server keeps no conversations; send the whole conversation as `input`"),
    ("background", Some(Value::Bool(false)), "this server keeps no responses; stream the answer instead"),
    ("prompt", None, "this server keeps no prompts; send `instructions` and `input`"),
    ("max_tool_calls", None, "tools run on the caller's side, where they can be counted"),
    ("context_management", None, "nothing is cut from a conversation here; shorten it before"),
];

/// A part of an answer that callers ask for to send it back; thoughts are sent back as they are here.
const INCLUDED: [&str; 1] = ["reasoning.encrypted_content"];

impl ResponsesRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Status 400 with the name of a field whose value is invalid or can't be honored.
    pub fn read(body: Map<String, Value>) -> Result<Self, ApiError> {
        let mut ignored = Vec::new();
        let mut fields = Fields::new(body, "");
        for (key, nothing, why) in &NOT_HONOURED {
            let given = fields.take(key);
            if given.is_some_and(|value| Some(&value) != nothing.as_ref()) {
                return Err(ApiError::unsupported(*key, format!("{key} is not supported: {why}")));
            }
        }
        // Stored or not, an answer is given once; clients that leave the field out get no error.
        let store = fields.flag("store")?.unwrap_or(false);
        if store {
            return Err(ApiError::unsupported(
                "store",
                "store is not supported: this server keeps no responses; leave it out",
            ));
        }
        if fields.text("truncation")?.is_some_and(|how| how != "disabled") {
            let why = "truncation can only be `disabled`: nothing is cut from a conversation here";
            return Err(ApiError::unsupported("truncation", why));
        }
        let include = fields.list("include")?.unwrap_or_default();
        if let Some(part) = include.iter().find(|part| !INCLUDED.iter().any(|known| *part == known)) {
            return Err(ApiError::unsupported(
                "include",
                format!("include has {part}, which answers here don't have"),
            ));
        }
        let mut echo = Map::new();
        let mut chat = Map::new();
        let instructions = fields.text("instructions")?;
        let messages = items::messages(instructions.as_deref(), fields.take("input"), &mut ignored)?;
        chat.insert("messages".into(), messages.into());
        echo.insert("instructions".into(), instructions.into());
        let most = fields.count("max_output_tokens", 1)?;
        if let Some(most) = most {
            chat.insert("max_tokens".into(), most.into());
        }
        echo.insert("max_output_tokens".into(), most.into());
        tools(&mut fields, &mut chat, &mut echo)?;
        text(&mut fields, &mut chat, &mut echo, &mut ignored)?;
        reasoning(&mut fields, &mut chat, &mut echo, &mut ignored)?;
        if fields.count("top_logprobs", 0)?.is_some_and(|top| top > 0) {
            let why = "top_logprobs is not supported in responses; chat completions have log-probabilities";
            return Err(ApiError::unsupported("top_logprobs", why));
        }
        if let Some(options) = fields.object("stream_options")? {
            let mut options = Fields::new(options, "stream_options.");
            options.skip(&["include_obfuscation"]);
            options.rest(&mut ignored);
        }
        let parallel = fields.flag("parallel_tool_calls")?.unwrap_or(true);
        chat.insert("parallel_tool_calls".into(), parallel.into());
        echo.insert("parallel_tool_calls".into(), parallel.into());
        for (key, default) in [("temperature", json!(1.0)), ("top_p", json!(1.0)), ("metadata", json!({}))] {
            let given = fields.take(key);
            chat.extend(given.clone().map(|value| (key.to_owned(), value)));
            echo.insert(key.into(), given.unwrap_or(default));
        }
        // What remains has the names of chat completions, or is unknown there too.
        for (key, value) in fields.into_rest() {
            if chat.contains_key(&key) {
                ignored.push(key);
            } else {
                chat.insert(key, value);
            }
        }
        let mut chat = ChatRequest::read(chat).map_err(renamed)?;
        if chat.n > 1 {
            return Err(ApiError::unsupported("n", "n is not supported: a response is one answer"));
        }
        chat.ignored.splice(..0, ignored);
        Ok(Self { chat, echo })
    }

    /// Returns a head for the answer.
    pub fn head(&self) -> Head {
        Head::new("resp_", &*self.chat.model)
    }

    /// Returns the answer.
    pub fn answer(&self, completion: Completion) -> Value {
        let most = if self.chat.parallel_tool_calls { usize::MAX } else { 1 };
        let mut items = Items::new();
        if !completion.reasoning.is_empty() {
            items.reasoning(&completion.reasoning);
        }
        if !completion.text.is_empty() || completion.tool_calls.is_empty() {
            items.message(&completion.text);
        }
        for call in completion.tool_calls.iter().take(most) {
            items.call(call);
        }
        // One chunk says how many of its tokens are thoughts only for the whole.
        let thinking = if completion.text.is_empty() && completion.tool_calls.is_empty() {
            completion.usage.generated_tokens
        } else {
            0
        };
        let usage = output::usage(&completion.usage, thinking);
        let status = output::status(completion.finish_reason);
        self.object(&self.head(), status, items.into_list(), Some(usage))
    }

    /// Returns the object of an answer.
    pub(super) fn object(
        &self,
        head: &Head,
        status: &str,
        output: Vec<Value>,
        usage: Option<Value>,
    ) -> Value {
        let incomplete = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        let mut object = Map::new();
        for (key, value) in [
            ("id", json!(head.id)),
            ("object", json!("response")),
            ("created_at", json!(head.created)),
            ("status", json!(status)),
            ("background", json!(false)),
            ("error", Value::Null),
            ("incomplete_details", json!(incomplete)),
            ("model", json!(head.model)),
            ("output", Value::Array(output)),
            ("previous_response_id", Value::Null),
            ("store", json!(false)),
            ("truncation", json!("disabled")),
        ] {
            object.insert(key.to_owned(), value);
        }
        if let Some(usage) = usage {
            object.insert("usage".to_owned(), usage);
        }
        object.extend(self.echo.clone());
        object.into()
    }
}

/// Reads functions, which have no object of their own here.
fn tools(
    fields: &mut Fields,
    chat: &mut Map<String, Value>,
    echo: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let tools = fields.list("tools")?.unwrap_or_default();
    let mut functions = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let path = format!("tools[{index}]");
        let kind = tool["type"].as_str().unwrap_or_default();
        if kind != "function" {
            let why = format!(
                "{path} is of type `{kind}`, which runs on OpenAI's servers; only `function` is supported"
            );
            return Err(ApiError::unsupported(path, why));
        }
        let mut function = tool.as_object().cloned().unwrap_or_default();
        function.shift_remove("type");
        functions.push(json!({"type": "function", "function": function}));
    }
    let choice = fields.take("tool_choice");
    if let Some(choice) = &choice {
        let choice = match (choice["type"].as_str(), choice["name"].as_str()) {
            (Some("function"), Some(name)) => json!({"type": "function", "function": {"name": name}}),
            (Some("allowed_tools"), _) => {
                let flat = choice["tools"].as_array().cloned().unwrap_or_default();
                let nested = |tool: &Value| json!({"type": "function", "function": {"name": tool["name"]}});
                let tools: Vec<_> = flat.iter().map(nested).collect();
                json!({"type": "allowed_tools", "allowed_tools": {"mode": choice["mode"], "tools": tools}})
            }
            _ => choice.clone(),
        };
        chat.insert("tool_choice".into(), choice);
    }
    chat.insert("tools".into(), functions.into());
    let strict = |mut tool: Value| {
        // Both are required in answers.
        for key in ["strict", "parameters"] {
            if tool.get(key).is_none() {
                tool[key] = Value::Null;
            }
        }
        tool
    };
    echo.insert("tools".into(), tools.into_iter().map(strict).collect());
    echo.insert("tool_choice".into(), choice.unwrap_or_else(|| "auto".into()));
    Ok(())
}

/// Reads `text`: the form of the answer.
fn text(
    fields: &mut Fields,
    chat: &mut Map<String, Value>,
    echo: &mut Map<String, Value>,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    let given = fields.object("text")?.unwrap_or_default();
    let mut shown = given.clone();
    shown.entry("format").or_insert_with(|| json!({"type": "text"}));
    echo.insert("text".into(), shown.into());
    let mut text = Fields::new(given, "text.");
    if let Some(verbosity) = text.text("verbosity")? {
        chat.insert("verbosity".into(), verbosity.into());
    }
    if let Some(mut format) = text.object("format")? {
        if format.get("type").is_some_and(|kind| kind == "json_schema") {
            format.shift_remove("type");
            format = Map::from_iter([
                ("type".to_owned(), "json_schema".into()),
                ("json_schema".to_owned(), format.into()),
            ]);
        }
        chat.insert("response_format".into(), format.into());
    }
    text.rest(ignored);
    Ok(())
}

fn reasoning(
    fields: &mut Fields,
    chat: &mut Map<String, Value>,
    echo: &mut Map<String, Value>,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    let given = fields.object("reasoning")?.unwrap_or_default();
    let mut reasoning = Fields::new(given, "reasoning.");
    let effort = reasoning.text("effort")?;
    if let Some(effort) = &effort {
        chat.insert("reasoning_effort".into(), effort.as_str().into());
    }
    // The thought itself is given, which is more than its summary.
    reasoning.skip(&["summary", "generate_summary"]);
    reasoning.rest(ignored);
    echo.insert("reasoning".into(), json!({"effort": effort, "summary": null}));
    Ok(())
}

/// Names the parameter at fault as Responses call it.
fn renamed(error: ApiError) -> ApiError {
    let name = match error.parameter() {
        Some("max_tokens") => "max_output_tokens",
        Some("response_format") => "text.format",
        Some("reasoning_effort") => "reasoning.effort",
        Some("verbosity") => "text.verbosity",
        Some(name) if name.starts_with("messages") => "input",
        _ => return error,
    };
    error.param(name)
}
