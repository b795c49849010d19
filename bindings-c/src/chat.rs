//! Chat sessions.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use realm::{ChatTool, Message};
use serde_json::Value;

use crate::callback::{Drop, Tool, UserData};
use crate::choice::known;
use crate::error::{Error, attempt};
use crate::generation::{Completion, Generation};
use crate::grants::tool_of;
use crate::memory::{copy_text, free, json, object, object_mut, own, put, text};
use crate::model::Model;
use crate::request::Request;

/// The options of a chat session besides those of its request.
#[derive(Default)]
pub struct ChatOptions(realm::ChatOptions);

/// The rule for a conversation that no longer fits in the context.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Overflow {
    /// Drops the oldest turns, each a question with everything that answered it; system messages stay.
    DropOldest,
    /// Refuses the question with `limit-exceeded`.
    Refuse,
}

/// A conversation with a model: it keeps the messages, runs the tools that the model calls, and makes room
/// when the context is full. It answers one question at a time. A question that fails or is cancelled leaves
/// the conversation as it was before the question.
pub struct ChatSession(realm::ChatSession);

/// Creates the default options: no tools, at most 8 rounds of them, and the oldest turns are dropped.
#[unsafe(no_mangle)]
pub extern "C" fn realm_chat_options_new() -> *mut ChatOptions {
    own(ChatOptions::default())
}

/// Frees options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_options_free(options: *mut ChatOptions) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(options) }
}

/// Adds a tool that the session runs: its definition in OpenAI's format, a JSON object, and a function that
/// receives the arguments and answers with JSON. The model reads the answer or the error message. Takes
/// ownership of `user_data`, even if it fails. Errors: `invalid-argument` for text that is not JSON, a
/// definition without a name, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_options_add_tool(
    options: *mut ChatOptions,
    definition: *const c_char,
    tool: Tool,
    user_data: *mut c_void,
    drop: Drop,
    error: *mut *mut Error,
) -> bool {
    let data = UserData::new(user_data, drop);
    // SAFETY: an object of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, false, || {
            let (options, definition) = (object_mut(options, "options")?, json(definition, "definition")?);
            options.0.tools.push(ChatTool::new_async(definition, tool_of(tool, data)?)?);
            Ok(true)
        })
    }
}

/// Sets the most rounds of tool calls for one question; after them the model must answer in words. 8 by
/// default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_options_set_max_rounds(options: *mut ChatOptions, rounds: usize) {
    // SAFETY: an object of ours, or NULL.
    if let Some(options) = unsafe { options.as_mut() } {
        options.0.max_rounds = rounds;
    }
}

/// Sets the rule for a conversation that no longer fits in the context; by default the oldest turns are
/// dropped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_options_set_overflow(
    options: *mut ChatOptions,
    overflow: MaybeUninit<Overflow>,
) {
    // SAFETY: an object of ours, or NULL.
    if let (Some(options), Some(overflow)) = (unsafe { options.as_mut() }, known(overflow)) {
        options.0.overflow = match overflow {
            Overflow::DropOldest => realm::Overflow::DropOldest,
            Overflow::Refuse => realm::Overflow::Refuse,
        };
    }
}

/// Starts a conversation. `request`, from `realm_request_chat`, is the beginning of the conversation (a
/// system message, or nothing) and has the options of each answer; `options` may be NULL. Both are copied.
/// Errors: `unsupported` for a model without a chat template, `invalid-argument` for another kind of request
/// and for two tools of the same name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_new(
    model: *const Model,
    request: *const Request,
    options: *const ChatOptions,
    error: *mut *mut Error,
) -> *mut ChatSession {
    // SAFETY: objects of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let mut chat = options.as_ref().map(|options| options.0.clone()).unwrap_or_default();
            chat.request = object(request, "request")?.0.clone();
            Ok(own(ChatSession(realm::ChatSession::new(&object(model, "model")?.model, chat)?)))
        })
    }
}

/// Frees a session. A question in progress continues until its generation is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_free(chat: *mut ChatSession) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(chat) }
}

/// Asks a question and waits for the answer, whose text is that of all rounds of tools. Blocks. Errors:
/// `invalid-argument` while another question is being answered; otherwise the same as `realm_model_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_ask(
    chat: *const ChatSession,
    question: *const c_char,
    error: *mut *mut Error,
) -> *mut Completion {
    // SAFETY: an object of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let answer = object(chat, "chat")?.0.ask(text(question, "question")?)?;
            Ok(own(Completion::from(answer)))
        })
    }
}

/// Asks a question and returns at once; `realm_generation_next` returns the answer's chunks. Cancelling or
/// freeing the generation removes the question again. Errors: same as `realm_chat_ask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_stream(
    chat: *const ChatSession,
    question: *const c_char,
    error: *mut *mut Error,
) -> *mut Generation {
    // SAFETY: an object of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let stream = object(chat, "chat")?.0.stream(text(question, "question")?)?;
            Ok(own(Generation(stream.into())))
        })
    }
}

/// Returns the messages so far, a JSON array in OpenAI's format, for `realm_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_messages(
    chat: *const ChatSession,
    error: *mut *mut Error,
) -> *mut c_char {
    // SAFETY: an object of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let messages = object(chat, "chat")?.0.messages();
            let messages: Value = messages.iter().map(|message| message.as_json().clone()).collect();
            copy_text(&messages.to_string(), std::ptr::null_mut())
        })
    }
}

/// Replaces the messages by a JSON array of objects. Errors: `invalid-argument` for anything else, and while
/// a question is being answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_set_messages(
    chat: *const ChatSession,
    messages: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, false, || {
            let (chat, messages) = (object(chat, "chat")?, json(messages, "messages")?);
            match messages {
                Value::Array(messages) if messages.iter().all(Value::is_object) => {
                    chat.0.set_messages(messages.into_iter().map(Message::from).collect())?;
                    Ok(true)
                }
                _ => Err(Error::invalid("`messages` is an array of objects")),
            }
        })
    }
}

/// Removes the last question and everything that answered it. `undone`, which may be NULL, is set to whether
/// there was one. Errors: `invalid-argument` while a question is being answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_undo(
    chat: *const ChatSession,
    undone: *mut bool,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, and places of the caller's.
    unsafe {
        attempt(error, false, || {
            put(undone, object(chat, "chat")?.0.undo()?);
            Ok(true)
        })
    }
}

/// Removes all messages except the system messages at the beginning. Errors: `invalid-argument` while a
/// question is being answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_clear(chat: *const ChatSession, error: *mut *mut Error) -> bool {
    // SAFETY: an object of ours, and the caller's place for an error.
    unsafe {
        attempt(error, false, || {
            object(chat, "chat")?.0.clear()?;
            Ok(true)
        })
    }
}

/// Returns the number of messages dropped to make room in the context, since the beginning or the last
/// `realm_chat_clear`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_dropped_messages(chat: *const ChatSession) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { chat.as_ref() }.map_or(0, |chat| chat.0.dropped_messages())
}

/// Returns whether a question is being answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chat_is_busy(chat: *const ChatSession) -> bool {
    // SAFETY: an object of ours, or NULL.
    unsafe { chat.as_ref() }.is_some_and(|chat| chat.0.is_busy())
}
