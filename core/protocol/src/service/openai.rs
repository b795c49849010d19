//! OpenAI's calls: chat completions, completions, embeddings and models.

use std::sync::Arc;

use futures_util::future::try_join_all;
use realm::{EmbedOptions, unblock};
use serde_json::{Map, Value};

use super::work::start;
use super::{Answer, Service, decoded, on_a_thread};
use crate::openai::types::{Model, ModelList};
use crate::openai::{
    ChatRequest, ChatWriter, CompletionRequest, CompletionWriter, EmbeddingInput, EmbeddingRequest,
};
use crate::{ApiError, ModelEntry};

/// The number of vectors that are computed at once for one request.
const EMBEDDINGS_AT_ONCE: usize = 64;

impl Service {
    pub(super) async fn chat(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let request = ChatRequest::read(body)?;
        self.check(&request.ignored)?;
        let model = self.model_for(&request.model, &request.extras).await?;
        let started = start(&model, request.requests().collect(), request.n, "messages", &self.gate).await?;
        if request.stream {
            let writer = ChatWriter::new(&request, model);
            return Ok(self.events(started, Box::new(writer), &request.ignored));
        }
        let completions = started.finish().await?;
        Ok(Answer::json(&request.answer(completions, model.tokenizer()), &request.ignored))
    }

    pub(super) async fn completions(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let request = CompletionRequest::read(body)?;
        self.check(&request.ignored)?;
        let model = self.model_for(&request.model, &request.extras).await?;
        let started = start(&model, request.requests(), request.n, "prompt", &self.gate).await?;
        if request.stream {
            let ignored = request.ignored.clone();
            let writer = CompletionWriter::new(request, model);
            return Ok(self.events(started, Box::new(writer), &ignored));
        }
        let completions = started.finish().await?;
        Ok(Answer::ok(request.answer(completions, model.tokenizer()), &request.ignored))
    }

    pub(super) async fn embeddings(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let mut request = EmbeddingRequest::read(body)?;
        self.check(&request.ignored)?;
        let model = self.models.model(&request.model).await?;
        request.check_dimensions(model.info().hidden)?;
        let (vectors, tokens) = self.vectors(&model, std::mem::take(&mut request.inputs)).await?;
        Ok(Answer::json(&request.answer(vectors, tokens), &request.ignored))
    }

    /// Returns a vector for each input, and the number of tokens of all.
    pub(super) async fn vectors(
        &self,
        model: &realm::Model,
        inputs: Vec<EmbeddingInput>,
    ) -> Result<(Vec<Vec<f32>>, usize), ApiError> {
        let encoder = model.clone();
        let encode = move |input| match input {
            EmbeddingInput::Text(text) => encoder.encode(&text),
            EmbeddingInput::Tokens(tokens) => tokens,
        };
        let inputs = unblock(move || Ok(inputs.into_iter().map(encode).collect::<Vec<_>>())).await?;
        let tokens = inputs.iter().map(Vec::len).sum();
        let _permit = self.gate.admit(tokens, 0)?;
        let options = EmbedOptions::default();
        let mut vectors = Vec::with_capacity(inputs.len());
        for some in inputs.chunks(EMBEDDINGS_AT_ONCE) {
            let computed = try_join_all(some.iter().map(|tokens| model.embed_async(tokens, &options))).await;
            vectors.extend(computed.map_err(|error| ApiError::from(error).prompt_is("input"))?);
        }
        Ok((vectors, tokens))
    }

    pub(super) async fn list(&self) -> Result<Answer, ApiError> {
        let data = self.entries().await?.into_iter().map(Into::into).collect();
        Ok(Answer::json(&ModelList { object: "list", data }, &[]))
    }

    /// Lists the models.
    pub(super) async fn entries(&self) -> Result<Vec<ModelEntry>, ApiError> {
        let models = Arc::clone(&self.models);
        on_a_thread(move || models.list()).await
    }

    pub(super) async fn find(&self, name: &str) -> Result<Answer, ApiError> {
        let (models, name) = (Arc::clone(&self.models), decoded(name));
        let found = on_a_thread(move || models.find(&name)).await?;
        Ok(Answer::json(&Model::from(found), &[]))
    }
}
