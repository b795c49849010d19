//! Anthropic's calls.

use serde_json::{Map, Value, json};

use super::work::start;
use super::{Answer, Service};
use crate::ApiError;
use crate::anthropic::{MessageWriter, MessagesRequest};

impl Service {
    pub(super) async fn messages(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let request = MessagesRequest::read(body, false)?;
        self.check(&request.ignored)?;
        let model = self.model_for(&request.model, &request.extras).await?;
        let started = start(&model, vec![request.request.clone()], 1, "messages", &self.gate).await?;
        if request.stream {
            let writer = MessageWriter::new(&request, started.prompt_tokens, model);
            return Ok(self.events(started, Box::new(writer), &request.ignored));
        }
        let mut completions = started.finish().await?;
        let completion = completions.pop().ok_or_else(|| ApiError::internal("there is no completion"))?;
        Ok(Answer::json(&request.answer(completion, model.tokenizer()), &request.ignored))
    }

    pub(super) async fn count_tokens(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let request = MessagesRequest::read(body, true)?;
        self.check(&request.ignored)?;
        let model = self.models.model(&request.model).await?;
        let tokens = self.count(&model, request.request).await?;
        Ok(Answer::json(&json!({"input_tokens": tokens}), &request.ignored))
    }
}
