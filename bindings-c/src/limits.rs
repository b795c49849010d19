//! The limits of tenants.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::choice::{choice, chosen, known};
use crate::error::{Error, attempt};
use crate::memory::{free, object_mut, own, text_of};

/// The limits of a tenant.
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
    /// The most requests that run at once; others wait.
    MaxConcurrent,
    /// The most requests that wait for a place; one more is refused with `limit-exceeded`. 1024 by default.
    MaxQueued,
    /// The most tokens in the KV cache of one model, over all running requests.
    KvTokens,
    /// The most tokens computed in a minute, of prompts and generated, over all models. A tenant that has
    /// used them up waits.
    TokensPerMinute,
    /// The most milliseconds from a request's start to its end, including waiting; then it ends with
    /// `limit-exceeded`.
    RequestTimeoutMs,
    /// The most bytes of memory of one run of a program. 64 MiB by default.
    ProgramMemory,
    /// The most milliseconds of computing time of one run of a program. 10 s by default.
    ProgramCpuTimeMs,
    /// The most handles that one run of a program holds at once. 1024 by default.
    ProgramHandles,
    /// The most bytes of text that one run of a program sends. 16 MiB by default.
    ProgramOutput,
    /// The most bytes of memory that the tenant holds at once, of all kinds. 1 GiB by default.
    Memory,
}

choice!(Limit {
    MaxConcurrent,
    MaxQueued,
    KvTokens,
    TokensPerMinute,
    RequestTimeoutMs,
    ProgramMemory,
    ProgramCpuTimeMs,
    ProgramHandles,
    ProgramOutput,
    Memory
});

/// A limit that is a list of names.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum NameLimit {
    /// The models that the tenant may use.
    Models,
    /// The adapters that the tenant may use.
    Adapters,
}

choice!(NameLimit { Models, Adapters });

/// Creates the default limits.
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

/// Sets the weight: the tenant's factor in fair sharing of the computation while others want some too. 1 by
/// default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_set_weight(limits: *mut Limits, weight: f32) {
    // SAFETY: an object of ours, or NULL.
    if let Some(limits) = unsafe { limits.as_mut() } {
        limits.limits.weight = weight;
    }
}

/// Returns the weight.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_weight(limits: *const Limits) -> f32 {
    // SAFETY: an object of ours, or NULL.
    unsafe { limits.as_ref() }.map_or(0.0, |limits| limits.limits.weight)
}

/// Sets a limit; REALM_NONE means no limit.
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

/// Returns a limit; REALM_NONE means no limit.
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

/// Sets the models or adapters that a tenant may use: `len` names, which are copied. With `len` 0, `names`
/// may be NULL, and the tenant may use none. Errors: `invalid-argument` for text that is not UTF-8.
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

/// Returns the number of models or adapters that the tenant may use; REALM_NONE if it may use all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_limits_names(limits: *const Limits, limit: MaybeUninit<NameLimit>) -> u64 {
    // SAFETY: an object of ours, or NULL.
    let names = unsafe { limits.as_ref() }.and_then(|limits| limits.of(limit));
    names.map_or(u64::MAX, |names| names.len() as u64)
}

/// Returns name `index`; NULL if `index` is out of range. Belongs to the limits.
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
