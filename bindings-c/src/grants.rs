//! The grants of tenants' programs.

use std::ffi::{c_char, c_void};
use std::future::Future;
use std::pin::Pin;

use realm_handover::Sender;

use crate::callback::{Drop, UserData};
use crate::error::{Error, attempt};
use crate::log::{OnLog, sink};
use crate::memory::{free, object_mut, own, text, text_of};

/// Answers a program, or a model. Called on a thread of its own, so it may take long and call Realm.
pub type Tool =
    Option<unsafe extern "C" fn(user_data: *mut c_void, arguments: *const c_char, call: *mut ToolCall)>;

/// The things that a tenant's programs may do besides asking models. The default is nothing.
pub struct Grants(pub(crate) realm::Grants);

/// Creates grants that allow nothing yet.
#[unsafe(no_mangle)]
pub extern "C" fn realm_grants_new() -> *mut Grants {
    own(Grants(realm::Grants::none()))
}

/// Frees grants. Tenants that use them keep them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_free(grants: *mut Grants) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(grants) }
}

unsafe fn allow(grants: *mut Grants, more: impl FnOnce(realm::Grants) -> realm::Grants) {
    // SAFETY: an object of ours that only this thread uses, or NULL.
    if let Some(grants) = unsafe { grants.as_mut() } {
        grants.0 = more(std::mem::take(&mut grants.0));
    }
}

/// Lets programs write to Realm's own log (`realm_set_log`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_allow_log(grants: *mut Grants) {
    // SAFETY: an object of ours, or NULL.
    unsafe { allow(grants, realm::Grants::log) }
}

/// Lets programs write to a log of the caller's. `on_log` is called as in `realm_set_log`: soon after, on a
/// thread of its own. No line is dropped: waiting lines are the tenant's memory, and while 1 MiB of them is
/// waiting, the tenant's programs wait. Takes ownership of `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_allow_log_to(
    grants: *mut Grants,
    on_log: OnLog,
    user_data: *mut c_void,
    drop: Drop,
) {
    let data = UserData::new(user_data, drop);
    if let Some(on_log) = on_log {
        let queue = sink(on_log, data);
        // SAFETY: an object of ours, or NULL.
        unsafe { allow(grants, |grants| grants.log_queue(queue)) }
    }
}

/// Lets programs read the time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_allow_clock(grants: *mut Grants) {
    // SAFETY: an object of ours, or NULL.
    unsafe { allow(grants, realm::Grants::clock) }
}

/// Lets programs get the operating system's random numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_allow_random(grants: *mut Grants) {
    // SAFETY: an object of ours, or NULL.
    unsafe { allow(grants, |grants| grants.random(realm::Random::System)) }
}

/// Lets programs get random numbers that are the same in each run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_allow_random_seed(grants: *mut Grants, seed: u64) {
    // SAFETY: an object of ours, or NULL.
    unsafe { allow(grants, |grants| grants.random(realm::Random::Seed(seed))) }
}

/// Lets programs keep data between runs, in a folder of the tenant's own or, with NULL, in memory. Entries
/// may take this many bytes together. In memory each counts its key, its value and 128 bytes; in a folder its
/// file, in blocks of 4 KiB, and its name. Errors: `io` for a folder that cannot be created or read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_allow_store(
    grants: *mut Grants,
    folder: *const c_char,
    quota: usize,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, false, || {
            let grants = object_mut(grants, "grants")?;
            let store = match folder.is_null() {
                true => realm::Store::in_memory(quota),
                false => {
                    let folder = text(folder, "folder")?;
                    realm::Store::on_disk(folder, quota).map_err(realm::Error::from)?
                }
            };
            allow(grants, |grants| grants.store(store));
            Ok(true)
        })
    }
}

/// Lets programs send HTTP requests to a host, such as `api.example.com`, `localhost:8080` or
/// `*.example.com`. Errors: `invalid-argument` for text that is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_allow_http(
    grants: *mut Grants,
    host: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, false, || {
            let (grants, host) = (object_mut(grants, "grants")?, text(host, "host")?);
            allow(grants, |grants| grants.http(host));
            Ok(true)
        })
    }
}

/// Lets programs call a function of the application's by this name. Each call has a thread of its own, and
/// may be answered later. Takes ownership of `user_data`, even if it fails. Errors: `invalid-argument` for
/// text that is not UTF-8, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_grants_allow_tool(
    grants: *mut Grants,
    name: *const c_char,
    tool: Tool,
    user_data: *mut c_void,
    drop: Drop,
    error: *mut *mut Error,
) -> bool {
    let data = UserData::new(user_data, drop);
    // SAFETY: an object of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, false, || {
            let (grants, name) = (object_mut(grants, "grants")?, text(name, "name")?);
            let tool = tool_of(tool, data)?;
            allow(grants, |grants| grants.tool_async(name, tool));
            Ok(true)
        })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// Calls a function of the caller's, which may answer later. It has a thread of its own, since it may sleep
/// and call Realm.
///
/// # Errors
/// `invalid-argument` for NULL.
pub(crate) fn tool_of(
    tool: Tool,
    data: UserData,
) -> Result<impl Fn(String) -> Answer + Send + Sync + 'static, Error> {
    let tool = tool.ok_or_else(|| Error::invalid("`tool` is NULL"))?;
    Ok(move |arguments: String| -> Answer {
        let (answer, answered) = realm_handover::channel(1);
        let data = data.clone();
        let called = realm::unblock(move || {
            let (arguments, call) = (text_of(&arguments), own(ToolCall(answer)));
            // SAFETY: the caller's function with the caller's data; the text lives until it returns.
            unsafe { tool(data.get(), arguments.as_ptr(), call) };
            Ok(())
        });
        Box::pin(async move {
            called.await.map_err(|error| error.to_string())?;
            let gone = || Err("the tool gave no answer".to_owned());
            answered.recv().await.unwrap_or_else(gone)
        })
    })
}

/// A program that waits for a tool's answer.
pub struct ToolCall(Sender<Result<String, String>>);

impl ToolCall {
    unsafe fn answer(call: *mut Self, answer: Result<String, String>) {
        if !call.is_null() {
            // SAFETY: from `own`, and answered once.
            let call = unsafe { Box::from_raw(call) };
            // If the program has ended, the answer is not needed.
            let _ = call.0.try_send(answer);
        }
    }
}

/// Answers with a JSON text, which is copied, and ends the call. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tool_call_answer(call: *mut ToolCall, answer: *const c_char) {
    // SAFETY: the caller's text, and a call that is not answered.
    unsafe {
        let answer = text(answer, "answer").map(str::to_owned);
        ToolCall::answer(call, answer.map_err(|_| "the tool's answer is no UTF-8".to_owned()));
    }
}

/// Reports that the tool failed, with an error message for the program, which is copied, and ends the call.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tool_call_fail(call: *mut ToolCall, complaint: *const c_char) {
    // SAFETY: the caller's text, and a call that is not answered.
    unsafe {
        let complaint = text(complaint, "complaint").unwrap_or("the tool failed").to_owned();
        ToolCall::answer(call, Err(complaint));
    }
}
