//! The plain functions, each of which does the same as a function of the contract.

use wasmtime::Caller;
use wasmtime::component::Resource;

use super::guest::{floats, put_bytes, put_words, text, words};
use crate::Error;
use crate::bindings::realm::tenant::layers::{Host as _, HostKvCache, HostLayer, HostTensor};
use crate::bindings::realm::tenant::logits::{HostLogits, HostSampler};
use crate::bindings::realm::tenant::models::HostModel;
use crate::bindings::realm::tenant::output::Host as _;
use crate::bindings::realm::tenant::sequences::HostSequence;
use crate::bindings::realm::tenant::types::ErrorCode;
use crate::error::HostError;
use crate::host::layers::{KvCache, Layer, Tensor};
use crate::host::logits::{Logits, Sampler, sampling_to_wit};
use crate::host::models::Model;
use crate::host::sequences::Sequence;
use crate::state::State;

/// Calls a function by its name; an error that the guest may see becomes a negative number.
pub(super) async fn call(
    caller: &mut Caller<'_, State>,
    name: &str,
    params: &[u64],
) -> wasmtime::Result<i64> {
    match dispatch(caller, name, params).await {
        Ok(result) => Ok(result),
        Err(HostError::Fatal(error)) => {
            // An invalid handle is an ordinary error here: only this table knows the guest's handles.
            if error.is::<wasmtime::component::ResourceTableError>() {
                return Ok(told(caller.data_mut(), Error::invalid("there is no such handle")));
            }
            Err(error)
        }
        Err(HostError::Seen(error)) => Ok(told(caller.data_mut(), error)),
    }
}

/// Keeps an error for `error_message`; returns its number.
fn told(state: &mut State, error: Error) -> i64 {
    let wit: crate::bindings::realm::tenant::types::Error = error.clone().into();
    state.raw_error = Some(error);
    let place = match wit.code {
        ErrorCode::InvalidArgument => 0,
        ErrorCode::LimitExceeded => 1,
        ErrorCode::Overloaded => 2,
        ErrorCode::Unsupported => 3,
        ErrorCode::NotFound => 4,
        ErrorCode::Denied => 5,
        ErrorCode::Failed => 6,
        ErrorCode::Internal => 7,
    };
    -1 - place
}

/// Returns the handle with the guest's number. The table checks whether it exists and is of this kind.
fn handle<T: 'static>(bits: u64) -> Resource<T> {
    Resource::new_own(bits as u32)
}

fn number<T: 'static>(handle: &Resource<T>) -> i64 {
    i64::from(handle.rep())
}

async fn dispatch(caller: &mut Caller<'_, State>, name: &str, p: &[u64]) -> Result<i64, HostError> {
    let low = |i: usize| p[i] as u32;
    let float = |i: usize| f32::from_bits(p[i] as u32);
    match name {
        "request_tokens" => {
            let context = &caller.data().context;
            let tokens = context.model.tokenize(&context.request.prompt)?;
            put_words(caller, p[0], p[1], tokens.into_iter())
        }
        "request_input" => {
            let input = caller.data().context.request.input.to_string();
            put_bytes(caller, p[0], p[1], input.as_bytes())
        }
        "request_max_tokens" => {
            let most = caller.data().context.request.max_tokens;
            Ok(most.map_or(i64::from(u32::MAX), |most| i64::try_from(most).unwrap_or(i64::MAX)))
        }
        "error_message" => {
            let message = caller.data().raw_error.as_ref().map(|error| error.message().to_owned());
            put_bytes(caller, p[0], p[1], message.unwrap_or_default().as_bytes())
        }
        "drop" => drop_handle(caller.data_mut(), low(0)),
        "encode" => {
            let text = text(caller, p[0], p[1])?;
            let state = caller.data_mut();
            let model = model(state)?;
            let tokens = state.encode(model, text).await?;
            put_words(caller, p[2], p[3], tokens.into_iter())
        }
        "decode" => {
            let tokens = words(caller, p[0], p[1])?;
            let state = caller.data_mut();
            let model = model(state)?;
            let text = state.decode(model, tokens)?;
            put_bytes(caller, p[2], p[3], text.as_bytes())
        }
        "is_end" => {
            let state = caller.data_mut();
            let model = model(state)?;
            Ok(i64::from(state.is_end(model, low(0))?))
        }
        "emit" => {
            let (text, tokens) = (text(caller, p[0], p[1])?, words(caller, p[2], p[3])?);
            caller.data_mut().emit(text, tokens).await?;
            Ok(0)
        }
        "sequence_open" => {
            let state = caller.data_mut();
            let model = model(state)?;
            Ok(number(&HostSequence::open(state, model).await?))
        }
        "sequence_append" => {
            let tokens = words(caller, p[1], p[2])?;
            caller.data_mut().append(handle(p[0]), tokens)?;
            Ok(0)
        }
        "sequence_len" => Ok(i64::from(HostSequence::len(caller.data_mut(), handle(p[0]))?)),
        "sequence_truncate" => {
            HostSequence::truncate(caller.data_mut(), handle(p[0]), low(1)).await?;
            Ok(0)
        }
        "sequence_fork" => Ok(number(&caller.data_mut().fork(handle(p[0])).await?)),
        "sequence_forward" => Ok(number(&caller.data_mut().forward(handle(p[0])).await?)),
        "logits_vocabulary" => Ok(i64::from(caller.data_mut().vocabulary(handle(p[0]))?)),
        "logits_argmax" => Ok(i64::from(caller.data_mut().argmax(handle(p[0]))?)),
        "logits_top" => {
            let top = caller.data_mut().top(handle(p[0]), low(1))?;
            put_words(caller, p[2], p[3], top.into_iter().map(|candidate| candidate.token))
        }
        "logits_read" => {
            let values = HostLogits::read(caller.data_mut(), handle(p[0]))?;
            put_words(caller, p[1], p[2], values.into_iter().map(f32::to_bits))
        }
        "logits_write" => {
            let values = floats(caller, p[1], p[2])?;
            HostLogits::write(caller.data_mut(), handle(p[0]), values)?;
            Ok(0)
        }
        "logits_add" => {
            HostLogits::add(caller.data_mut(), handle(p[0]), handle(p[1]), float(2))?;
            Ok(0)
        }
        "logits_scale" => {
            caller.data_mut().scale(handle(p[0]), float(1))?;
            Ok(0)
        }
        "logits_sample" => sample(caller.data_mut(), handle(p[0])),
        "tensor_from_values" => {
            let values = floats(caller, p[2], p[3])?;
            let state = caller.data_mut();
            let model = model(state)?;
            Ok(number(&state.from_values(model, low(0), low(1), values).await?))
        }
        "tensor_rows" => Ok(i64::from(caller.data_mut().rows(handle(p[0]))?)),
        "tensor_width" => Ok(i64::from(caller.data_mut().width(handle(p[0]))?)),
        "tensor_read" => {
            let values = HostTensor::read(caller.data_mut(), handle(p[0])).await?;
            put_words(caller, p[1], p[2], values.into_iter().map(f32::to_bits))
        }
        "tensor_gather" => {
            let rows = words(caller, p[1], p[2])?;
            Ok(number(&caller.data_mut().gather(handle(p[0]), rows).await?))
        }
        "tensor_add" => {
            HostTensor::add(caller.data_mut(), handle(p[0]), handle(p[1]), float(2)).await?;
            Ok(0)
        }
        "kv_cache_open" => {
            let state = caller.data_mut();
            let model = model(state)?;
            Ok(number(&HostKvCache::open(state, model, low(0)).await?))
        }
        "kv_cache_truncate" => {
            HostKvCache::truncate(caller.data_mut(), handle(p[0]), low(1)).await?;
            Ok(0)
        }
        "memory64_load_layer" => {
            let state = caller.data_mut();
            let model = model(state)?;
            Ok(number(&state.load_layer(model, low(0))?))
        }
        "attention_forward" => {
            let made = caller.data_mut().attention_forward(handle(p[0]), handle(p[1]), handle(p[2])).await?;
            Ok(number(&made))
        }
        "feed_forward" => Ok(number(&caller.data_mut().feed_forward(handle(p[0]), handle(p[1])).await?)),
        "embed" => {
            let tokens = words(caller, p[0], p[1])?;
            let state = caller.data_mut();
            let model = model(state)?;
            Ok(number(&state.embed(model, tokens).await?))
        }
        "candle_matmul" => {
            let weight = text(caller, p[1], p[2])?;
            Ok(number(&caller.data_mut().matmul(handle(p[0]), weight).await?))
        }
        "lm_head" => {
            let logits = caller.data_mut().lm_head(handle(p[0])).await?;
            put_words(caller, p[1], p[2], logits.iter().map(Resource::rep).collect::<Vec<_>>().into_iter())
        }
        _ => Err(Error::invalid(format!("there is no function `{name}`")).into()),
    }
}

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
fn sample(state: &mut State, logits: Resource<Logits>) -> Result<i64, HostError> {
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
    Ok(i64::from(HostSampler::sample(state, Resource::<Sampler>::new_own(sampler), logits)?))
}

/// Drops a handle of any kind.
fn drop_handle(state: &mut State, rep: u32) -> Result<i64, HostError> {
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
        return Ok(0);
    }
    Err(Error::invalid(format!("there is no handle {rep}")).into())
}
