//! Fields that conversations and texts have in common.

use std::collections::HashMap;

use realm::{Prompt, Request, Sampling, SharedPrefix, Speculation};
use serde_json::{Map, Value};

use super::{MAX_CHOICES, guide};
use crate::fields::Fields;
use crate::{ApiError, Extras};

/// The options of a request for all its choices.
pub(super) struct Options {
    pub(super) model: String,
    /// The request without prompt, tools and `logprobs`.
    pub(super) request: Request,
    /// Choices for each prompt.
    pub(super) n: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) service_tier: Option<&'static str>,
    pub(super) extras: Extras,
}

/// Fields about the caller and the purpose, which change no text.
const WITHOUT_EFFECT: [&str; 10] = [
    "metadata",
    "prediction",
    "priority",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "cache_prompt",
    "user",
];

/// Fields of OpenAI's, vLLM's and llama.cpp's that Realm can't honor, with values that ask for nothing.
const NOT_HONOURED: [(&str, &[Value]); 29] = [
    ("allowed_token_ids", &[]),
    ("audio", &[]),
    ("bad_words", &[]),
    ("dry_multiplier", &[]),
    ("dynatemp_range", &[]),
    ("include_stop_str_in_output", &[Value::Bool(false)]),
    ("length_penalty", &[]),
    ("logits_processors", &[]),
    ("min_tokens", &[]),
    ("mirostat", &[]),
    ("mm_processor_kwargs", &[]),
    ("moderation", &[]),
    ("n_keep", &[]),
    ("prompt_logprobs", &[]),
    ("samplers", &[]),
    ("skip_special_tokens", &[Value::Bool(true)]),
    ("slot_id", &[]),
    ("spaces_between_special_tokens", &[Value::Bool(true)]),
    ("stop_token_ids", &[]),
    ("store", &[Value::Bool(false)]),
    ("suffix", &[]),
    ("tfs_z", &[]),
    ("thinking_budget_tokens", &[]),
    ("top_a", &[]),
    ("top_n_sigma", &[]),
    ("truncate_prompt_tokens", &[]),
    ("use_beam_search", &[Value::Bool(false)]),
    ("web_search_options", &[]),
    ("xtc_probability", &[]),
];

/// Returns whether the value of a field that is not honored asks for nothing: an empty list or text, 0, 1 for
/// `tfs_z` and `length_penalty`, and −1 where llama.cpp uses that for "off".
fn asks_for_nothing(key: &str, value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(number) => {
            let number = number.as_f64();
            let neutral: &[f64] = match key {
                "tfs_z" | "length_penalty" => &[1.0],
                "top_n_sigma" | "slot_id" | "thinking_budget_tokens" => &[-1.0],
                _ => &[0.0],
            };
            number.is_some_and(|number| neutral.contains(&number))
        }
        _ => false,
    }
}

pub(super) fn refuse(fields: &mut Fields, key: &str, allowed: &[Value]) -> Result<(), ApiError> {
    match fields.take(key) {
        Some(value) if !allowed.contains(&value) && !asks_for_nothing(key, &value) => {
            let name = fields.name(key);
            let message = format!("{name} is not supported; leave it out");
            Err(ApiError::unsupported(name, message))
        }
        _ => Ok(()),
    }
}

impl Options {
    pub(super) fn read(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Self, ApiError> {
        let model = fields.text("model")?.ok_or_else(|| {
            ApiError::invalid("model", "model is missing; name one, GET /v1/models lists those that are here")
        })?;
        let mut request = Request::new(Prompt::Tokens(Vec::new()));
        request.sampling = sampling(fields)?;
        request.stop = stop(fields)?;
        request.ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
        guide::read(fields, &mut request)?;
        extensions(fields, &mut request)?;
        let extras = own(fields, &mut request, ignored)?;
        let n = fields.count("n", 1)?.unwrap_or(1);
        if n > MAX_CHOICES {
            return Err(fields.invalid("n", &format!("at most {MAX_CHOICES}")));
        }
        let best_of = fields.count("best_of", 1)?.unwrap_or(n);
        if best_of != n {
            let message = format!("best_of {best_of} is not supported beside n {n}; leave it out");
            return Err(ApiError::unsupported("best_of", message));
        }
        let stream = fields.flag("stream")?.unwrap_or(false);
        let mut include_usage = false;
        if let Some(options) = fields.object("stream_options")? {
            let mut options = Fields::new(options, "stream_options.");
            include_usage = options.flag("include_usage")?.unwrap_or(false);
            // Padding hides the sizes of packets from observers. There are no packets here.
            options.skip(&["include_obfuscation"]);
            options.rest(ignored);
        }
        let service_tier = fields.text("service_tier")?.map(|_| "default");
        fields.skip(&WITHOUT_EFFECT);
        for (key, allowed) in &NOT_HONOURED {
            refuse(fields, key, allowed)?;
        }
        Ok(Self { model, request, n, stream, include_usage, service_tier, extras })
    }
}

/// Reads sampling options. OpenAI's defaults differ from Realm's: they leave the distribution unchanged.
fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let mut sampling = Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, ..Sampling::default() };
    for (key, place) in [
        ("temperature", &mut sampling.temperature),
        ("top_p", &mut sampling.top_p),
        ("min_p", &mut sampling.min_p),
        ("typical_p", &mut sampling.typical_p),
        ("frequency_penalty", &mut sampling.frequency_penalty),
        ("presence_penalty", &mut sampling.presence_penalty),
        ("repetition_penalty", &mut sampling.repetition_penalty),
    ] {
        if let Some(number) = fields.number(key)? {
            *place = number;
        }
    }
    // llama.cpp's name for the field.
    if let Some(number) = fields.number("repeat_penalty")? {
        sampling.repetition_penalty = number;
    }
    // vLLM's −1 means all tokens.
    sampling.top_k = match fields.integer("top_k")? {
        None | Some(-1) => 0,
        Some(k) => usize::try_from(k).map_err(|_| fields.invalid("top_k", "an integer of at least −1"))?,
    };
    for key in ["repeat_last_n", "repetition_window"] {
        if let Some(window) = fields.count(key, 0)? {
            sampling.repetition_window = window;
        }
    }
    // Clients send any integer of 64 bits, −1 among them.
    if let Some(seed) = fields.integer("seed")? {
        let bits = i64::try_from(seed).map(i64::cast_unsigned).or_else(|_| u64::try_from(seed));
        sampling.seed = Some(bits.map_err(|_| fields.invalid("seed", "an integer of 64 bits"))?);
    }
    sampling.logit_bias = logit_bias(fields)?;
    if let Some(tokens) = fields.list("banned_tokens")? {
        let ids = tokens.iter().map(|token| token.as_u64().and_then(|id| u32::try_from(id).ok()));
        let ids: Option<Vec<u32>> = ids.collect();
        sampling.banned_tokens =
            ids.ok_or_else(|| fields.invalid("banned_tokens", "an array of token ids"))?;
    }
    Ok(sampling)
}

fn logit_bias(fields: &mut Fields) -> Result<HashMap<u32, f32>, ApiError> {
    let map = fields.object("logit_bias")?.unwrap_or_default();
    let read = |(token, bias): (&String, &Value)| Some((token.parse().ok()?, bias.as_f64()? as f32));
    let bias: Option<HashMap<u32, f32>> = map.iter().map(read).collect();
    let what = "an object from token ids to numbers, such as {\"50256\": -100}";
    bias.ok_or_else(|| fields.invalid("logit_bias", what))
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let wrong =
        |fields: &Fields| fields.invalid("stop", "a string or an array of strings, none of them empty");
    let texts = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => {
            let texts = list.into_iter().map(|value| match value {
                Value::String(text) => Ok(text),
                _ => Err(wrong(fields)),
            });
            texts.collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong(fields)),
    };
    if texts.iter().any(String::is_empty) { Err(wrong(fields)) } else { Ok(texts) }
}

/// Reads the object `realm`: Realm's own fields, and the names of a program and an adapter.
pub(crate) fn own(
    fields: &mut Fields,
    request: &mut Request,
    ignored: &mut Vec<String>,
) -> Result<Extras, ApiError> {
    let Some(own) = fields.object("realm")? else { return Ok(Extras::default()) };
    let mut own = Fields::new(own, "realm.");
    guide::own(&mut own, request)?;
    extensions(&mut own, request)?;
    let program = own.text("program")?;
    let (adapter, scale) = (own.text("adapter")?, own.number("adapter_scale")?);
    if adapter.is_none() && scale.is_some() {
        return Err(own.invalid("adapter_scale", "left out without `adapter`, which names what it scales"));
    }
    own.rest(ignored);
    Ok(Extras { program, adapter: adapter.map(|name| (name, scale.unwrap_or(1.0))) })
}

/// Reads Realm's own fields beyond the specification.
fn extensions(fields: &mut Fields, request: &mut Request) -> Result<(), ApiError> {
    if let Some(input) = fields.take("input") {
        request.input = input;
    }
    if let Some(prefix) = fields.take("shared_prefix") {
        let tokens = || prefix.as_u64().and_then(|tokens| usize::try_from(tokens).ok());
        request.shared_prefix = match (prefix.as_str(), tokens()) {
            (Some("system"), _) => SharedPrefix::System,
            (_, Some(tokens)) => SharedPrefix::Tokens(tokens),
            _ => return Err(fields.invalid("shared_prefix", "\"system\" or a number of tokens")),
        };
    }
    if let Some(name) = fields.text("speculation")? {
        let parsed = name.parse::<Speculation>();
        request.speculation =
            Some(parsed.map_err(|error| {
                ApiError::from(realm::Error::from(error)).param(fields.name("speculation"))
            })?);
    }
    Ok(())
}

/// Reads variables for a chat template.
pub(super) fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut variables = Map::new();
    // A template that has no such variable ignores it.
    if let Some(effort) = fields.text("reasoning_effort")? {
        if effort == "none" {
            variables.insert("enable_thinking".into(), false.into());
        }
        variables.insert("reasoning_effort".into(), effort.into());
    }
    if let Some(verbosity) = fields.text("verbosity")? {
        variables.insert("verbosity".into(), verbosity.into());
    }
    for key in ["chat_template_kwargs", "template_variables"] {
        variables.extend(fields.object(key)?.unwrap_or_default());
    }
    Ok(variables)
}
