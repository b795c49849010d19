//! Ollama's calls.

use std::time::Instant;

use realm::Model;
use serde_json::{Map, Value, json};

use super::work::start;
use super::{Answer, Service};
use crate::fields::Fields;
use crate::ollama::{LineWriter, OllamaRequest, plain_name, whole};
use crate::openai::EmbeddingInput;
use crate::{ApiError, Extras, ModelEntry};

/// The version of ollama whose calls these are, for clients that ask for features by version.
const VERSION: &str = "0.12.0";

impl Service {
    /// Answers `/api/chat` and `/api/generate`.
    pub(super) async fn lines(&self, request: OllamaRequest) -> Result<Answer, ApiError> {
        self.check(&request.ignored)?;
        let model = self.model_for(&request.model, &Extras::default()).await?;
        request.check_context(&model)?;
        let prompt = if request.chat { "messages" } else { "prompt" };
        let started = start(&model, vec![request.request.clone()], 1, prompt, &self.gate).await?;
        if request.stream {
            return Ok(self.events(started, Box::new(LineWriter::new(&request)), &request.ignored));
        }
        let mut completions = started.finish().await?;
        let completion = completions.pop().ok_or_else(|| ApiError::internal("there is no completion"))?;
        Ok(Answer::json(&whole(&request, &completion), &request.ignored))
    }

    pub(super) async fn tags(&self) -> Result<Answer, ApiError> {
        let mut models = Vec::new();
        for entry in self.entries().await? {
            let model = self.models.model(&entry.name).await?;
            models.push(tag(&entry, &model));
        }
        Ok(Answer::json(&json!({ "models": models }), &[]))
    }

    pub(super) async fn show(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let mut fields = Fields::new(body, "");
        let old = fields.text("name")?;
        let name = fields.text("model")?.or(old).ok_or_else(super::no_model_named)?;
        fields.skip(&["verbose", "system", "template", "options"]);
        let mut ignored = Vec::new();
        fields.rest(&mut ignored);
        self.check(&ignored)?;
        let model = self.models.model(plain_name(&name)).await?;
        let info = model.info();
        let architecture = &info.architecture;
        let mut capabilities = vec!["completion"];
        if info.chat_template {
            capabilities.push("tools");
        }
        let facts = json!({
            "general.architecture": architecture,
            "general.parameter_count": info.parameters,
            (format!("{architecture}.context_length")): info.context_length,
            (format!("{architecture}.embedding_length")): info.hidden,
            (format!("{architecture}.block_count")): info.layers,
        });
        let answer = json!({
            "modelfile": "", "parameters": "", "template": "",
            "details": details(&model), "model_info": facts, "capabilities": capabilities,
        });
        Ok(Answer::json(&answer, &ignored))
    }

    pub(super) fn version() -> Answer {
        Answer::json(&json!({ "version": VERSION }), &[])
    }

    pub(super) async fn embed(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let began = Instant::now();
        let mut fields = Fields::new(body, "");
        let name = fields.text("model")?.ok_or_else(super::no_model_named)?;
        let texts = match fields.take("input") {
            Some(Value::String(text)) => Some(vec![text]),
            Some(Value::Array(list)) => {
                list.into_iter().map(|text| text.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        let texts = texts.filter(|texts| texts.iter().all(|text| !text.is_empty()));
        let texts = texts
            .ok_or_else(|| fields.invalid("input", "a string or an array of strings, none of them empty"))?;
        let dimensions = fields.count("dimensions", 1)?;
        // A text that is too long is refused in any case.
        fields.skip(&["truncate", "keep_alive", "options"]);
        let mut ignored = Vec::new();
        fields.rest(&mut ignored);
        self.check(&ignored)?;
        let name = plain_name(&name).to_owned();
        let model = self.models.model(&name).await?;
        let hidden = model.info().hidden;
        if let Some(wanted) = dimensions.filter(|wanted| *wanted != hidden) {
            let why = format!("dimensions is {wanted}; this model's vectors have {hidden}");
            return Err(ApiError::unsupported("dimensions", why));
        }
        let inputs = texts.into_iter().map(EmbeddingInput::Text).collect();
        let (vectors, tokens) = self.vectors(&model, inputs).await?;
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let answer = json!({
            "model": name, "embeddings": vectors, "total_duration": nanos, "load_duration": 0,
            "prompt_eval_count": tokens,
        });
        Ok(Answer::json(&answer, &ignored))
    }
}

/// Returns a model in ollama's list. It has no digest of the file, so the name stands for it.
fn tag(entry: &ModelEntry, model: &Model) -> Value {
    let created = i64::try_from(entry.created).unwrap_or(0);
    let modified = jiff::Timestamp::from_second(created).unwrap_or_default().to_string();
    json!({
        "name": entry.name, "model": entry.name, "modified_at": modified,
        "size": model.info().file_bytes, "digest": "", "details": details(model),
    })
}

fn details(model: &Model) -> Value {
    let info = model.info();
    let size = match info.parameters {
        parameters @ 1_000_000_000.. => format!("{:.1}B", parameters as f64 / 1e9),
        parameters => format!("{:.0}M", parameters as f64 / 1e6),
    };
    json!({
        "parent_model": "", "format": "gguf", "family": info.architecture, "families": [info.architecture],
        "parameter_size": size, "quantization_level": "",
    })
}
