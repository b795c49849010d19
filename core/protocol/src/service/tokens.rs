//! `/tokenize` and `/detokenize`, with the fields of vLLM's and llama.cpp's servers.

use realm::{Prompt, Request, unblock};
use serde_json::{Map, Value, json};

use super::{Answer, Service};
use crate::ApiError;
use crate::fields::Fields;
use crate::openai::ChatRequest;

impl Service {
    /// Answers `/tokenize`: the tokens of a text (`prompt` or `content`), or of a conversation (`messages`)
    /// as the model's chat template renders it.
    pub(super) async fn tokenize(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        if body.contains_key("messages") {
            let request = ChatRequest::read(body)?;
            self.check(&request.ignored)?;
            let model = self.models.model(&request.model).await?;
            let (renderer, rendered) = (model.clone(), request.request);
            let tokens = unblock(move || renderer.render_tokens(&rendered)).await?;
            return Ok(counted(&tokens, &model, &request.ignored));
        }
        let mut fields = Fields::new(body, "");
        let name = fields.text("model")?.ok_or_else(super::no_model_named)?;
        let text = match fields.text("prompt")? {
            Some(text) => text,
            None => fields.text("content")?.ok_or_else(|| {
                ApiError::invalid(
                    "prompt",
                    "prompt is missing; give a text as `prompt`, or a conversation as `messages`",
                )
            })?,
        };
        let llama = fields.flag("add_special")?;
        let boundaries = fields.flag("add_special_tokens")?.or(llama).unwrap_or(true);
        let mut ignored = Vec::new();
        fields.rest(&mut ignored);
        self.check(&ignored)?;
        let model = self.models.model(&name).await?;
        let encoder = model.clone();
        let tokens = unblock(move || Ok(encoder.encode_special(&text, false, boundaries))).await?;
        Ok(counted(&tokens, &model, &ignored))
    }

    /// Answers `/detokenize`: the text of tokens, under both servers' names.
    pub(super) async fn detokenize(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let mut fields = Fields::new(body, "");
        let name = fields.text("model")?.ok_or_else(super::no_model_named)?;
        let ids = fields.list("tokens")?.unwrap_or_default();
        let ids: Option<Vec<u32>> = ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect();
        let ids = ids.ok_or_else(|| fields.invalid("tokens", "an array of token ids"))?;
        let mut ignored = Vec::new();
        fields.rest(&mut ignored);
        self.check(&ignored)?;
        let model = self.models.model(&name).await?;
        let text = unblock(move || model.tokenizer().decode(&ids, true).map_err(Into::into)).await;
        let text = text.map_err(|error| ApiError::from(error).param("tokens"))?;
        Ok(Answer::json(&json!({"prompt": text, "content": text}), &ignored))
    }

    /// Counts the tokens of a conversation.
    pub(super) async fn count(&self, model: &realm::Model, request: Request) -> Result<usize, ApiError> {
        debug_assert!(matches!(request.prompt, Prompt::Chat(_)), "only conversations are counted");
        let model = model.clone();
        Ok(unblock(move || Ok(model.prepare_request(request)?.prompt_tokens())).await?)
    }
}

fn counted(tokens: &[u32], model: &realm::Model, ignored: &[String]) -> Answer {
    let most = model.info().context_length;
    Answer::json(&json!({"count": tokens.len(), "max_model_len": most, "tokens": tokens}), ignored)
}
