//! Lists of prompts and texts.

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm::{EmbedOptions, Pooling};
use serde_json::json;

use crate::call::NativeCall;
use crate::environment::promise;
use crate::error::failed;
use crate::generation::Completion;
use crate::model::{NativeAdapter, NativeModel, owned};
use crate::options::request;
use crate::processors::{Process, process};

/// Builds many requests, given as JSON, all with the same functions.
fn requests(
    each: &[String],
    adapter: Option<&NativeAdapter>,
    function: Option<&Process<'_>>,
) -> Result<Vec<realm::Request>> {
    let adapter = adapter.map(|adapter| adapter.handle.get()).transpose()?;
    let mut requests: Vec<realm::Request> = Vec::with_capacity(each.len());
    for one in each {
        let mut request = request(one, adapter.clone())?;
        match requests.first() {
            Some(first) => request.logits_processors.clone_from(&first.logits_processors),
            None => request = process(request, function)?,
        }
        requests.push(request);
    }
    Ok(requests)
}

/// Answers many requests; the first error ends the call, and so does an abort of `call`.
#[napi(ts_return_type = "Promise<Completion[]>")]
pub fn generate_many<'env>(
    env: &'env Env,
    model: &NativeModel,
    each: Vec<String>,
    adapter: Option<&NativeAdapter>,
    #[napi(ts_arg_type = "unknown")] function: Option<Process<'_>>,
    call: &NativeCall,
) -> Result<PromiseRaw<'env, Vec<Completion>>> {
    let (model, requests) = (model.handle.get()?, requests(&each, adapter, function.as_ref())?);
    let all = call.until(async move { model.generate_many_async(requests).await })?;
    promise(env, async move { Ok(all.await?.map_err(failed)?.into_iter().map(Completion::from).collect()) })
}

/// A completion, or an error as `[code, message]`.
type Each = Either<Completion, Vec<String>>;

/// Answers many requests; each result is its completion, or its error as `[code, message]`. An abort of
/// `call` ends them.
#[napi(ts_return_type = "Promise<(Completion | string[])[]>")]
pub fn generate_each<'env>(
    env: &'env Env,
    model: &NativeModel,
    each: Vec<String>,
    adapter: Option<&NativeAdapter>,
    #[napi(ts_arg_type = "unknown")] function: Option<Process<'_>>,
    call: &NativeCall,
) -> Result<PromiseRaw<'env, Vec<Each>>> {
    let (model, requests) = (model.handle.get()?, requests(&each, adapter, function.as_ref())?);
    let each = call.until(async move { model.generate_each_async(requests).await })?;
    promise(env, async move {
        let one = |result| match result {
            Ok(completion) => Either::A(Completion::from(completion)),
            Err(error) => {
                let error: realm::Error = error;
                Either::B(vec![error.code().as_str().to_owned(), error.message().to_owned()])
            }
        };
        Ok(each.await?.into_iter().map(one).collect())
    })
}

/// Computes an embedding for each text.
#[napi(ts_return_type = "Promise<Float32Array[]>")]
pub fn embed_many<'env>(
    env: &'env Env,
    model: &NativeModel,
    texts: Vec<Either<String, Uint32Array>>,
    pooling: Option<String>,
    normalize: bool,
) -> Result<PromiseRaw<'env, Vec<Float32Array>>> {
    let model = model.handle.get()?;
    let pooling = pooling.as_deref().map(str::parse::<Pooling>).transpose();
    let pooling = pooling.map_err(|error| failed(error.into()))?;
    let options = EmbedOptions { pooling, normalize };
    let texts: Vec<_> = texts.into_iter().map(owned).collect();
    promise(env, async move {
        let texts = tokens(&model, texts);
        let vectors = model.embed_many_async(texts, &options).await.map_err(failed)?;
        Ok(vectors.into_iter().map(Float32Array::new).collect())
    })
}

/// Scores each text; returns JSON.
#[napi(ts_return_type = "Promise<string>")]
pub fn score_many<'env>(
    env: &'env Env,
    model: &NativeModel,
    texts: Vec<Either<String, Uint32Array>>,
    top: u32,
) -> Result<PromiseRaw<'env, String>> {
    let model = model.handle.get()?;
    let texts: Vec<_> = texts.into_iter().map(owned).collect();
    promise(env, async move {
        let texts = tokens(&model, texts);
        let scores = model.score_many_async(texts, top as usize).await.map_err(failed)?;
        let likely = |t: &realm::TokenLogprob| json!({"id": t.id, "logprob": t.logprob});
        let one = |score: &realm::Scored| json!({"next": score.next, "top": score.top.iter().map(likely).collect::<Vec<_>>()});
        let all = scores.iter().map(|text| text.iter().map(one).collect::<serde_json::Value>());
        Ok(all.collect::<serde_json::Value>().to_string())
    })
}

fn tokens(model: &realm::Model, texts: Vec<Either<String, Vec<u32>>>) -> Vec<Vec<u32>> {
    let tokens = |text: Either<String, Vec<u32>>| match text {
        Either::A(text) => model.encode(&text),
        Either::B(tokens) => tokens,
    };
    texts.into_iter().map(tokens).collect()
}
