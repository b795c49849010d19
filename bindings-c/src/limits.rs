//! What a tenant may use.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::choice::{chosen, known};
use crate::error::{Error, attempt};
use crate::memory::{free, object_mut, own, text_of};

/// What a tenant may use at most.
pub struct Limits {
    pub(crate) limits: realm::Limits,
    models: Option<Vec<CString>>,
    adapters: Option<Vec<CString>>,
}

impl From<realm::Limits> for Limits {
    fn from(limits: realm::Limits) -> Self {
        let texts = |names: &Option<Vec<String>>| -> Option<Vec<CString>> {
            names.as_ref().map(|names| names.iter().map(|name| text_of(name)).collect())
        };
        Self { models: texts(&limits.models), adapters: texts(&limits.adapters), limits }
    }
}

/// A limit that is a number.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Limit {
    /// Requests that run at once; others wait.
    MaxConcurrent,
    /// Requests that wait for a place; one more is refused with `limit-exceeded`. 1024 by default.
    MaxQueued,
    /// Tokens in the KV cache of one model over all running requests.
    KvTokens,
    /// Tokens computed a minute, prompts and generated ones, over all models. A tenant who used them up waits.
    TokensPerMinute,
    /// Milliseconds from a request's start to its end, waiting included; then it ends with `limit-exceeded`.
    RequestTimeoutMs,
    /// Bytes that one run of a program may use. 64 MiB by default.
    ProgramMemory,
    /// Milliseconds that one run of a program computes itself. 10 s by default.
    ProgramCpuTimeMs,
    /// Handles that one run of a program holds at once. 1024 by default.
    ProgramHandles,
    /// Bytes of text that one run of a program sends. 16 MiB by default.
    ProgramOutput,
    /// Bytes of memory that the tenant causes at once, of every kind. 1 GiB by default.
    Memory,
}

/// A limit that is a list of names.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum NameLimit {
    /// Models that the tenant may use.
    Models,
    /// Adapters that the tenant may use.
    Adapters,
}

/// The default limits.
#[unsafe(no_mangle)]
pub extern "C" fn realm_limits_new() -> *mut Limits {
    own(Limits::from(realm::Limits::default()))
}

/// Frees limits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_free(limits: *mut Limits) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(limits) }
}

/// Share of the computation when there is more to do than can be done at once; 1 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_set_weight(limits: *mut Limits, weight: f32) {
    // SAFETY: an object of ours, or NULL.
    if let Some(limits) = unsafe { limits.as_mut() } {
        limits.limits.weight = weight;
    }
}

/// The weight.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_weight(limits: *const Limits) -> f32 {
    // SAFETY: an object of ours, or NULL.
    unsafe { limits.as_ref() }.map_or(0.0, |limits| limits.limits.weight)
}

/// Sets a limit; REALM_NONE is no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_set(limits: *mut Limits, limit: MaybeUninit<Limit>, value: u64) {
    // SAFETY: an object of ours, or NULL.
    let Some(Limits { limits, .. }) = (unsafe { limits.as_mut() }) else { return };
    let Some(limit) = known(limit) else { return };
    let size = usize::try_from(value).unwrap_or(usize::MAX);
    let some = |size| (value != u64::MAX).then_some(size);
    match limit {
        Limit::MaxConcurrent => limits.max_concurrent = some(size),
        Limit::MaxQueued => limits.max_queued = size,
        Limit::KvTokens => limits.kv_tokens = some(size),
        Limit::TokensPerMinute => {
            let tokens = u32::try_from(value).unwrap_or(u32::MAX);
            limits.tokens_per_minute = (value != u64::MAX).then_some(tokens);
        }
        Limit::RequestTimeoutMs => {
            limits.request_timeout = (value != u64::MAX).then(|| Duration::from_millis(value));
        }
        Limit::ProgramMemory => limits.program.memory = size,
        Limit::ProgramCpuTimeMs => limits.program.cpu_time = Duration::from_millis(value),
        Limit::ProgramHandles => limits.program.handles = size,
        Limit::ProgramOutput => limits.program.output = size,
        Limit::Memory => limits.memory = size,
    }
}

/// A limit; REALM_NONE is no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_get(limits: *const Limits, limit: MaybeUninit<Limit>) -> u64 {
    // SAFETY: an object of ours, or NULL.
    let Some(Limits { limits, .. }) = (unsafe { limits.as_ref() }) else { return u64::MAX };
    let Some(limit) = known(limit) else { return u64::MAX };
    let of = |size: Option<usize>| size.map_or(u64::MAX, |size| size as u64);
    match limit {
        Limit::MaxConcurrent => of(limits.max_concurrent),
        Limit::MaxQueued => limits.max_queued as u64,
        Limit::KvTokens => of(limits.kv_tokens),
        Limit::TokensPerMinute => limits.tokens_per_minute.map_or(u64::MAX, u64::from),
        Limit::RequestTimeoutMs => limits.request_timeout.map_or(u64::MAX, |time| time.as_millis() as u64),
        Limit::ProgramMemory => limits.program.memory as u64,
        Limit::ProgramCpuTimeMs => limits.program.cpu_time.as_millis() as u64,
        Limit::ProgramHandles => limits.program.handles as u64,
        Limit::ProgramOutput => limits.program.output as u64,
        Limit::Memory => limits.memory as u64,
    }
}

/// Sets which models or adapters a tenant may use: `len` names, which are copied. `names` may be NULL where `len` is 0: then it may
/// use none. Errors: `invalid-argument` for no UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_set_names(
    limits: *mut Limits,
    limit: MaybeUninit<NameLimit>,
    names: *const *const c_char,
    len: usize,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, the caller's texts and place for an error.
    unsafe {
        attempt(error, false, || {
            let limits = object_mut(limits, "limits")?;
            let names = Some(crate::memory::names(names, len, "names")?);
            let mut changed = limits.limits.clone();
            match chosen(limit)? {
                NameLimit::Models => changed.models = names,
                NameLimit::Adapters => changed.adapters = names,
            }
            *limits = Limits::from(changed);
            Ok(true)
        })
    }
}

/// How many models or adapters the tenant may use; REALM_NONE if it may use all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_names(limits: *const Limits, limit: MaybeUninit<NameLimit>) -> u64 {
    // SAFETY: an object of ours, or NULL.
    let names = unsafe { limits.as_ref() }.and_then(|limits| limits.of(limit));
    names.map_or(u64::MAX, |names| names.len() as u64)
}

/// One of the names; NULL if there are not so many. Belongs to the limits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_name(
    limits: *const Limits,
    limit: MaybeUninit<NameLimit>,
    index: usize,
) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    let names = unsafe { limits.as_ref() }.and_then(|limits| limits.of(limit));
    names.and_then(|names| names.get(index)).map_or(std::ptr::null(), |name| name.as_ptr())
}

impl Limits {
    fn of(&self, limit: MaybeUninit<NameLimit>) -> Option<&[CString]> {
        match known(limit)? {
            NameLimit::Models => self.models.as_deref(),
            NameLimit::Adapters => self.adapters.as_deref(),
        }
    }
}
