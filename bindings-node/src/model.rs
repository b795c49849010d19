//! Models and their adapters.

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm::{EmbedOptions, Pooling, unblock};
use serde_json::json;

use crate::environment::promise;
use crate::error::failed;
use crate::generation::NativeGeneration;
use crate::handle::Handle;
use crate::options::request;
use crate::processors::{Process, processor};
use crate::sequence::NativeSequence;
use crate::tokenizer::NativeTokenizer;

/// A LoRA adapter on a model.
#[napi]
pub struct NativeAdapter {
    pub(crate) handle: Handle<realm::Adapter>,
}

#[napi]
impl NativeAdapter {
    /// Returns facts about the adapter, as JSON.
    #[napi]
    pub fn info(&self) -> Result<String> {
        let adapter = self.handle.get()?;
        Ok(json!({"name": adapter.name(), "rank": adapter.rank(), "bytes": adapter.bytes()}).to_string())
    }

    /// Releases the adapter.
    #[napi]
    pub fn close(&self) {
        self.handle.close();
    }
}

/// One set of weights, as one tenant sees it.
#[napi]
pub struct NativeModel {
    pub(crate) handle: Handle<realm::Model>,
}

impl NativeModel {
    pub(crate) fn new(model: realm::Model) -> Self {
        Self { handle: Handle::new("Model", model) }
    }
}

/// Copies a text or token ids out of Node's memory.
pub(crate) fn owned(text: Either<String, Uint32Array>) -> Either<String, Vec<u32>> {
    match text {
        Either::A(text) => Either::A(text),
        Either::B(tokens) => Either::B(tokens.to_vec()),
    }
}

/// Returns token ids; encodes a text on a thread of its own.
async fn tokens(model: &realm::Model, text: Either<String, Vec<u32>>) -> Result<Vec<u32>> {
    match text {
        Either::A(text) => {
            let model = model.clone();
            unblock(move || Ok(model.encode(&text))).await.map_err(failed)
        }
        Either::B(tokens) => Ok(tokens),
    }
}

#[napi]
impl NativeModel {
    /// Starts a request, given as JSON, on a thread of its own: encoding long prompts and compiling grammars
    /// takes time.
    #[napi(ts_return_type = "Promise<NativeGeneration>")]
    pub fn stream<'env>(
        &self,
        env: &'env Env,
        request: String,
        adapter: Option<&NativeAdapter>,
        #[napi(ts_arg_type = "unknown")] function: Option<Process<'_>>,
    ) -> Result<PromiseRaw<'env, NativeGeneration>> {
        let model = self.handle.get()?;
        let adapter = adapter.map(|adapter| adapter.handle.get()).transpose()?;
        let processor = processor(function.as_ref())?;
        promise(env, async move {
            let start = move || {
                let mut request = self::request(&request, adapter)?;
                request.logits_processors.extend(processor);
                model.stream(request).map_err(failed)
            };
            Ok(NativeGeneration::new(unblock(move || Ok(start())).await.map_err(failed)??))
        })
    }

    /// Computes the embedding of a text or of token ids.
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn embed<'env>(
        &self,
        env: &'env Env,
        text: Either<String, Uint32Array>,
        pooling: Option<String>,
        normalize: bool,
    ) -> Result<PromiseRaw<'env, Float32Array>> {
        let model = self.handle.get()?;
        let pooling = pooling.as_deref().map(str::parse::<Pooling>).transpose();
        let pooling = pooling.map_err(|error| failed(error.into()))?;
        let options = EmbedOptions { pooling, normalize };
        let text = owned(text);
        promise(env, async move {
            let tokens = tokens(&model, text).await?;
            Ok(Float32Array::new(model.embed_async(&tokens, &options).await.map_err(failed)?))
        })
    }

    /// Returns log-probabilities of the tokens after each token, as JSON.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn score<'env>(
        &self,
        env: &'env Env,
        text: Either<String, Uint32Array>,
        top: u32,
    ) -> Result<PromiseRaw<'env, String>> {
        let model = self.handle.get()?;
        let text = owned(text);
        promise(env, async move {
            let tokens = tokens(&model, text).await?;
            let scores = model.score_async(&tokens, top as usize).await.map_err(failed)?;
            let likely = |t: &realm::TokenLogprob| json!({"id": t.id, "logprob": t.logprob});
            let scores = scores.iter().map(
                |score| json!({"next": score.next, "top": score.top.iter().map(likely).collect::<Vec<_>>()}),
            );
            Ok(scores.collect::<serde_json::Value>().to_string())
        })
    }

    /// Returns the log-probability of each token of a continuation.
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn log_likelihood<'env>(
        &self,
        env: &'env Env,
        prompt: Uint32Array,
        continuation: Uint32Array,
    ) -> Result<PromiseRaw<'env, Float32Array>> {
        let model = self.handle.get()?;
        let (prompt, continuation) = (prompt.to_vec(), continuation.to_vec());
        promise(env, async move {
            let found = model.log_likelihood_async(&prompt, &continuation).await;
            Ok(Float32Array::new(found.map_err(failed)?))
        })
    }

    /// Renders a request, given as JSON, with the chat template.
    #[napi]
    pub fn render(&self, request: String) -> Result<String> {
        self.handle.get()?.render(&self::request(&request, None)?).map_err(failed)
    }

    /// Same as `render`, on a thread of its own.
    #[napi]
    pub async fn render_async(&self, request: String) -> Result<String> {
        let model = self.handle.get()?;
        let render = move || model.render(&self::request(&request, None)?).map_err(failed);
        unblock(move || Ok(render())).await.map_err(failed)?
    }

    /// Returns the token ids of the rendered request.
    #[napi]
    pub fn render_tokens(&self, request: String) -> Result<Vec<u32>> {
        self.handle.get()?.render_tokens(&self::request(&request, None)?).map_err(failed)
    }

    /// Creates an empty sequence.
    #[napi]
    pub fn sequence(&self) -> Result<NativeSequence> {
        Ok(NativeSequence::new(self.handle.get()?.sequence().map_err(failed)?))
    }

    /// Restores a sequence from bytes.
    #[napi]
    pub async fn restore_sequence(&self, bytes: Buffer) -> Result<NativeSequence> {
        let model = self.handle.get()?;
        let sequence = unblock(move || model.restore_sequence(&bytes)).await.map_err(failed)?;
        Ok(NativeSequence::new(sequence))
    }

    /// Restores a sequence from another realm's bytes.
    #[napi]
    pub async fn restore_foreign_sequence(&self, bytes: Buffer) -> Result<NativeSequence> {
        let model = self.handle.get()?;
        let sequence = unblock(move || model.restore_foreign_sequence(&bytes)).await.map_err(failed)?;
        Ok(NativeSequence::new(sequence))
    }

    /// Loads a LoRA adapter.
    #[napi]
    pub async fn load_adapter(&self, path: String) -> Result<NativeAdapter> {
        let model = self.handle.get()?;
        let adapter = model.load_adapter_async(path).await.map_err(failed)?;
        Ok(NativeAdapter { handle: Handle::new("Adapter", adapter) })
    }

    /// Returns the same model with an adapter.
    #[napi]
    pub fn adapted(&self, adapter: &NativeAdapter, scale: f64) -> Result<Self> {
        Ok(Self::new(self.handle.get()?.adapted(&adapter.handle.get()?, scale as f32)))
    }

    /// Returns the model's tokenizer.
    #[napi]
    pub fn tokenizer(&self) -> Result<NativeTokenizer> {
        Ok(NativeTokenizer::of_model(self.handle.get()?))
    }

    /// Returns facts about the model, as JSON.
    #[napi]
    pub fn info(&self) -> Result<String> {
        let model = self.handle.get()?;
        let info = model.info();
        let info = json!({
            "reference": model.reference(), "name": info.name, "architecture": info.architecture,
            "parameters": info.parameters, "fileBytes": info.file_bytes, "vocabulary": info.vocabulary,
            "layers": info.layers, "contextLength": info.context_length,
            "trainedContextLength": info.trained_context_length, "hidden": info.hidden,
            "pooling": info.pooling.as_str(), "chatTemplate": info.chat_template, "device": info.device,
        });
        Ok(info.to_string())
    }

    /// Reads the model's counters and gauges, as JSON.
    #[napi]
    pub fn metrics(&self) -> Result<String> {
        Ok(crate::metrics::metrics(&self.handle.get()?.metrics()).to_string())
    }

    /// Releases the model.
    #[napi]
    pub fn close(&self) {
        self.handle.close();
    }
}
