//! Options, given as JSON.

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use realm::{
    CacheType, Grammar, LoadOptions, Message, Prompt, ReasoningFormat, Request, SharedPrefix, Speculation,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::{failed, invalid};

/// Parses options; the error names a missing or misspelled one.
pub(crate) fn read<'de, T: Deserialize<'de>>(json: &'de str) -> napi::Result<T> {
    let mut json = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, message) = (error.path().to_string(), error.inner().to_string());
        // Positions in the JSON text are omitted: the user never sees that text.
        let message = message.split(" at line ").next().unwrap_or(&message);
        if path == "." || message.starts_with("unknown field") {
            return invalid(message);
        }
        invalid(format!("{path}: {message}"))
    })
}

/// The options of a request, as in `ts/types.ts`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequestOptions {
    prompt: PromptOption,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    repetition_penalty: Option<f32>,
    repetition_window: Option<usize>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    /// JSON converts `-Infinity` to `null`.
    logit_bias: Option<HashMap<u32, Option<f32>>>,
    banned_tokens: Option<Vec<u32>>,
    seed: Option<u64>,
    stop: Option<OneOrMore>,
    logprobs: Option<usize>,
    response_format: Option<Value>,
    json_schema: Option<Value>,
    json: Option<bool>,
    regex: Option<String>,
    grammar: Option<String>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    template_variables: Option<Map<String, Value>>,
    add_generation_prompt: Option<bool>,
    continue_final_message: Option<bool>,
    special: Option<bool>,
    enable_thinking: Option<bool>,
    reasoning_effort: Option<String>,
    reasoning_format: Option<Named<ReasoningFormat>>,
    ignore_eos: Option<bool>,
    shared_prefix: Option<SharedPrefixOption>,
    adapter_scale: Option<f32>,
    input: Option<Value>,
    speculation: Option<Named<Speculation>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a prompt is a string, an array of messages, or an array of token ids")]
enum PromptOption {
    Text(String),
    Tokens(Vec<u32>),
    Messages(Vec<Map<String, Value>>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "stop is a string or an array of strings")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "sharedPrefix is 'system' or a number of tokens")]
enum SharedPrefixOption {
    System(System),
    Tokens(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum System {
    System,
}

/// A value of an enum, given by its name.
struct Named<T>(T);

impl<'de, T: FromStr> Deserialize<'de> for Named<T>
where
    realm::Error: From<T::Err>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        name.parse().map(Self).map_err(|error| D::Error::custom(realm::Error::from(error).message()))
    }
}

impl From<PromptOption> for Prompt {
    fn from(prompt: PromptOption) -> Self {
        match prompt {
            PromptOption::Text(text) => Self::Text(text),
            PromptOption::Tokens(tokens) => Self::Tokens(tokens),
            PromptOption::Messages(messages) => Self::Chat(
                messages.into_iter().map(|message| Message::from(Value::Object(message))).collect(),
            ),
        }
    }
}

/// Builds a request from JSON.
pub(crate) fn request(json: &str, adapter: Option<realm::Adapter>) -> napi::Result<Request> {
    let options: RequestOptions = read(json)?;
    let grammars = [
        options.response_format.as_ref().map(|_| "responseFormat"),
        options.json_schema.as_ref().map(|_| "jsonSchema"),
        options.json.filter(|&json| json).map(|_| "json"),
        options.regex.as_ref().map(|_| "regex"),
        options.grammar.as_ref().map(|_| "grammar"),
    ];
    let grammars: Vec<_> = grammars.into_iter().flatten().collect();
    if grammars.len() > 1 {
        return Err(invalid(format!("only one of {} can guide a text", grammars.join(", "))));
    }
    let mut request = Request::new(options.prompt.into());
    let sampling = &mut request.sampling;
    set(&mut sampling.temperature, options.temperature);
    set(&mut sampling.top_k, options.top_k);
    set(&mut sampling.top_p, options.top_p);
    set(&mut sampling.min_p, options.min_p);
    set(&mut sampling.typical_p, options.typical_p);
    set(&mut sampling.repetition_penalty, options.repetition_penalty);
    set(&mut sampling.repetition_window, options.repetition_window);
    set(&mut sampling.frequency_penalty, options.frequency_penalty);
    set(&mut sampling.presence_penalty, options.presence_penalty);
    set(&mut sampling.banned_tokens, options.banned_tokens);
    let bias = options.logit_bias.into_iter().flatten();
    sampling.logit_bias = bias.map(|(token, bias)| (token, bias.unwrap_or(f32::NEG_INFINITY))).collect();
    sampling.seed = options.seed;
    request.max_tokens = options.max_tokens;
    request.stop = match options.stop {
        None => Vec::new(),
        Some(OneOrMore::One(text)) => vec![text],
        Some(OneOrMore::More(texts)) => texts,
    };
    request.logprobs = options.logprobs;
    set(&mut request.tools, options.tools);
    if let Some(choice) = options.tool_choice {
        request.tool_choice = realm::ToolChoice::try_from(&choice).map_err(failed)?;
    }
    set(&mut request.template_variables, options.template_variables);
    request.add_generation_prompt = options.add_generation_prompt;
    set(&mut request.continue_final_message, options.continue_final_message);
    set(&mut request.special, options.special);
    request.enable_thinking = options.enable_thinking;
    request.reasoning_effort = options.reasoning_effort;
    set(&mut request.reasoning_format, options.reasoning_format.map(|named| named.0));
    set(&mut request.ignore_eos, options.ignore_eos);
    request.shared_prefix = match options.shared_prefix {
        None => SharedPrefix::Nothing,
        Some(SharedPrefixOption::System(System::System)) => SharedPrefix::System,
        Some(SharedPrefixOption::Tokens(tokens)) => SharedPrefix::Tokens(tokens),
    };
    request.adapter = adapter;
    set(&mut request.adapter_scale, options.adapter_scale);
    set(&mut request.input, options.input);
    request.speculation = options.speculation.map(|named| named.0);
    request.grammar = match (options.json_schema, options.regex, options.grammar) {
        (Some(schema), ..) => Some(Grammar::JsonSchema(schema)),
        (_, Some(regex), _) => Some(Grammar::Regex(regex)),
        (.., Some(lark)) => Some(Grammar::Lark(lark)),
        _ if options.json == Some(true) => Some(Grammar::JsonObject),
        _ => None,
    };
    match options.response_format {
        Some(format) => request.response_format(&format).map_err(failed),
        None => Ok(request),
    }
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

/// The options of loading a model, as in `ts/types.ts`.
// generated by ci/api: load options
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoadModelOptions {
    kv_tokens: Option<usize>,
    context_length: Option<usize>,
    kv_memory: Option<u64>,
    cache_type: Option<Named<CacheType>>,
    chat_template: Option<String>,
    speculation: Option<Named<Speculation>>,
    draft_model: Option<String>,
    max_queued: Option<usize>,
    gpu_layers: Option<usize>,
}

/// Builds load options from JSON.
pub(crate) fn load_options(json: &str) -> napi::Result<LoadOptions> {
    let options: LoadModelOptions = read(json)?;
    Ok(LoadOptions {
        kv_tokens: options.kv_tokens,
        context_length: options.context_length,
        kv_memory: options.kv_memory,
        cache_type: options.cache_type.map(|named| named.0),
        chat_template: options.chat_template,
        speculation: options.speculation.map(|named| named.0).unwrap_or_default(),
        draft_model: options.draft_model,
        max_queued: options.max_queued,
        gpu_layers: options.gpu_layers,
    })
}
// end of load options

/// The limits of a tenant, as in `ts/types.ts`; times are in milliseconds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitOptions {
    weight: Option<f32>,
    max_concurrent: Option<usize>,
    max_queued: Option<usize>,
    kv_tokens: Option<usize>,
    tokens_per_minute: Option<u32>,
    request_timeout: Option<f64>,
    memory: Option<usize>,
    models: Option<Vec<String>>,
    adapters: Option<Vec<String>>,
    program_memory: Option<usize>,
    program_cpu_time: Option<f64>,
    program_handles: Option<usize>,
    program_output: Option<usize>,
}

/// Builds limits from JSON; missing ones have their defaults.
pub(crate) fn limits(json: &str) -> napi::Result<realm::Limits> {
    let options: LimitOptions = read(json)?;
    let time = |milliseconds: f64| Duration::try_from_secs_f64(milliseconds / 1000.0).map_err(invalid);
    let mut limits = realm::Limits {
        max_concurrent: options.max_concurrent,
        kv_tokens: options.kv_tokens,
        tokens_per_minute: options.tokens_per_minute,
        request_timeout: options.request_timeout.map(time).transpose()?,
        models: options.models,
        adapters: options.adapters,
        ..realm::Limits::default()
    };
    set(&mut limits.weight, options.weight);
    set(&mut limits.max_queued, options.max_queued);
    set(&mut limits.memory, options.memory);
    set(&mut limits.program.memory, options.program_memory);
    set(&mut limits.program.cpu_time, options.program_cpu_time.map(time).transpose()?);
    set(&mut limits.program.handles, options.program_handles);
    set(&mut limits.program.output, options.program_output);
    Ok(limits)
}
