//! Requests, built by setters.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use realm::{Grammar, Message, Prompt, SharedPrefix};

use crate::callback::{Drop, LogitsProcessor, UserData};
use crate::choice::known;
use crate::error::{Error, attempt};
use crate::memory::{array, free, json, object_mut, own, text};
use crate::model::Adapter;

/// A prompt, and the options of its answer. A generation does not change its request, so a request can be
/// used again.
pub struct Request(pub(crate) realm::Request);

/// The source of drafts: tokens that are computed on the chance that they follow. Drafts do not change the
/// text.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Speculation {
    /// Any source.
    Auto,
    /// No drafts.
    Off,
    /// The tokens that followed the last tokens earlier in the text.
    Lookup,
    /// Only the draft model.
    Draft,
}

impl From<Speculation> for realm::Speculation {
    fn from(speculation: Speculation) -> Self {
        match speculation {
            Speculation::Auto => Self::Auto,
            Speculation::Off => Self::Off,
            Speculation::Lookup => Self::Lookup,
            Speculation::Draft => Self::Draft,
        }
    }
}

/// Changes a request in a way that cannot fail.
unsafe fn set(request: *mut Request, change: impl FnOnce(&mut realm::Request)) {
    // SAFETY: a request of ours that only this thread uses, or NULL.
    if let Some(request) = unsafe { request.as_mut() } {
        change(&mut request.0);
    }
}

/// Changes a request in a way that may fail.
unsafe fn try_set(
    request: *mut Request,
    error: *mut *mut Error,
    change: impl FnOnce(&mut realm::Request) -> Result<(), Error>,
) -> bool {
    // SAFETY: a request of ours that only this thread uses, or NULL, and the caller's place for an error.
    unsafe {
        attempt(error, false, || {
            change(&mut object_mut(request, "request")?.0)?;
            Ok(true)
        })
    }
}

/// Creates a request that continues a text as it is. Control tokens spelled in it are not parsed. Copies the
/// text. Errors: `invalid-argument` for text that is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_text(prompt: *const c_char, error: *mut *mut Error) -> *mut Request {
    // SAFETY: the caller's text.
    let work = || Ok(own(Request(realm::Request::text(unsafe { text(prompt, "prompt") }?))));
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Creates a request that answers a conversation, which `realm_request_add_message` fills; the model's chat
/// template renders it.
#[unsafe(no_mangle)]
pub extern "C" fn realm_request_chat() -> *mut Request {
    own(Request(realm::Request::new(Prompt::Chat(Vec::new()))))
}

/// Creates a request that continues token ids, which are copied. Errors: `invalid-argument` for NULL with a
/// length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_tokens(
    tokens: *const u32,
    len: usize,
    error: *mut *mut Error,
) -> *mut Request {
    // SAFETY: the caller's array.
    let work = || Ok(own(Request(realm::Request::tokens(unsafe { array(tokens, len, "tokens") }?))));
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Frees a request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_free(request: *mut Request) {
    // SAFETY: a request of ours, or NULL.
    unsafe { free(request) }
}

fn push(request: &mut realm::Request, message: Message) -> Result<(), Error> {
    match &mut request.prompt {
        Prompt::Chat(messages) => {
            messages.push(message);
            Ok(())
        }
        _ => Err(Error::invalid("messages are for requests of `realm_request_chat`")),
    }
}

/// Adds a message: `role` is `system`, `user`, `assistant`, `tool` or another one that the template knows.
/// Copies both. Errors: `invalid-argument` for text that is not UTF-8 or another kind of request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_add_message(
    request: *mut Request,
    role: *const c_char,
    content: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's texts.
    unsafe {
        try_set(request, error, |r| push(r, Message::new(text(role, "role")?, text(content, "content")?)))
    }
}

/// Adds a message with fields other than `role` and `content`, such as `tool_calls`: a JSON object in
/// OpenAI's format. Errors: same as `realm_request_add_message`, and `invalid-argument` for text that is not
/// JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_add_message_json(
    request: *mut Request,
    message: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe { try_set(request, error, |r| push(r, Message::from(json(message, "message")?))) }
}

/// Adds a tool definition in OpenAI's format, a JSON object. With tools, calls in the answer are removed from
/// its text: see `realm_completion_tool_call`. Errors: `invalid-argument`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_add_tool(
    request: *mut Request,
    definition: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.tools.push(json(definition, "definition")?);
            Ok(())
        })
    }
}

/// Sets whether the model may, must or must not call tools: `auto`, `none`, `required`, or OpenAI's object
/// with a function's name as JSON. With `required` or a function's name, the answer is one call with
/// arguments that the tool's schema allows. Errors: `invalid-argument`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_tool_choice(
    request: *mut Request,
    choice: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.tool_choice = text(choice, "choice")?.parse::<realm::ToolChoice>()?;
            Ok(())
        })
    }
}

/// Sets a further variable for the template, such as `documents`; its value is JSON. Errors:
/// `invalid-argument`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_template_variable(
    request: *mut Request,
    name: *const c_char,
    value: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's texts.
    unsafe {
        try_set(request, error, |r| {
            r.template_variables.insert(text(name, "name")?.into(), json(value, "value")?);
            Ok(())
        })
    }
}

/// Sets whether a conversation's prompt ends with the start of the assistant's answer. By default it does,
/// unless the answer continues the last message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_add_generation_prompt(request: *mut Request, add: bool) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.add_generation_prompt = Some(add)) }
}

/// Sets whether the answer continues the conversation's last message. The generated text does not repeat that
/// message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_continue_final_message(request: *mut Request, go_on: bool) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.continue_final_message = go_on) }
}

/// Sets whether control tokens spelled in a text prompt, such as `<|im_start|>`, become those tokens. Use it
/// only for text that no user wrote.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_special(request: *mut Request, special: bool) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.special = special) }
}

/// Sets whether the model thinks before it answers, for templates with the variable `enable_thinking`. By
/// default the template chooses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_enable_thinking(request: *mut Request, enable: bool) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.enable_thinking = Some(enable)) }
}

/// Sets how much the model thinks, for templates with the variable `reasoning_effort`: usually `low`,
/// `medium` or `high`. Errors: `invalid-argument` for text that is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_reasoning_effort(
    request: *mut Request,
    effort: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.reasoning_effort = Some(text(effort, "effort")?.into());
            Ok(())
        })
    }
}

/// Sets the place of the model's thought: `separate`, the default, for `realm_completion_reasoning` and
/// `realm_chunk_reasoning`, or `inline` for the text, with its marks. Errors: `invalid-argument`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_reasoning_format(
    request: *mut Request,
    format: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.reasoning_format = text(format, "format")?.parse::<realm::ReasoningFormat>()?;
            Ok(())
        })
    }
}

/// Sets the divisor of the logits; 0 takes the likeliest token (greedy). 0.8 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_temperature(request: *mut Request, temperature: f32) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.temperature = temperature) }
}

/// Keeps the `k` likeliest tokens; 0 keeps all. 40 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_top_k(request: *mut Request, k: usize) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.top_k = k) }
}

/// Keeps the likeliest tokens whose probabilities together reach `p`; 1 keeps all. 0.95 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_top_p(request: *mut Request, p: f32) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.top_p = p) }
}

/// Keeps tokens at least `p` times as likely as the likeliest; 0 keeps all. 0.05 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_min_p(request: *mut Request, p: f32) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.min_p = p) }
}

/// Keeps the most typical tokens up to a probability of `p` together; 1, the default, keeps all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_typical_p(request: *mut Request, p: f32) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.typical_p = p) }
}

/// Divides positive and multiplies negative logits of tokens that occurred among the last `window`, prompt
/// included; 1, the default, changes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_repetition_penalty(
    request: *mut Request,
    penalty: f32,
    window: usize,
) {
    // SAFETY: a request of ours, or NULL.
    unsafe {
        set(request, |r| {
            r.sampling.repetition_penalty = penalty;
            r.sampling.repetition_window = window;
        });
    }
}

/// Subtracted from a token's logit for each time it was generated; 0 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_frequency_penalty(request: *mut Request, penalty: f32) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.frequency_penalty = penalty) }
}

/// Subtracted once from the logit of a token that was generated; 0 by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_presence_penalty(request: *mut Request, penalty: f32) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.presence_penalty = penalty) }
}

/// Adds to the logit of a token; another call for the same token replaces the bias.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_logit_bias(request: *mut Request, token: u32, bias: f32) {
    // SAFETY: a request of ours, or NULL.
    unsafe {
        set(request, |r| {
            r.sampling.logit_bias.insert(token, bias);
        });
    }
}

/// Excludes a token from generation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_ban_token(request: *mut Request, token: u32) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.banned_tokens.push(token)) }
}

/// Sets the seed. The same seed gives the same text; by default every request has another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_seed(request: *mut Request, seed: u64) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.sampling.seed = Some(seed)) }
}

/// Sets the most tokens to generate; by default as many as the context holds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_max_tokens(request: *mut Request, tokens: usize) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.max_tokens = Some(tokens)) }
}

/// Adds a string that ends the text and is not part of it. Errors: `invalid-argument` for text that is not
/// UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_add_stop(
    request: *mut Request,
    stop: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.stop.push(text(stop, "stop")?.into());
            Ok(())
        })
    }
}

/// Sets whether to continue after an end token.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_ignore_eos(request: *mut Request, ignore: bool) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.ignore_eos = ignore) }
}

/// Sets the number of likeliest tokens, at most 100, to return in each token's place; log-probabilities come
/// with all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_logprobs(request: *mut Request, likeliest: usize) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.logprobs = Some(likeliest)) }
}

/// Guides the text to be JSON that this schema, a JSON text, allows. A schema that Realm cannot guarantee is
/// refused when the request is used, with the keyword's name. Errors: `invalid-argument` for text that is not
/// JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_json_schema(
    request: *mut Request,
    schema: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.grammar = Some(Grammar::JsonSchema(json(schema, "schema")?));
            Ok(())
        })
    }
}

/// Guides the text to be a JSON object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_json(request: *mut Request) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.grammar = Some(Grammar::JsonObject)) }
}

/// Guides the text to match a regular expression as a whole. Errors: `invalid-argument` for text that is not
/// UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_regex(
    request: *mut Request,
    expression: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.grammar = Some(Grammar::Regex(text(expression, "expression")?.into()));
            Ok(())
        })
    }
}

/// Guides the text by a grammar, in llguidance's dialect of Lark or in llama.cpp's GBNF. Errors:
/// `invalid-argument` for text that is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_lark(
    request: *mut Request,
    grammar: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.grammar = Some(Grammar::Lark(text(grammar, "grammar")?.into()));
            Ok(())
        })
    }
}

/// Lets the first `tokens` tokens of the prompt be computed once for all tenants that mark them too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_share_prefix(request: *mut Request, tokens: usize) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.shared_prefix = SharedPrefix::Tokens(tokens)) }
}

/// Lets the system message be computed once for all tenants that mark it too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_share_system(request: *mut Request) {
    // SAFETY: a request of ours, or NULL.
    unsafe { set(request, |r| r.shared_prefix = SharedPrefix::System) }
}

/// Sets the LoRA adapter of this request, and a factor on what it adds: 1 for the adapter as it was trained.
/// The request keeps what it needs of the adapter. NULL means no adapter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_adapter(
    request: *mut Request,
    adapter: *const Adapter,
    scale: f32,
) {
    // SAFETY: objects of ours, or NULL.
    unsafe {
        set(request, |r| {
            r.adapter = adapter.as_ref().map(|adapter| adapter.inner.clone());
            r.adapter_scale = scale;
        });
    }
}

/// Sets further input for the tenant's program, any JSON. Errors: `invalid-argument` for text that is not
/// JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_input(
    request: *mut Request,
    input: *const c_char,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: a request of ours and the caller's text.
    unsafe {
        try_set(request, error, |r| {
            r.input = json(input, "input")?;
            Ok(())
        })
    }
}

/// Sets the source of drafts; by default the one that the model was loaded with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_speculation(
    request: *mut Request,
    speculation: MaybeUninit<Speculation>,
) {
    if let Some(speculation) = known(speculation) {
        // SAFETY: a request of ours, or NULL.
        unsafe { set(request, |r| r.speculation = Some(speculation.into())) }
    }
}

/// Adds a function that changes the logits before each token is chosen. It runs on a thread of the request's
/// own: no other request waits for it. Takes ownership of `user_data`, even if it fails. Errors:
/// `invalid-argument` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_add_logits_processor(
    request: *mut Request,
    processor: LogitsProcessor,
    user_data: *mut c_void,
    drop: Drop,
    error: *mut *mut Error,
) -> bool {
    let data = UserData::new(user_data, drop);
    // SAFETY: a request of ours.
    unsafe {
        try_set(request, error, |r| {
            let processor = processor.ok_or_else(|| Error::invalid("`processor` is NULL"))?;
            r.logits_processors.push(realm::LogitsProcessor::new(move |tokens, logits| {
                // The caller's function with the caller's data; both arrays live until it returns.
                let why =
                    processor(data.get(), tokens.as_ptr(), tokens.len(), logits.as_mut_ptr(), logits.len());
                match why.is_null() {
                    true => Ok(()),
                    false => Err(text(why, "why").unwrap_or("it failed").to_owned()),
                }
            }));
            Ok(())
        })
    }
}
