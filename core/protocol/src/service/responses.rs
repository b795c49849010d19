//! OpenAI's Responses.

use serde_json::{Map, Value, json};

use super::work::start;
use super::{Answer, Service};
use crate::ApiError;
use crate::responses::{ResponseWriter, ResponsesRequest};

impl Service {
    pub(super) async fn responses(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let request = ResponsesRequest::read(body)?;
        let ignored = request.chat.ignored.clone();
        self.check(&ignored)?;
        let model = self.model_for(&request.chat.model, &request.chat.extras).await?;
        let started = start(&model, request.chat.requests().collect(), 1, "input", &self.gate).await?;
        if request.chat.stream {
            return Ok(self.events(started, Box::new(ResponseWriter::new(request)), &ignored));
        }
        let mut completions = started.finish().await?;
        let completion = completions.pop().ok_or_else(|| ApiError::internal("there is no completion"))?;
        Ok(Answer::json(&request.answer(completion), &ignored))
    }

    /// Counts the tokens of the prompt that a response would have.
    pub(super) async fn input_tokens(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let request = ResponsesRequest::read(body)?;
        let ignored = request.chat.ignored.clone();
        self.check(&ignored)?;
        let model = self.models.model(&request.chat.model).await?;
        let tokens = self.count(&model, request.chat.request).await?;
        Ok(Answer::json(&json!({"object": "response.input_tokens", "input_tokens": tokens}), &ignored))
    }
}
