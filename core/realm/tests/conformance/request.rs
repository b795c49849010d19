//! Converts scenarios' requests into the API's.

use std::collections::HashMap;

use realm::{Adapter, Error, Grammar, Message, Prompt, Request, SharedPrefix, ToolChoice};
use serde_json::{Map, Value};

/// Builds a request. Unknown keys fail, so that no option of a scenario is ignored.
pub(crate) fn request(
    asked: &Value,
    adapter: impl Fn(&str) -> Result<Adapter, Error>,
) -> Result<Request, Error> {
    let mut request = Request::new(Prompt::Text(String::new()));
    for (key, value) in asked.as_object().expect("a request") {
        let float = || value.as_f64().expect("a number") as f32;
        let count = || value.as_u64().expect("a count") as usize;
        let text = || value.as_str().expect("a text").to_owned();
        let sampling = &mut request.sampling;
        match key.as_str() {
            "prompt" => request.prompt = Prompt::Text(text()),
            "messages" => {
                let messages = value.as_array().expect("messages");
                request.prompt = Prompt::Chat(messages.iter().cloned().map(Message::from).collect());
            }
            "tokens" => request.prompt = Prompt::Tokens(ids(value)),
            "tools" => request.tools = value.as_array().expect("tools").clone(),
            "tool_choice" => request.tool_choice = ToolChoice::try_from(value)?,
            "template_variables" => {
                request.template_variables = value.as_object().expect("variables").clone()
            }
            "enable_thinking" => request.enable_thinking = value.as_bool(),
            "reasoning_effort" => request.reasoning_effort = Some(text()),
            "reasoning_format" => request.reasoning_format = text().parse()?,
            "temperature" => sampling.temperature = float(),
            "top_k" => sampling.top_k = count(),
            "top_p" => sampling.top_p = float(),
            "min_p" => sampling.min_p = float(),
            "typical_p" => sampling.typical_p = float(),
            "repetition_penalty" => sampling.repetition_penalty = float(),
            "repetition_window" => sampling.repetition_window = count(),
            "frequency_penalty" => sampling.frequency_penalty = float(),
            "presence_penalty" => sampling.presence_penalty = float(),
            "logit_bias" => sampling.logit_bias = biases(value.as_object().expect("biases")),
            "banned_tokens" => sampling.banned_tokens = ids(value),
            "seed" => sampling.seed = value.as_u64(),
            "max_tokens" => request.max_tokens = Some(count()),
            "stop" => request.stop = serde_json::from_value(value.clone()).expect("texts"),
            "json_schema" => request.grammar = Some(Grammar::JsonSchema(value.clone())),
            "json" => request.grammar = Some(Grammar::JsonObject),
            "regex" => request.grammar = Some(Grammar::Regex(text())),
            "lark" => request.grammar = Some(Grammar::Lark(text())),
            "logprobs" => request.logprobs = Some(count()),
            "add_generation_prompt" => request.add_generation_prompt = value.as_bool(),
            "continue_final_message" => request.continue_final_message = value == true,
            "special" => request.special = value == true,
            "ignore_eos" => request.ignore_eos = value == true,
            "shared_prefix" => {
                request.shared_prefix = match value.as_str() {
                    Some("system") => SharedPrefix::System,
                    _ => SharedPrefix::Tokens(count()),
                };
            }
            "adapter" => request.adapter = Some(adapter(&text())?),
            "adapter_scale" => request.adapter_scale = float(),
            "input" => request.input = value.clone(),
            "speculation" => request.speculation = Some(text().parse().expect("a speculation")),
            "logits_processors" => {
                let asked = value.as_array().expect("processors").iter();
                request.logits_processors = asked.map(crate::sessions::processor).collect();
            }
            other => panic!("a request has no `{other}`"),
        }
    }
    Ok(request)
}

fn biases(biases: &Map<String, Value>) -> HashMap<u32, f32> {
    let bias = |(id, bias): (&String, &Value)| {
        (id.parse().expect("a token"), bias.as_f64().expect("a number") as f32)
    };
    biases.iter().map(bias).collect()
}

pub(crate) fn ids(tokens: &Value) -> Vec<u32> {
    serde_json::from_value(tokens.clone()).expect("token ids")
}
