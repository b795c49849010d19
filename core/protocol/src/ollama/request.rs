//! `POST /api/chat` and `POST /api/generate`.

use realm::{Grammar, Message, Model, Prompt, Request, Sampling};
use serde_json::{Map, Value, json};

use super::plain_name;
use crate::ApiError;
use crate::fields::Fields;

/// A prompt or a conversation, and options for its answer.
#[derive(Debug, Clone)]
pub struct OllamaRequest {
    /// The model's name.
    pub model: String,
    /// The request.
    pub request: Request,
    /// True if the answer is streamed, which is ollama's default.
    pub stream: bool,
    /// True for `/api/chat`, whose answers have messages.
    pub chat: bool,
    /// The context that the caller wants, in tokens.
    pub num_ctx: Option<usize>,
    /// Unknown fields, and those without effect.
    pub ignored: Vec<String>,
}

/// Options of ollama's that say how to load and run a model, which changes no text.
const WITHOUT_EFFECT: [&str; 8] =
    ["num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "num_thread", "numa", "low_vram"];

/// Options of ollama's that Realm can't honor, with the values that ask for nothing.
const NOT_HONOURED: [(&str, f64); 6] = [
    ("mirostat", 0.0),
    ("mirostat_eta", 0.1),
    ("mirostat_tau", 5.0),
    ("tfs_z", 1.0),
    ("num_keep", 0.0),
    ("penalize_newline", 0.0),
];

impl OllamaRequest {
    /// Reads a body of `/api/chat`.
    ///
    /// # Errors
    /// Status 400 with the name of a field whose value is invalid or can't be honored.
    pub fn chat(body: Map<String, Value>) -> Result<Self, ApiError> {
        Self::read(body, |fields, ignored| {
            let said = fields.list("messages")?.unwrap_or_default();
            if said.is_empty() {
                return Err(ApiError::invalid("messages", "messages needs at least one message"));
            }
            let each = |(index, value)| message(value, &format!("messages[{index}]"), ignored);
            let messages = said.into_iter().enumerate().map(each).collect::<Result<_, _>>()?;
            let mut request = Request::new(Prompt::Chat(messages));
            request.tools = fields.list("tools")?.unwrap_or_default();
            if let Some(at) =
                request.tools.iter().position(|tool| tool["function"]["name"].as_str().is_none())
            {
                let path = format!("tools[{at}]");
                return Err(ApiError::invalid(&*path, format!("{path} needs a function with a name")));
            }
            Ok((request, true))
        })
    }

    /// Reads a body of `/api/generate`.
    ///
    /// # Errors
    /// Same as [`chat`](Self::chat).
    pub fn generate(body: Map<String, Value>) -> Result<Self, ApiError> {
        Self::read(body, |fields, _| {
            let prompt = fields.text("prompt")?.unwrap_or_default();
            let system = fields.text("system")?.filter(|text| !text.is_empty());
            for (key, why) in [
                ("suffix", "texts are not filled in"),
                ("context", "conversations are messages: use /api/chat"),
                ("template", "give the server a `chat-template` instead"),
            ] {
                let given = fields.take(key);
                let empty = |value: &Value| value == "" || value.as_array().is_some_and(Vec::is_empty);
                if given.is_some_and(|value| !empty(&value)) {
                    return Err(ApiError::unsupported(key, format!("{key} is not supported: {why}")));
                }
            }
            images(fields, "images")?;
            let request = if fields.flag("raw")?.unwrap_or(false) {
                if system.is_some() {
                    return Err(ApiError::invalid(
                        "system",
                        "a raw prompt has no system message; leave system or raw out",
                    ));
                }
                Request::text(prompt)
            } else {
                let system = system.map(Message::system);
                Request::chat(system.into_iter().chain([Message::user(prompt)]))
            };
            Ok((request, false))
        })
    }

    fn read(
        body: Map<String, Value>,
        prompt: impl FnOnce(&mut Fields, &mut Vec<String>) -> Result<(Request, bool), ApiError>,
    ) -> Result<Self, ApiError> {
        let mut ignored = Vec::new();
        let mut fields = Fields::new(body, "");
        let model = fields.text("model")?.ok_or_else(|| {
            ApiError::invalid("model", "model is missing; name one, GET /api/tags lists those that are here")
        })?;
        let (mut request, chat) = prompt(&mut fields, &mut ignored)?;
        match fields.take("think") {
            None => {}
            Some(Value::Bool(think)) => request.enable_thinking = Some(think),
            Some(Value::String(effort)) => {
                request.enable_thinking = Some(true);
                request.reasoning_effort = Some(effort);
            }
            Some(_) => return Err(fields.invalid("think", "true, false, or an effort such as `low`")),
        }
        match fields.take("format") {
            None => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::String(text)) if text == "json" => request.grammar = Some(Grammar::JsonObject),
            Some(schema @ Value::Object(_)) => request.grammar = Some(Grammar::JsonSchema(schema)),
            Some(_) => return Err(fields.invalid("format", "`json` or a JSON schema")),
        }
        let stream = fields.flag("stream")?.unwrap_or(true);
        let mut options = Fields::new(fields.object("options")?.unwrap_or_default(), "options.");
        let num_ctx = read_options(&mut options, &mut request)?;
        options.rest(&mut ignored);
        // Models stay loaded.
        fields.skip(&["keep_alive", "truncate", "shift", "_debug_render_only"]);
        fields.rest(&mut ignored);
        let model = plain_name(&model).to_owned();
        Ok(Self { model, request, stream, chat, num_ctx, ignored })
    }

    /// Refuses a context that the model does not have, so that nothing is cut silently.
    ///
    /// # Errors
    /// Status 400.
    pub fn check_context(&self, model: &Model) -> Result<(), ApiError> {
        let most = model.info().context_length;
        match self.num_ctx.filter(|wanted| *wanted > most) {
            None => Ok(()),
            Some(wanted) => {
                let why =
                    format!("options.num_ctx is {wanted}, and the model is served with a context of {most}");
                Err(ApiError::unsupported("options.num_ctx", why))
            }
        }
    }
}

/// Reads `options`. Those that a request does not set have ollama's defaults.
fn read_options(options: &mut Fields, request: &mut Request) -> Result<Option<usize>, ApiError> {
    let mut sampling = Sampling {
        temperature: 0.8,
        top_p: 0.9,
        top_k: 40,
        min_p: 0.0,
        repetition_penalty: 1.1,
        ..Sampling::default()
    };
    sampling.repetition_window = 64;
    for (key, place) in [
        ("temperature", &mut sampling.temperature),
        ("top_p", &mut sampling.top_p),
        ("min_p", &mut sampling.min_p),
        ("typical_p", &mut sampling.typical_p),
        ("repeat_penalty", &mut sampling.repetition_penalty),
        ("presence_penalty", &mut sampling.presence_penalty),
        ("frequency_penalty", &mut sampling.frequency_penalty),
    ] {
        if let Some(number) = options.number(key)? {
            *place = number;
        }
    }
    sampling.top_k = options.count("top_k", 0)?.unwrap_or(sampling.top_k);
    match options.integer("repeat_last_n")? {
        None => {}
        // The whole context.
        Some(-1) => sampling.repetition_window = usize::MAX,
        Some(n) => {
            let wrong = || options.invalid("repeat_last_n", "an integer of at least −1");
            sampling.repetition_window = usize::try_from(n).map_err(|_| wrong())?;
        }
    }
    if let Some(seed) = options.integer("seed")? {
        // 0 and −1 ask for another text each time.
        sampling.seed = u64::try_from(seed).ok().filter(|seed| *seed != 0);
    }
    match options.integer("num_predict")? {
        None => {}
        // −1 has no end, and −2 fills the context.
        Some(-1 | -2) => request.max_tokens = None,
        Some(n) => match usize::try_from(n) {
            Ok(n) if n > 0 => request.max_tokens = Some(n),
            _ => return Err(options.invalid("num_predict", "an integer of at least 1, or −1 for no limit")),
        },
    }
    let stops = match options.take("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(list)) => {
            let texts: Option<Vec<_>> = list.iter().map(|stop| stop.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(|| options.invalid("stop", "an array of strings"))?
        }
        Some(_) => return Err(options.invalid("stop", "an array of strings")),
    };
    request.stop = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
    options.skip(&WITHOUT_EFFECT);
    for (key, neutral) in NOT_HONOURED {
        let given = options.take(key);
        if given.is_some_and(|value| value.as_f64() != Some(neutral) && value != false) {
            let name = options.name(key);
            return Err(ApiError::unsupported(&*name, format!("{name} is not supported; leave it out")));
        }
    }
    request.sampling = sampling;
    options.count("num_ctx", 1)
}

fn images(fields: &mut Fields, key: &str) -> Result<(), ApiError> {
    match fields.list(key)? {
        Some(list) if !list.is_empty() => {
            let name = fields.name(key);
            Err(ApiError::unsupported(&*name, format!("{name}: models here read text")))
        }
        _ => Ok(()),
    }
}

/// Reads a message in the form of templates.
fn message(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Message, ApiError> {
    let mut fields = Fields::of(value, path)?;
    let role = fields.text("role")?.unwrap_or_default();
    if !matches!(role.as_str(), "system" | "user" | "assistant" | "tool") {
        return Err(fields.invalid("role", "`system`, `user`, `assistant` or `tool`"));
    }
    images(&mut fields, "images")?;
    let content = fields.text("content")?.unwrap_or_default();
    let mut message =
        Map::from_iter([("role".to_owned(), role.into()), ("content".to_owned(), content.into())]);
    for (key, name) in
        [("thinking", "reasoning_content"), ("tool_name", "name"), ("tool_call_id", "tool_call_id")]
    {
        if let Some(text) = fields.text(key)? {
            message.insert(name.to_owned(), text.into());
        }
    }
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    if !calls.is_empty() {
        let call = |call: &Value| json!({"type": "function", "function": call["function"]});
        message.insert("tool_calls".to_owned(), calls.iter().map(call).collect());
    }
    fields.rest(ignored);
    Ok(Message::from(Value::Object(message)))
}
