//! Models: text and tokens, generations, scores, embeddings, sequences, adapters.

use std::ffi::{CString, c_char, c_void};
use std::mem::MaybeUninit;

use realm::{EmbedOptions, SharedGeneration};

use crate::adapter::Adapter;
use crate::choice::{choice, chosen};
use crate::error::{Error, attempt};
use crate::generation::{Chunk, Completion, Generation, OnChunk, TokenLogprob};
use crate::memory::{array, copy, copy_text, free, object, own, put, text, text_of};
use crate::metrics::Metrics;
use crate::request::Request;
use crate::sequence::Sequence;
use crate::tokenizer::Tokenizer;

/// A loaded model, as one tenant sees it. Handles are cheap and share the model; the weights are freed when
/// the last handle and the last generation are gone.
pub struct Model {
    pub(crate) model: realm::Model,
    name: CString,
    architecture: CString,
    device: CString,
    reference: CString,
}

impl From<realm::Model> for Model {
    fn from(model: realm::Model) -> Self {
        let info = model.info();
        Self {
            name: text_of(info.name.as_deref().unwrap_or_default()),
            architecture: text_of(&info.architecture),
            device: text_of(&info.device),
            reference: text_of(model.reference()),
            model,
        }
    }
}

/// The way that hidden states become an embedding.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Pooling {
    /// The pooling that the model's file says.
    Default,
    /// The mean of the hidden states.
    Mean,
    /// The hidden state of the last token.
    Last,
    /// The hidden state of the first token.
    Cls,
}

choice!(Pooling { Default, Mean, Last, Cls });

pub(crate) fn pooling_of(pooling: Pooling) -> Option<realm::Pooling> {
    match pooling {
        Pooling::Default => None,
        Pooling::Mean => Some(realm::Pooling::Mean),
        Pooling::Last => Some(realm::Pooling::Last),
        Pooling::Cls => Some(realm::Pooling::Cls),
    }
}

/// Facts about a model. The texts belong to the model's handle.
#[repr(C)]
pub struct ModelInfo {
    /// The reference that it was loaded by.
    pub reference: *const c_char,
    /// The name in the file, `general.name`; empty if it has none.
    pub name: *const c_char,
    /// The architecture, such as `llama`.
    pub architecture: *const c_char,
    /// The device that it runs on.
    pub device: *const c_char,
    /// The number of weights.
    pub parameters: u64,
    /// The size of the file, in bytes.
    pub file_bytes: u64,
    /// The size of the vocabulary, in tokens.
    pub vocabulary: usize,
    /// The number of transformer layers.
    pub layers: usize,
    /// The longest context of one request, prompt and generation together, in tokens.
    pub context_length: usize,
    /// The longest context that the model was trained for, in tokens.
    pub trained_context_length: usize,
    /// The length of a hidden state, and so of an embedding.
    pub hidden: usize,
    /// The default pooling of embeddings.
    pub pooling: Pooling,
    /// True if it has a chat template.
    pub chat_template: bool,
}

/// Frees a model's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_free(model: *mut Model) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(model) }
}

/// Returns another handle of the same model, as the same tenant sees it. NULL only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_clone(model: *const Model) -> *mut Model {
    // SAFETY: an object of ours, or NULL.
    unsafe { model.as_ref() }.map_or(std::ptr::null_mut(), |model| own(Model::from(model.model.clone())))
}

/// Writes facts about the model to `info`; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_info(model: *const Model, info: *mut ModelInfo) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(model) = (unsafe { model.as_ref() }) else { return false };
    let known = model.model.info();
    let said = ModelInfo {
        reference: model.reference.as_ptr(),
        name: model.name.as_ptr(),
        architecture: model.architecture.as_ptr(),
        device: model.device.as_ptr(),
        parameters: known.parameters,
        file_bytes: known.file_bytes,
        vocabulary: known.vocabulary,
        layers: known.layers,
        context_length: known.context_length,
        trained_context_length: known.trained_context_length,
        hidden: known.hidden,
        pooling: match known.pooling {
            realm::Pooling::Mean => Pooling::Mean,
            realm::Pooling::Last => Pooling::Last,
            realm::Pooling::Cls => Pooling::Cls,
        },
        chat_template: known.chat_template,
    };
    // SAFETY: the caller's place for the facts, or NULL.
    unsafe { put(info, said) };
    true
}

/// Encodes a text into token ids, for `realm_free`; their number goes to `len`. With `special`, control
/// tokens spelled in the text become those tokens: use it only for text that no user wrote. With
/// `boundaries`, the begin and end tokens are added if the model expects them. Errors: `invalid-argument` for
/// text that is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_encode(
    model: *const Model,
    text: *const c_char,
    special: bool,
    boundaries: bool,
    len: *mut usize,
    error: *mut *mut Error,
) -> *mut u32 {
    // SAFETY: an object of ours, the caller's text, and places of the caller's.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let model = &object(model, "model")?.model;
            copy(&model.encode_special(crate::memory::text(text, "text")?, special, boundaries), len)
        })
    }
}

/// Decodes tokens into text, for `realm_free`, leaving out control tokens. Its length in bytes goes to
/// `text_len`, which may be NULL. Errors: `invalid-argument` for an id outside the vocabulary.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_decode(
    model: *const Model,
    tokens: *const u32,
    len: usize,
    text_len: *mut usize,
    error: *mut *mut Error,
) -> *mut c_char {
    // SAFETY: an object of ours, the caller's array, and places of the caller's.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let text = object(model, "model")?.model.decode(array(tokens, len, "tokens")?)?;
            copy_text(&text, text_len)
        })
    }
}

/// Returns a tokenizer of the model, for everything else; the caller frees it. NULL only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_tokenizer(model: *const Model) -> *mut Tokenizer {
    // SAFETY: an object of ours, or NULL.
    let model = unsafe { model.as_ref() };
    model.map_or(std::ptr::null_mut(), |model| own(Tokenizer::Of(model.model.clone())))
}

/// Renders a request for a conversation with the model's chat template, for `realm_free`. The text is for
/// reading only: it no longer shows which words are the template's and which a user's, so parsing control
/// tokens in it is not safe. For tokens to give to the model, use `realm_model_render_tokens`. Errors:
/// `unsupported` for a model without a template, `invalid-argument` with the template's own error and for
/// another kind of request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_render(
    model: *const Model,
    request: *const Request,
    error: *mut *mut Error,
) -> *mut c_char {
    // SAFETY: objects of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let prompt = object(model, "model")?.model.render(&object(request, "request")?.0)?;
            copy_text(&prompt, std::ptr::null_mut())
        })
    }
}

/// Returns the token ids of a request for a conversation, rendered with the model's chat template, for
/// `realm_free`; their number goes to `len`. Only the template can spell control tokens; a user's words
/// cannot. Errors: same as `realm_model_render`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_render_tokens(
    model: *const Model,
    request: *const Request,
    len: *mut usize,
    error: *mut *mut Error,
) -> *mut u32 {
    // SAFETY: objects of ours, and places of the caller's.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            copy(&object(model, "model")?.model.render_tokens(&object(request, "request")?.0)?, len)
        })
    }
}

/// Runs a request to its end. Blocks; use `realm_model_stream` for a request that may be cancelled. Errors:
/// `invalid-argument` and `limit-exceeded` say what is wrong with the request, or which limit of the tenant
/// it reached; `overloaded` if too many requests wait already; and the error that ended the request early,
/// such as `trap` of a tenant's program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_generate(
    model: *const Model,
    request: *const Request,
    error: *mut *mut Error,
) -> *mut Completion {
    // SAFETY: objects of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let answer = object(model, "model")?.model.generate(object(request, "request")?.0.clone())?;
            Ok(own(Completion::from(answer)))
        })
    }
}

/// Starts a request and returns at once; `realm_generation_next` returns its chunks. Errors: same as
/// `realm_model_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_stream(
    model: *const Model,
    request: *const Request,
    error: *mut *mut Error,
) -> *mut Generation {
    // SAFETY: objects of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let stream = object(model, "model")?.model.stream(object(request, "request")?.0.clone())?;
            Ok(own(Generation(stream.into())))
        })
    }
}

/// Runs a request and calls `on_chunk` with each chunk, on this thread, until it returns false or throws,
/// which cancels the request. Returns true at the end, also if `on_chunk` ended it. Blocks. Errors: same as
/// `realm_model_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn realm_model_each(
    model: *const Model,
    request: *const Request,
    on_chunk: OnChunk,
    user_data: *mut c_void,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: objects of ours, and the caller's place for an error.
    let started = unsafe {
        attempt(error, None, || {
            let on_chunk = on_chunk.ok_or_else(|| Error::invalid("`on_chunk` is NULL"))?;
            let stream = object(model, "model")?.model.stream(object(request, "request")?.0.clone())?;
            Ok(Some((on_chunk, SharedGeneration::from(stream))))
        })
    };
    let Some((on_chunk, generation)) = started else { return false };
    loop {
        // SAFETY: the caller's place for an error.
        let next = unsafe {
            attempt(error, Err(()), || Ok(Ok(generation.next_blocking().transpose()?.map(Chunk::from))))
        };
        let chunk = match next {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return true,
            Err(()) => return false,
        };
        // No panic is caught here: an exception of the callback passes through, and drops the generation on
        // its way.
        // SAFETY: the caller's function with the caller's data, and a chunk that lives until it returns.
        if !unsafe { on_chunk(user_data, &raw const chunk) } {
            return true;
        }
    }
}

/// The scores of the tokens of a text.
pub struct Scores(Vec<(Option<f32>, Vec<TokenLogprob>)>);

impl From<Vec<realm::Scored>> for Scores {
    fn from(scored: Vec<realm::Scored>) -> Self {
        let score =
            |score: realm::Scored| (score.next, score.top.into_iter().map(TokenLogprob::from).collect());
        Self(scored.into_iter().map(score).collect())
    }
}

/// The score of one token.
#[repr(C)]
pub struct Score {
    /// The log-probability, in nats, of the token that follows in the text; not a number after the last one.
    pub next: f32,
    /// The likeliest tokens in its place, likeliest first. They belong to the scores.
    pub top: *const TokenLogprob,
    /// The number of tokens in `top`.
    pub top_len: usize,
}

/// Returns, for each of some tokens, the log-probability of the token that follows it and the `top` likeliest
/// tokens in its place. Blocks. Errors: same as `realm_model_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_score(
    model: *const Model,
    tokens: *const u32,
    len: usize,
    top: usize,
    error: *mut *mut Error,
) -> *mut Scores {
    // SAFETY: an object of ours, the caller's array and place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let scored = object(model, "model")?.model.score(array(tokens, len, "tokens")?, top)?;
            Ok(own(Scores::from(scored)))
        })
    }
}

/// Returns the number of scored tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_scores_len(scores: *const Scores) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { scores.as_ref() }.map_or(0, |scores| scores.0.len())
}

/// Writes the score of token `index` to `score`; false if `index` is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_scores_get(scores: *const Scores, index: usize, score: *mut Score) -> bool {
    // SAFETY: an object of ours, or NULL.
    let found = unsafe { scores.as_ref() }.and_then(|scores| scores.0.get(index));
    let Some((next, top)) = found else { return false };
    let found = Score { next: next.unwrap_or(f32::NAN), top: top.as_ptr(), top_len: top.len() };
    // SAFETY: the caller's place for a score, or NULL.
    unsafe { put(score, found) };
    true
}

/// Frees scores.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_scores_free(scores: *mut Scores) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(scores) }
}

/// Returns the log-probability of each token of `continuation` after `prompt`, in nats, `[continuation_len]`,
/// for `realm_free`; their sum is the log-likelihood. Blocks. Errors: same as `realm_model_generate`, and
/// `invalid-argument` if either is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_log_likelihood(
    model: *const Model,
    prompt: *const u32,
    prompt_len: usize,
    continuation: *const u32,
    continuation_len: usize,
    error: *mut *mut Error,
) -> *mut f32 {
    // SAFETY: an object of ours, the caller's arrays and place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let prompt = array(prompt, prompt_len, "prompt")?;
            let continuation = array(continuation, continuation_len, "continuation")?;
            let said = object(model, "model")?.model.log_likelihood(prompt, continuation)?;
            copy(&said, std::ptr::null_mut())
        })
    }
}

/// Returns the embedding of a text: a vector of length 1, pooled as the model's file says, for `realm_free`.
/// The number of its elements goes to `len`. Blocks. Errors: same as `realm_model_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_embed(
    model: *const Model,
    text: *const c_char,
    len: *mut usize,
    error: *mut *mut Error,
) -> *mut f32 {
    // SAFETY: an object of ours, the caller's text, and places of the caller's.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let vector = object(model, "model")?.model.embed(crate::memory::text(text, "text")?)?;
            copy(&vector, len)
        })
    }
}

/// Returns the embedding of tokens, for `realm_free`; with `normalize` its length is 1, so that a dot product
/// is the cosine. Blocks. Errors: same as `realm_model_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_embed_tokens(
    model: *const Model,
    tokens: *const u32,
    tokens_len: usize,
    pooling: MaybeUninit<Pooling>,
    normalize: bool,
    len: *mut usize,
    error: *mut *mut Error,
) -> *mut f32 {
    // SAFETY: an object of ours, the caller's array, and places of the caller's.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let options = EmbedOptions { pooling: pooling_of(chosen(pooling)?), normalize };
            let tokens = array(tokens, tokens_len, "tokens")?;
            copy(&object(model, "model")?.model.embed_with(tokens, &options)?, len)
        })
    }
}

/// Creates an empty sequence that the caller drives, one forward pass at a time. Errors: `internal`; with an
/// adapter, `invalid-argument` if it belongs to another model and `limit-exceeded` if the tenant may not use
/// it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_sequence(model: *const Model, error: *mut *mut Error) -> *mut Sequence {
    // SAFETY: an object of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || Ok(own(Sequence(object(model, "model")?.model.sequence()?))))
    }
}

/// Restores a sequence from the bytes of `realm_sequence_save`, written by this runtime or by another one
/// with the same key. Errors: `invalid-argument` for bytes that are not signed with the runtime's key or were
/// changed since, and for bytes of another model, device, cache type or adapter; `limit-exceeded` if the
/// sequence is longer than the context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_restore_sequence(
    model: *const Model,
    bytes: *const u8,
    len: usize,
    error: *mut *mut Error,
) -> *mut Sequence {
    // SAFETY: an object of ours, the caller's bytes and place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let bytes = array(bytes, len, "bytes")?;
            Ok(own(Sequence(object(model, "model")?.model.restore_sequence(bytes)?)))
        })
    }
}

/// Restores a sequence that a runtime with another key saved. The format of the bytes is checked in full, but
/// Realm cannot check that their keys and values are those that the model computes. Therefore the tenant's
/// other requests do not use them. Errors: `invalid-argument` for anything but a saved sequence of this
/// model, device, cache type and adapter; `limit-exceeded` if the sequence is longer than the context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_restore_foreign_sequence(
    model: *const Model,
    bytes: *const u8,
    len: usize,
    error: *mut *mut Error,
) -> *mut Sequence {
    // SAFETY: an object of ours, the caller's bytes and place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let bytes = array(bytes, len, "bytes")?;
            Ok(own(Sequence(object(model, "model")?.model.restore_foreign_sequence(bytes)?)))
        })
    }
}

/// Reads the model's counters and gauges, over all tenants since it was loaded. NULL only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_metrics(model: *const Model) -> *mut Metrics {
    // SAFETY: an object of ours, or NULL.
    let model = unsafe { model.as_ref() };
    model.map_or(std::ptr::null_mut(), |model| own(Metrics::from(model.model.metrics())))
}

/// Loads a LoRA adapter while requests run: a GGUF file, or the folder that PEFT saves. Blocks. Errors: `io`,
/// `invalid-adapter` for one that contradicts itself or does not fit the model, `unsupported` for kinds other
/// than plain LoRA.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_load_adapter(
    model: *const Model,
    path: *const c_char,
    error: *mut *mut Error,
) -> *mut Adapter {
    // SAFETY: an object of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let inner = object(model, "model")?.model.load_adapter(text(path, "path")?)?;
            Ok(own(Adapter::from(inner)))
        })
    }
}

/// Returns a new handle of the same model with an adapter, and a factor on what the adapter adds.
/// Generations, scores, embeddings and sequences are then those of the adapted model. NULL only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_adapted(
    model: *const Model,
    adapter: *const Adapter,
    scale: f32,
) -> *mut Model {
    // SAFETY: objects of ours, or NULL.
    match unsafe { (model.as_ref(), adapter.as_ref()) } {
        (Some(model), Some(adapter)) => own(Model::from(model.model.adapted(&adapter.inner, scale))),
        _ => std::ptr::null_mut(),
    }
}
