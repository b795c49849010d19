//! Token sequences that the caller drives.

use std::mem::MaybeUninit;

use crate::choice::chosen;
use crate::error::{Error, attempt};
use crate::memory::{array, copy, free, object, object_mut, own, put};

/// A token sequence with its KV cache. While it is idle, Realm may give its part of the cache to others and
/// compute it again when it is needed.
pub struct Sequence(pub(crate) realm::Sequence);

/// The results of a forward pass.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Output {
    /// Only keys and values; a later forward pass returns results.
    Nothing,
    /// The logits after the last token, `[vocabulary]`.
    LastLogits,
    /// The logits after every new token, `[new tokens, vocabulary]`.
    Logits,
    /// The last hidden state of every new token, `[new tokens, hidden]`.
    Hidden,
}

/// The results of a forward pass.
pub struct Forwarded(realm::Forwarded);

/// Adds tokens at the end; the next forward pass computes them. Errors: `invalid-argument` for tokens outside
/// the vocabulary, `limit-exceeded` beyond the context; no token is added then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_sequence_append(
    sequence: *mut Sequence,
    tokens: *const u32,
    len: usize,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, the caller's array and place for an error.
    unsafe {
        attempt(error, false, || {
            object_mut(sequence, "sequence")?.0.append(array(tokens, len, "tokens")?)?;
            Ok(true)
        })
    }
}

/// Computes the tokens appended since the last forward pass, or the last token again if there are none.
/// Shares batches with other requests. Blocks. Errors: `invalid-argument` for an empty sequence, and the
/// error that ended the forward pass early.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_sequence_forward(
    sequence: *mut Sequence,
    output: MaybeUninit<Output>,
    error: *mut *mut Error,
) -> *mut Forwarded {
    // SAFETY: an object of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let output = match chosen(output)? {
                Output::Nothing => realm::Output::Nothing,
                Output::LastLogits => realm::Output::LastLogits,
                Output::Logits => realm::Output::Logits,
                Output::Hidden => realm::Output::Hidden,
            };
            Ok(own(Forwarded(object_mut(sequence, "sequence")?.0.forward(output)?)))
        })
    }
}

/// Returns the sequence's tokens; their number goes to `len`. They belong to the sequence until it changes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_sequence_tokens(sequence: *const Sequence, len: *mut usize) -> *const u32 {
    // SAFETY: an object of ours, or NULL.
    let tokens = unsafe { sequence.as_ref() }.map_or(&[][..], |sequence| sequence.0.tokens());
    // SAFETY: the caller's place for a length, or NULL.
    unsafe { put(len, tokens.len()) };
    tokens.as_ptr()
}

/// Returns the longest length that the sequence may have, in tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_sequence_context_length(sequence: *const Sequence) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { sequence.as_ref() }.map_or(0, |sequence| sequence.0.context_length())
}

/// Creates another sequence with the same tokens. Both share the computed part until they differ. Errors:
/// `internal`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_sequence_fork(
    sequence: *const Sequence,
    error: *mut *mut Error,
) -> *mut Sequence {
    // SAFETY: an object of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || Ok(own(Sequence(object(sequence, "sequence")?.0.fork()?))))
    }
}

/// Drops the tokens from index `len` on. Errors: `internal`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_sequence_truncate(
    sequence: *mut Sequence,
    len: usize,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, and the caller's place for an error.
    unsafe {
        attempt(error, false, || {
            object_mut(sequence, "sequence")?.0.truncate(len)?;
            Ok(true)
        })
    }
}

/// Returns tokens, keys and values as bytes, for `realm_model_restore_sequence` with the same model on the
/// same kind of device, and then for `realm_free`. Their number goes to `len`. Tokens appended after the last
/// forward pass are not included. Blocks. Errors: `internal`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_sequence_save(
    sequence: *const Sequence,
    len: *mut usize,
    error: *mut *mut Error,
) -> *mut u8 {
    // SAFETY: an object of ours, and places of the caller's.
    unsafe { attempt(error, std::ptr::null_mut(), || copy(&object(sequence, "sequence")?.0.save()?, len)) }
}

/// Frees a sequence and its part of the KV cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_sequence_free(sequence: *mut Sequence) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(sequence) }
}

/// Returns the numbers, row by row, without a copy: `[rows, width]`. They belong to the results. The number
/// of rows goes to `rows`, that of numbers in a row to `width`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_forwarded_values(
    forwarded: *const Forwarded,
    rows: *mut usize,
    width: *mut usize,
) -> *const f32 {
    // SAFETY: an object of ours, or NULL.
    let forwarded = unsafe { forwarded.as_ref() };
    let (count, wide) = forwarded.map_or((0, 0), |forwarded| (forwarded.0.rows().len(), forwarded.0.width));
    // SAFETY: the caller's places for numbers, or NULL.
    unsafe {
        put(rows, count);
        put(width, wide);
    }
    forwarded.map_or(std::ptr::null(), |forwarded| forwarded.0.values.as_ptr())
}

/// Returns the number of the sequence's tokens that were found in the prefix cache for this forward pass.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_forwarded_cached(forwarded: *const Forwarded) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { forwarded.as_ref() }.map_or(0, |forwarded| forwarded.0.cached)
}

/// Frees results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_forwarded_free(forwarded: *mut Forwarded) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(forwarded) }
}
