//! Models: texts and tokens, generations, scores, vectors, sequences, adapters.

use std::ffi::{CString, c_char, c_void};
use std::mem::MaybeUninit;

use realm::{EmbedOptions, SharedGeneration};

use crate::callback::OnChunk;
use crate::choice::chosen;
use crate::error::{Error, attempt};
use crate::generation::{Chunk, Completion, Generation, TokenLogprob};
use crate::memory::{array, copy, copy_text, free, object, own, put, text, text_of};
use crate::metrics::Metrics;
use crate::request::Request;
use crate::sequence::Sequence;
use crate::tokenizer::Tokenizer;

/// A loaded model, as one tenant sees it. Handles are cheap and share everything; the weights go when the last handle and the
/// last generation have gone.
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

/// How hidden states become an embedding.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Pooling {
    /// As the model's file says.
    Default,
    /// Their mean.
    Mean,
    /// That of the last token.
    Last,
    /// That of the first token.
    Cls,
}

pub(crate) fn pooling_of(pooling: Pooling) -> Option<realm::Pooling> {
    match pooling {
        Pooling::Default => None,
        Pooling::Mean => Some(realm::Pooling::Mean),
        Pooling::Last => Some(realm::Pooling::Last),
        Pooling::Cls => Some(realm::Pooling::Cls),
    }
}

/// What a model is. The texts belong to the model's handle.
#[repr(C)]
pub struct ModelInfo {
    /// What it was loaded by.
    pub reference: *const c_char,
    /// `general.name` of the file; empty if it has none.
    pub name: *const c_char,
    /// Such as `llama`.
    pub architecture: *const c_char,
    /// Where it runs.
    pub device: *const c_char,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Tokens that one request may have, prompt and generation together.
    pub context_length: usize,
    /// Tokens that the model was trained for.
    pub trained_context_length: usize,
    /// Numbers in a hidden state, and so in an embedding.
    pub hidden: usize,
    /// How hidden states become an embedding.
    pub pooling: Pooling,
    /// Whether it has a chat template.
    pub chat_template: bool,
}

/// Frees a model's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_free(model: *mut Model) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(model) }
}

/// Another handle of the same model, as the same tenant sees it. NULL only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_clone(model: *const Model) -> *mut Model {
    // SAFETY: an object of ours, or NULL.
    unsafe { model.as_ref() }.map_or(std::ptr::null_mut(), |model| own(Model::from(model.model.clone())))
}

/// Writes what the model is to `info`; false for NULL.
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
    // SAFETY: the caller's place for what is known, or NULL.
    unsafe { put(info, said) };
    true
}

/// Token ids of a text, for `realm_free`; their number goes to `len`. With `special`, control tokens spelled in it become those
/// tokens: only for text that no user wrote. With `boundaries`, the begin and end tokens are added where the model expects them.
/// Errors: `invalid-argument` for no UTF-8.
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

/// The text of tokens, for `realm_free`; control tokens are left out. Its length in bytes goes to `text_len`, which may be NULL.
/// Errors: `invalid-argument` for an id outside the vocabulary.
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

/// A tokenizer of the model, for everything else; to be freed. NULL only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_tokenizer(model: *const Model) -> *mut Tokenizer {
    // SAFETY: an object of ours, or NULL.
    let model = unsafe { model.as_ref() };
    model.map_or(std::ptr::null_mut(), |model| own(Tokenizer::Of(model.model.clone())))
}

/// The prompt that the model's chat template makes of a request for a conversation, for `realm_free`. It is to look at: as text it
/// no longer says which words are the template's and which a user's, so that control tokens in it can't be parsed safely;
/// `realm_model_render_tokens` gives what the model reads. Errors: `unsupported` for a model without a template,
/// `invalid-argument` with the template's own complaint and for another kind of request.
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

/// Token ids of the prompt that the model's chat template makes of a request for a conversation, for `realm_free`; their number
/// goes to `len`. A user's words in it are words, whatever they spell. Errors: as `realm_model_render`.
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

/// Runs a request to its end. Blocks; `realm_model_stream` is for what somebody may want to cancel. Errors: `invalid-argument` and
/// `limit-exceeded` say what about the request is wrong, or which limit of the tenant it reached; `overloaded` if too many requests
/// wait already; and what ended the request early, such as `trap` of a tenant's program.
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

/// Starts a request and returns at once; `realm_generation_next` gives its chunks. Errors: as `realm_model_generate`.
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

/// Runs a request and calls `on_chunk` with each chunk, on this thread, until it returns false or throws, which cancels the request.
/// Returns true at the end, also at one that `on_chunk` wanted. Blocks. Errors: as `realm_model_generate`.
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
        // No panic is caught here: what the callback throws passes through, and drops the generation on its way.
        // SAFETY: the caller's function with the caller's data, and a chunk that lives until it returns.
        if !unsafe { on_chunk(user_data, &raw const chunk) } {
            return true;
        }
    }
}

/// What a model says of each token of a text.
pub struct Scores(Vec<(Option<f32>, Vec<TokenLogprob>)>);

impl From<Vec<realm::Scored>> for Scores {
    fn from(scored: Vec<realm::Scored>) -> Self {
        let score =
            |score: realm::Scored| (score.next, score.top.into_iter().map(TokenLogprob::from).collect());
        Self(scored.into_iter().map(score).collect())
    }
}

/// What it says of one token.
#[repr(C)]
pub struct Score {
    /// Log-probability, in nats, of the token that follows in the text; not a number after the last one.
    pub next: f32,
    /// The likeliest tokens in its place, likeliest first. They belong to the scores.
    pub top: *const TokenLogprob,
    /// How many there are.
    pub top_len: usize,
}

/// For each of some tokens the log-probability of the one that follows, and the `top` likeliest in its place. Blocks. Errors: as
/// `realm_model_generate`.
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

/// How many tokens were scored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_scores_len(scores: *const Scores) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { scores.as_ref() }.map_or(0, |scores| scores.0.len())
}

/// Writes one token's score to `score`; false if there are not so many.
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

/// The log-probability of each token of `continuation` after `prompt`, in nats, `[continuation_len]`, for `realm_free`; their
/// sum is the log-likelihood. Blocks. Errors: as `realm_model_generate`, and `invalid-argument` if either is empty.
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

/// One vector of length 1 for a text, for `realm_free`, pooled as the model's file says. How many numbers it has goes to `len`.
/// Blocks. Errors: as `realm_model_generate`.
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

/// The vector for tokens; with `normalize` its length is 1, so that a dot product is the cosine. For `realm_free`. Blocks. Errors:
/// as `realm_model_generate`.
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

/// An empty sequence that the caller drives forward by forward. Errors: `internal`; with an adapter `invalid-argument` for another
/// model's and `limit-exceeded` for one that the tenant may not use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_sequence(model: *const Model, error: *mut *mut Error) -> *mut Sequence {
    // SAFETY: an object of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || Ok(own(Sequence(object(model, "model")?.model.sequence()?))))
    }
}

/// A sequence from what `realm_sequence_save` wrote, in this runtime or another one of the same key. Errors: `invalid-argument` for
/// bytes that are not signed with the runtime's key or were altered since, and for those of another model, device, cache type or
/// adapter; `limit-exceeded` if it is longer than the context.
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

/// A sequence from what a runtime of another key saved. Its form is checked in full; whether its keys and values are what the model
/// computes, nobody can know. The tenant's other requests don't use them. Errors: `invalid-argument` for anything but a saved sequence
/// of this model, device, cache type and adapter; `limit-exceeded` if it is longer than the context.
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

/// What the model has done for all tenants since it was loaded, and how it stands. NULL only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_metrics(model: *const Model) -> *mut Metrics {
    // SAFETY: an object of ours, or NULL.
    let model = unsafe { model.as_ref() };
    model.map_or(std::ptr::null_mut(), |model| own(Metrics::from(model.model.metrics())))
}

/// A LoRA adapter on a model. Unloaded when the last handle and the last request that uses it have gone.
pub struct Adapter {
    pub(crate) inner: realm::Adapter,
    name: CString,
}

/// Loads a LoRA adapter while requests run: a GGUF file, or the folder that PEFT saves. Blocks. Errors: `io`, `invalid-adapter` for
/// one that contradicts itself or does not fit the model, `unsupported` for kinds other than plain LoRA.
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
            Ok(own(Adapter { name: text_of(inner.name()), inner }))
        })
    }
}

/// What it was loaded by, which tenants' limits name. Belongs to the adapter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_adapter_name(adapter: *const Adapter) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    unsafe { adapter.as_ref() }.map_or(c"".as_ptr(), |adapter| adapter.name.as_ptr())
}

/// Its largest rank.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_adapter_rank(adapter: *const Adapter) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { adapter.as_ref() }.map_or(0, |adapter| adapter.inner.rank())
}

/// Bytes that its matrices take.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_adapter_bytes(adapter: *const Adapter) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { adapter.as_ref() }.map_or(0, |adapter| adapter.inner.bytes())
}

/// Frees an adapter's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_adapter_free(adapter: *mut Adapter) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(adapter) }
}

/// The same model with an adapter and a factor on what it adds, as a handle of its own: generations, scores, embeddings and
/// sequences are the changed model's. NULL only for NULL.
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
