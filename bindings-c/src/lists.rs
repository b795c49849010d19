//! Lists of requests and texts in one call.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use realm::EmbedOptions;

use crate::choice::chosen;
use crate::error::{Error, attempt};
use crate::generation::Completion;
use crate::memory::{array, copy, names, object, own};
use crate::model::{Model, Pooling, Scores, pooling_of};
use crate::request::Request;

/// Runs `len` requests to their ends. `completions` has a place for each, in their order. A window of them
/// runs at once, so a list of any length never fills a queue. If `errors` is NULL, the first error ends the
/// call, and no place is written. Otherwise a failed request has NULL in `completions` and its error at the
/// same index of `errors`; all other places of `errors` are NULL. The caller frees both. Blocks. Errors: same
/// as `realm_model_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_generate_many(
    model: *const Model,
    requests: *const *const Request,
    len: usize,
    completions: *mut *mut Completion,
    errors: *mut *mut Error,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: objects of ours, the caller's arrays of `len` places, and the caller's place for an error.
    unsafe {
        attempt(error, false, || {
            let model = &object(model, "model")?.model;
            if len > 0 && completions.is_null() {
                return Err(Error::invalid("`completions` is NULL"));
            }
            let mut asked = Vec::new();
            for &request in array(requests, len, "requests")? {
                asked.push(object(request, "requests")?.0.clone());
            }
            if errors.is_null() {
                for (at, completion) in model.generate_many(asked)?.into_iter().enumerate() {
                    completions.add(at).write(own(Completion::from(completion)));
                }
                return Ok(true);
            }
            for (at, result) in model.generate_each(asked).into_iter().enumerate() {
                let (completion, failed) = match result {
                    Ok(completion) => (own(Completion::from(completion)), std::ptr::null_mut()),
                    Err(why) => (std::ptr::null_mut(), own(Error::from(why))),
                };
                completions.add(at).write(completion);
                errors.add(at).write(failed);
            }
            Ok(true)
        })
    }
}

/// Returns the token ids of `len` texts, each encoded as `realm_model_encode` does, one text after another,
/// for `realm_free`. `lens` gets the number of tokens of each text. Errors: `invalid-argument` for text that
/// is not UTF-8, with the text's index.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_encode_many(
    model: *const Model,
    texts: *const *const c_char,
    len: usize,
    special: bool,
    boundaries: bool,
    lens: *mut usize,
    error: *mut *mut Error,
) -> *mut u32 {
    // SAFETY: an object of ours, the caller's arrays of `len` places, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let model = &object(model, "model")?.model;
            if len > 0 && lens.is_null() {
                return Err(Error::invalid("`lens` is NULL"));
            }
            let tokens = model.encode_many(&names(texts, len, "texts")?, special, boundaries);
            for (at, tokens) in tokens.iter().enumerate() {
                lens.add(at).write(tokens.len());
            }
            copy(&tokens.concat(), std::ptr::null_mut())
        })
    }
}

/// Returns one embedding for each of `len` texts, `[len, width]` in one array for `realm_free`; `width`,
/// which may be NULL, gets the length of each vector. With `normalize` their lengths are 1. Lists of
/// thousands are fine. Blocks. Errors: same as `realm_model_generate`, with the text's index.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_embed_many(
    model: *const Model,
    texts: *const *const c_char,
    len: usize,
    pooling: MaybeUninit<Pooling>,
    normalize: bool,
    width: *mut usize,
    error: *mut *mut Error,
) -> *mut f32 {
    // SAFETY: an object of ours, the caller's array of texts, and places of the caller's.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let model = &object(model, "model")?.model;
            let options = EmbedOptions { pooling: pooling_of(chosen(pooling)?), normalize };
            let tokens = model.encode_many(&names(texts, len, "texts")?, false, true);
            let vectors = model.embed_many(tokens, &options)?;
            crate::memory::put(width, model.info().hidden);
            copy(&vectors.concat(), std::ptr::null_mut())
        })
    }
}

/// Scores `len` texts as `realm_model_score` does; `texts[i]` has `lens[i]` tokens, and `scores` has a place
/// for each. Blocks. Errors: same as `realm_model_generate`, with the text's index; no place is written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_score_many(
    model: *const Model,
    texts: *const *const u32,
    lens: *const usize,
    len: usize,
    top: usize,
    scores: *mut *mut Scores,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, the caller's arrays of `len` places, and the caller's place for an error.
    unsafe {
        attempt(error, false, || {
            let model = &object(model, "model")?.model;
            if len > 0 && scores.is_null() {
                return Err(Error::invalid("`scores` is NULL"));
            }
            let mut tokens = Vec::new();
            for (&text, &len) in array(texts, len, "texts")?.iter().zip(array(lens, len, "lens")?) {
                tokens.push(array(text, len, "texts")?.to_vec());
            }
            for (at, found) in model.score_many(tokens, top)?.into_iter().enumerate() {
                scores.add(at).write(own(Scores::from(found)));
            }
            Ok(true)
        })
    }
}
