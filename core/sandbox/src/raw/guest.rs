//! The memory of a module.

use wasmtime::{Caller, Memory};

use crate::Error;
use crate::error::HostError;
use crate::state::State;

fn memory(caller: &mut Caller<'_, State>) -> wasmtime::Result<Memory> {
    let memory = caller.get_export("memory").and_then(|export| export.into_memory());
    // Linking has checked that the module exports one.
    memory.ok_or_else(|| Error::invalid("the module exports no `memory`").into())
}

/// Returns the bytes `at .. at + len` of a memory of `size` bytes.
fn range(at: u64, len: u64, size: usize) -> Result<std::ops::Range<usize>, Error> {
    let outside = || Error::invalid(format!("{len} bytes at {at} are not in the memory of {size} bytes"));
    let end = at.checked_add(len).filter(|&end| end <= size as u64).ok_or_else(outside)?;
    Ok(at as usize..end as usize)
}

/// Copies bytes out of the guest.
pub(super) fn bytes(caller: &mut Caller<'_, State>, at: u64, len: u64) -> Result<Vec<u8>, HostError> {
    let memory = memory(caller)?;
    let data = memory.data(&*caller);
    Ok(data[range(at, len, data.len())?].to_vec())
}

/// Copies a text out of the guest.
pub(super) fn text(caller: &mut Caller<'_, State>, at: u64, len: u64) -> Result<String, HostError> {
    let text = String::from_utf8(bytes(caller, at, len)?);
    Ok(text.map_err(|error| Error::invalid(format!("a text is no UTF-8: {error}")))?)
}

/// Copies numbers of 4 bytes out of the guest.
pub(super) fn words(caller: &mut Caller<'_, State>, at: u64, len: u64) -> Result<Vec<u32>, HostError> {
    let bytes = bytes(caller, at, len.saturating_mul(4))?;
    Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}

/// Copies floats out of the guest.
pub(super) fn floats(caller: &mut Caller<'_, State>, at: u64, len: u64) -> Result<Vec<f32>, HostError> {
    Ok(words(caller, at, len)?.into_iter().map(f32::from_bits).collect())
}

/// Writes as many bytes as fit; returns the number of all.
pub(super) fn put_bytes(
    caller: &mut Caller<'_, State>,
    at: u64,
    room: u64,
    bytes: &[u8],
) -> Result<i64, HostError> {
    let len = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
    let memory = memory(caller)?;
    let data = memory.data_mut(&mut *caller);
    let range = range(at, len as u64, data.len())?;
    data[range].copy_from_slice(&bytes[..len]);
    Ok(bytes.len() as i64)
}

/// Writes as many numbers as fit; returns the number of all.
pub(super) fn put_words(
    caller: &mut Caller<'_, State>,
    at: u64,
    room: u64,
    words: impl ExactSizeIterator<Item = u32>,
) -> Result<i64, HostError> {
    let count = words.len();
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let bytes: Vec<u8> = words.take(room).flat_map(u32::to_le_bytes).collect();
    put_bytes(caller, at, bytes.len() as u64, &bytes)?;
    Ok(count as i64)
}
