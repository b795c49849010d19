//! The plain functions, each of which does the same as a function of the contract.

use wasmtime::component::Resource;

use super::guest::{floats, put_bytes, put_words, text, words};
use super::signatures::{Function, Pointer, functions};
use crate::Error;
use crate::bindings::realm::tenant::layers::{Host as _, HostKvCache, HostLayer, HostTensor};
use crate::bindings::realm::tenant::logits::{HostLogits, HostSampler};
use crate::bindings::realm::tenant::models::HostModel;
use crate::bindings::realm::tenant::output::Host as _;
use crate::bindings::realm::tenant::sequences::HostSequence;
use crate::convert::sampling_to_wit;
use crate::error::HostError;
use crate::handles::{KvCache, Layer, Logits, Model, Sampler, Sequence, Tensor};
use crate::state::State;

/// Other names of functions: those of Realm's founding document.
pub(super) const ALIASES: &[(&str, &str)] =
    &[("candle_matmul", "matmul"), ("memory64_load_layer", "load_layer")];

/// The functions. Lengths count elements; `room` is the length of the guest's buffer.
pub(super) const FUNCTIONS: &[Function] = functions! { |caller|
    // The request.
    fn request_tokens(to: Pointer, room: Pointer) = "" {
        let context = &caller.data().context;
        let tokens = context.model.tokenize(&context.request.prompt)?;
        put_words(caller, to, room, tokens.into_iter())?
    }
    fn request_input(to: Pointer, room: Pointer) = "" {
        let input = caller.data().context.request.input.to_string();
        put_bytes(caller, to, room, input.as_bytes())?
    }
    fn request_max_tokens() = "" {
        let most = caller.data().context.request.max_tokens;
        most.map_or(i64::from(u32::MAX), |most| i64::try_from(most).unwrap_or(i64::MAX))
    }
    fn error_message(to: Pointer, room: Pointer) = "" {
        let message = caller.data().raw_error.as_ref().map(|error| error.message().to_owned());
        put_bytes(caller, to, room, message.unwrap_or_default().as_bytes())?
    }
    fn drop(handle: u32) = "" { drop_handle(caller.data_mut(), handle)? }

    // Models and texts.
    fn encode(at: Pointer, len: Pointer, to: Pointer, room: Pointer) = "models.[method]model.encode" {
        let text = text(caller, at, len)?;
        let state = caller.data_mut();
        let model = model(state)?;
        let tokens = state.encode(model, text).await?;
        put_words(caller, to, room, tokens.into_iter())?
    }
    fn decode(at: Pointer, len: Pointer, to: Pointer, room: Pointer) = "models.[method]model.decode" {
        let tokens = words(caller, at, len)?;
        let state = caller.data_mut();
        let model = model(state)?;
        let text = state.decode(model, tokens)?;
        put_bytes(caller, to, room, text.as_bytes())?
    }
    fn is_end(token: u32) = "models.[method]model.is-end" {
        let state = caller.data_mut();
        let model = model(state)?;
        state.is_end(model, token)?
    }
    fn emit(text_at: Pointer, text_len: Pointer, at: Pointer, len: Pointer) = "output.emit" {
        let (text, tokens) = (text(caller, text_at, text_len)?, words(caller, at, len)?);
        caller.data_mut().emit(text, tokens).await?
    }

    // Sequences.
    fn sequence_open() = "sequences.[static]sequence.open" {
        let state = caller.data_mut();
        let model = model(state)?;
        HostSequence::open(state, model).await?
    }
    fn sequence_append(sequence: Resource<Sequence>, at: Pointer, len: Pointer)
        = "sequences.[method]sequence.append" {
        let tokens = words(caller, at, len)?;
        caller.data_mut().append(sequence, tokens)?
    }
    fn sequence_len(sequence: Resource<Sequence>) = "sequences.[method]sequence.len" {
        HostSequence::len(caller.data_mut(), sequence)?
    }
    fn sequence_truncate(sequence: Resource<Sequence>, len: u32) = "sequences.[method]sequence.truncate" {
        HostSequence::truncate(caller.data_mut(), sequence, len).await?
    }
    fn sequence_fork(sequence: Resource<Sequence>) = "sequences.[method]sequence.fork" {
        caller.data_mut().fork(sequence).await?
    }
    fn sequence_forward(sequence: Resource<Sequence>) = "sequences.[method]sequence.forward" {
        caller.data_mut().forward(sequence).await?
    }

    // Logits. `logits_top` returns tokens; `logits_read` returns all logits.
    fn logits_vocabulary(logits: Resource<Logits>) = "logits.[method]logits.vocabulary" {
        caller.data_mut().vocabulary(logits)?
    }
    fn logits_argmax(logits: Resource<Logits>) = "logits.[method]logits.argmax" {
        caller.data_mut().argmax(logits)?
    }
    fn logits_top(logits: Resource<Logits>, k: u32, to: Pointer, room: Pointer)
        = "logits.[method]logits.top" {
        let top = caller.data_mut().top(logits, k)?;
        put_words(caller, to, room, top.into_iter().map(|candidate| candidate.token))?
    }
    fn logits_read(logits: Resource<Logits>, to: Pointer, room: Pointer) = "logits.[method]logits.read" {
        let values = HostLogits::read(caller.data_mut(), logits)?;
        put_words(caller, to, room, values.into_iter().map(f32::to_bits))?
    }
    fn logits_write(logits: Resource<Logits>, at: Pointer, len: Pointer) = "logits.[method]logits.write" {
        let values = floats(caller, at, len)?;
        HostLogits::write(caller.data_mut(), logits, values)?
    }
    fn logits_add(logits: Resource<Logits>, other: Resource<Logits>, scale: f32)
        = "logits.[method]logits.add" {
        HostLogits::add(caller.data_mut(), logits, other, scale)?
    }
    fn logits_scale(logits: Resource<Logits>, scale: f32) = "logits.[method]logits.scale" {
        caller.data_mut().scale(logits, scale)?
    }
    fn logits_sample(logits: Resource<Logits>) = "" { sample(caller.data_mut(), logits)? }

    // Layers.
    fn tensor_from_values(rows: u32, width: u32, at: Pointer, len: Pointer)
        = "layers.[static]tensor.from-values" {
        let values = floats(caller, at, len)?;
        let state = caller.data_mut();
        let model = model(state)?;
        state.from_values(model, rows, width, values).await?
    }
    fn tensor_rows(tensor: Resource<Tensor>) = "layers.[method]tensor.rows" {
        caller.data_mut().rows(tensor)?
    }
    fn tensor_width(tensor: Resource<Tensor>) = "layers.[method]tensor.width" {
        caller.data_mut().width(tensor)?
    }
    fn tensor_read(tensor: Resource<Tensor>, to: Pointer, room: Pointer) = "layers.[method]tensor.read" {
        let values = HostTensor::read(caller.data_mut(), tensor).await?;
        put_words(caller, to, room, values.into_iter().map(f32::to_bits))?
    }
    fn tensor_gather(tensor: Resource<Tensor>, at: Pointer, len: Pointer) = "layers.[method]tensor.gather" {
        let rows = words(caller, at, len)?;
        caller.data_mut().gather(tensor, rows).await?
    }
    fn tensor_add(tensor: Resource<Tensor>, other: Resource<Tensor>, scale: f32)
        = "layers.[method]tensor.add" {
        HostTensor::add(caller.data_mut(), tensor, other, scale).await?
    }
    fn kv_cache_open(tokens: u32) = "layers.[static]kv-cache.open" {
        let state = caller.data_mut();
        let model = model(state)?;
        HostKvCache::open(state, model, tokens).await?
    }
    fn kv_cache_truncate(cache: Resource<KvCache>, len: u32) = "layers.[method]kv-cache.truncate" {
        HostKvCache::truncate(caller.data_mut(), cache, len).await?
    }
    fn load_layer(index: u32) = "layers.load-layer" {
        let state = caller.data_mut();
        let model = model(state)?;
        state.load_layer(model, index)?
    }
    fn attention_forward(layer: Resource<Layer>, x: Resource<Tensor>, cache: Resource<KvCache>)
        = "layers.[method]layer.attention-forward" {
        caller.data_mut().attention_forward(layer, x, cache).await?
    }
    fn feed_forward(layer: Resource<Layer>, x: Resource<Tensor>) = "layers.[method]layer.feed-forward" {
        caller.data_mut().feed_forward(layer, x).await?
    }
    fn embed(at: Pointer, len: Pointer) = "layers.embed" {
        let tokens = words(caller, at, len)?;
        let state = caller.data_mut();
        let model = model(state)?;
        state.embed(model, tokens).await?
    }
    fn matmul(x: Resource<Tensor>, at: Pointer, len: Pointer) = "layers.matmul" {
        let weight = text(caller, at, len)?;
        caller.data_mut().matmul(x, weight).await?
    }
    fn lm_head(x: Resource<Tensor>, to: Pointer, room: Pointer) = "layers.lm-head" {
        let logits = caller.data_mut().lm_head(x).await?;
        put_words(caller, to, room, logits.iter().map(Resource::rep))?
    }
};

/// Returns the handle of the request's model: created once, since a module cannot drop it.
fn model(state: &mut State) -> wasmtime::Result<Resource<Model>> {
    let rep = match state.raw_model {
        Some(rep) => rep,
        None => {
            let model = state.current()?;
            *state.raw_model.insert(model.rep())
        }
    };
    Ok(Resource::new_borrow(rep))
}

/// Chooses a token by the request's sampling options.
fn sample(state: &mut State, logits: Resource<Logits>) -> Result<u32, HostError> {
    let sampler = match state.raw_sampler {
        Some(sampler) => sampler,
        None => {
            let context = &state.context;
            let prompt = context.model.tokenize(&context.request.prompt)?;
            let sampling = sampling_to_wit(&context.request.sampling);
            let model = model(state)?;
            let opened = HostSampler::open(state, model, sampling, prompt)?;
            *state.raw_sampler.insert(opened.rep())
        }
    };
    HostSampler::sample(state, Resource::<Sampler>::new_own(sampler), logits)
}

/// Drops a handle of any kind.
fn drop_handle(state: &mut State, rep: u32) -> Result<(), HostError> {
    fn drop_one<T: Send + 'static>(state: &mut State, rep: u32) -> bool {
        let is_one = state.table.get(&Resource::<T>::new_own(rep)).is_ok();
        is_one && state.table.delete(Resource::<T>::new_own(rep)).is_ok()
    }
    let kinds = [
        drop_one::<Logits>,
        drop_one::<Sequence>,
        drop_one::<Tensor>,
        drop_one::<KvCache>,
        drop_one::<Layer>,
    ];
    if kinds.into_iter().any(|drop_one| drop_one(state, rep)) {
        return Ok(());
    }
    Err(Error::invalid(format!("there is no handle {rep}")).into())
}
