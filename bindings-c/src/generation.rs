//! Running requests, their chunks, and whole answers.

use std::ffi::c_char;

use realm::SharedGeneration;

use crate::error::{Error, attempt, surely};
use crate::memory::{Text, free, object, own, put};

/// A running request. Freeing it cancels the request and frees its part of the KV cache.
pub struct Generation(pub(crate) SharedGeneration);

/// The reason why a generation ended.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum FinishReason {
    /// The model wrote an end token, a stop string appeared, or the grammar is complete.
    Stop,
    /// The text reached `max_tokens` or the end of the context.
    Length,
    /// The model called tools and waits for their results.
    ToolCalls,
}

/// A token and the natural logarithm of its probability.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// The log-probability, in nats.
    pub logprob: f32,
}

impl From<realm::TokenLogprob> for TokenLogprob {
    fn from(token: realm::TokenLogprob) -> Self {
        Self { id: token.id, logprob: token.logprob }
    }
}

/// A generated token.
#[repr(C)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log-probability; not a number if the request did not ask for it.
    pub logprob: f32,
    /// The likeliest tokens in its place, if the request asked for them. They belong to the chunk or
    /// completion.
    pub top: *const TokenLogprob,
    /// The number of tokens in `top`.
    pub top_len: usize,
}

/// Tokens and seconds used, and the reason why a generation ended.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Finish {
    /// The reason.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of the prompt's tokens that an earlier request computed.
    pub cached_tokens: usize,
    /// Tokens generated, including an end token.
    pub generated_tokens: usize,
    /// Those of the generated tokens that belong to the model's thought.
    pub reasoning_tokens: usize,
    /// Tokens computed on the chance that they follow.
    pub draft_tokens: usize,
    /// Those of the draft tokens that did follow.
    pub accepted_tokens: usize,
    /// Seconds of waiting for a place in the batch.
    pub queued_seconds: f64,
    /// Seconds from there to the first token.
    pub prefill_seconds: f64,
    /// Seconds from the first token to the last.
    pub decode_seconds: f64,
}

impl Finish {
    fn new(reason: realm::FinishReason, usage: realm::Usage, timings: realm::Timings) -> Self {
        Self {
            reason: match reason {
                realm::FinishReason::Stop => FinishReason::Stop,
                realm::FinishReason::Length => FinishReason::Length,
                realm::FinishReason::ToolCalls => FinishReason::ToolCalls,
            },
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            generated_tokens: usage.generated_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            draft_tokens: usage.draft_tokens,
            accepted_tokens: usage.accepted_tokens,
            queued_seconds: timings.queued.as_secs_f64(),
            prefill_seconds: timings.prefill.as_secs_f64(),
            decode_seconds: timings.decode.as_secs_f64(),
        }
    }
}

/// Tokens in the layout of C.
struct Tokens(Vec<(u32, Option<f32>, Vec<TokenLogprob>)>);

impl From<Vec<realm::Token>> for Tokens {
    fn from(tokens: Vec<realm::Token>) -> Self {
        let token = |token: realm::Token| {
            (token.id, token.logprob, token.top.into_iter().map(TokenLogprob::from).collect())
        };
        Self(tokens.into_iter().map(token).collect())
    }
}

impl Tokens {
    unsafe fn get(&self, index: usize, token: *mut Token) -> bool {
        let Some((id, logprob, top)) = self.0.get(index) else { return false };
        let found =
            Token { id: *id, logprob: logprob.unwrap_or(f32::NAN), top: top.as_ptr(), top_len: top.len() };
        // SAFETY: the caller's place for a token, or NULL.
        unsafe { put(token, found) };
        true
    }
}

/// A tool call that the model asks for. Realm does not run it: run the tool, add the model's message with its
/// `tool_calls` and a message of the role `tool` with the result, and ask again. Texts end with a zero and
/// belong to the chunk or completion.
#[repr(C)]
pub struct FunctionCall {
    /// The id that the result refers to.
    pub id: *const c_char,
    /// The tool's name. The model may make up a name that no tool has.
    pub name: *const c_char,
    /// The arguments: a JSON object, which may not fit the tool's schema.
    pub arguments: *const c_char,
}

/// Calls in the layout of C: id, name and arguments.
struct Calls(Vec<[Text; 3]>);

impl From<Vec<realm::ToolCall>> for Calls {
    fn from(calls: Vec<realm::ToolCall>) -> Self {
        Self(calls.into_iter().map(|call| [call.id, call.name, call.arguments].map(Text::from)).collect())
    }
}

impl Calls {
    unsafe fn get(&self, index: usize, call: *mut FunctionCall) -> bool {
        let Some(texts) = self.0.get(index) else { return false };
        // SAFETY: no lengths are asked for; the caller's place for a call, or NULL.
        unsafe {
            let [id, name, arguments] = texts.each_ref().map(|text| text.give(std::ptr::null_mut()));
            put(call, FunctionCall { id, name, arguments });
        }
        true
    }
}

/// A part of a generation.
pub struct Chunk {
    text: Text,
    reasoning: Text,
    tokens: Tokens,
    calls: Calls,
    warnings: Vec<Text>,
    finish: Option<Finish>,
}

impl From<realm::Chunk> for Chunk {
    fn from(chunk: realm::Chunk) -> Self {
        let finish = chunk.finish.map(|f| Finish::new(f.reason, f.usage, f.timings));
        Self {
            text: chunk.text.into(),
            reasoning: chunk.reasoning.into(),
            tokens: chunk.tokens.into(),
            calls: chunk.tool_calls.into(),
            warnings: chunk.warnings.into_iter().map(Text::from).collect(),
            finish,
        }
    }
}

/// Waits for the next chunk and writes it to `chunk`, for `realm_chunk_free`; NULL after the last one, and
/// after a cancel. Any number of threads may wait; each chunk goes to one of them. Errors: the error that
/// ended the request early.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_generation_next(
    generation: *const Generation,
    chunk: *mut *mut Chunk,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: an object of ours, and places of the caller's.
    unsafe {
        attempt(error, false, || {
            // A handle of its own, since another thread may free the generation meanwhile.
            let generation = object(generation, "generation")?.0.clone();
            let next = generation.next_blocking().transpose()?;
            let next = next.map_or(std::ptr::null_mut(), |chunk| own(Chunk::from(chunk)));
            match chunk.is_null() {
                true => free(next),
                false => chunk.write(next),
            }
            Ok(true)
        })
    }
}

/// Waits for the end and joins the chunks that were not read yet. Errors: the error that ended the request
/// early; `cancelled` after a cancel, or if all chunks were read before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_generation_finish(
    generation: *const Generation,
    error: *mut *mut Error,
) -> *mut Completion {
    // SAFETY: an object of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let generation = object(generation, "generation")?.0.clone();
            Ok(own(Completion::from(generation.finish()?)))
        })
    }
}

/// Ends the request at once and frees its part of the KV cache. Threads that wait for its chunks get NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_generation_cancel(generation: *const Generation) {
    // SAFETY: an object of ours, or NULL.
    if let Some(generation) = unsafe { generation.as_ref() } {
        surely((), || generation.0.cancel());
    }
}

/// Returns whether the request was cancelled before it ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_generation_is_cancelled(generation: *const Generation) -> bool {
    // SAFETY: an object of ours, or NULL.
    unsafe { generation.as_ref() }.is_some_and(|generation| generation.0.is_cancelled())
}

/// Frees a generation, and cancels the request if it has not ended. Threads that wait for its chunks get
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_generation_free(generation: *mut Generation) {
    // SAFETY: an object of ours, or NULL.
    unsafe {
        realm_generation_cancel(generation);
        free(generation)
    }
}

/// Returns the new text, which may be empty while a character or a stop string is unfinished. Its length in
/// bytes goes to `len`, which may be NULL. Belongs to the chunk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_text(chunk: *const Chunk, len: *mut usize) -> *const c_char {
    // SAFETY: an object of ours, or NULL, and the caller's place for a length, or NULL.
    unsafe {
        match chunk.as_ref() {
            Some(chunk) => chunk.text.give(len),
            None => nothing(len),
        }
    }
}

/// Returns the new text of the model's thought, which is not part of the chunk's text. Its length in bytes
/// goes to `len`, which may be NULL. Belongs to the chunk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_reasoning(chunk: *const Chunk, len: *mut usize) -> *const c_char {
    // SAFETY: an object of ours, or NULL, and the caller's place for a length, or NULL.
    unsafe {
        match chunk.as_ref() {
            Some(chunk) => chunk.reasoning.give(len),
            None => nothing(len),
        }
    }
}

/// Returns warning `index` of the first chunk: an option of the request that the model could serve only in
/// another way. Belongs to the chunk; NULL if `index` is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_warning(chunk: *const Chunk, index: usize) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    let warning = unsafe { chunk.as_ref() }.and_then(|chunk| chunk.warnings.get(index));
    // SAFETY: no length is asked for.
    warning.map_or(std::ptr::null(), |text| unsafe { text.give(std::ptr::null_mut()) })
}

/// Returns the number of new tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_tokens(chunk: *const Chunk) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { chunk.as_ref() }.map_or(0, |chunk| chunk.tokens.0.len())
}

/// Writes new token `index` to `token`; false if `index` is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_token(chunk: *const Chunk, index: usize, token: *mut Token) -> bool {
    // SAFETY: an object of ours, or NULL, and the caller's place for a token, or NULL.
    unsafe { chunk.as_ref().is_some_and(|chunk| chunk.tokens.get(index, token)) }
}

/// Returns the number of new tool calls. Each call is complete, and its spelling is not part of the text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_tool_calls(chunk: *const Chunk) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { chunk.as_ref() }.map_or(0, |chunk| chunk.calls.0.len())
}

/// Writes tool call `index` to `call`; false if `index` is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_tool_call(
    chunk: *const Chunk,
    index: usize,
    call: *mut FunctionCall,
) -> bool {
    // SAFETY: an object of ours, or NULL, and the caller's place for a call, or NULL.
    unsafe { chunk.as_ref().is_some_and(|chunk| chunk.calls.get(index, call)) }
}

/// Returns whether this is the last chunk, and then writes the end of the generation to `finish`, which may
/// be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_finish(chunk: *const Chunk, finish: *mut Finish) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(ended) = unsafe { chunk.as_ref() }.and_then(|chunk| chunk.finish) else { return false };
    // SAFETY: the caller's place for an end, or NULL.
    unsafe { put(finish, ended) };
    true
}

/// Frees a chunk of `realm_generation_next`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_chunk_free(chunk: *mut Chunk) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(chunk) }
}

/// A whole answer.
pub struct Completion {
    text: Text,
    reasoning: Text,
    tokens: Tokens,
    calls: Calls,
    warnings: Vec<Text>,
    finish: Finish,
}

impl From<realm::Completion> for Completion {
    fn from(answer: realm::Completion) -> Self {
        Self {
            text: answer.text.into(),
            reasoning: answer.reasoning.into(),
            tokens: answer.tokens.into(),
            calls: answer.tool_calls.into(),
            warnings: answer.warnings.into_iter().map(Text::from).collect(),
            finish: Finish::new(answer.finish_reason, answer.usage, answer.timings),
        }
    }
}

/// Returns the text, without the stop string that ended it, without tool calls and without thoughts. Its
/// length in bytes goes to `len`, which may be NULL. Belongs to the completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_text(
    completion: *const Completion,
    len: *mut usize,
) -> *const c_char {
    // SAFETY: an object of ours, or NULL, and the caller's place for a length, or NULL.
    unsafe {
        match completion.as_ref() {
            Some(completion) => completion.text.give(len),
            None => nothing(len),
        }
    }
}

/// Returns the model's thought before its answer; empty if it had none. Its length in bytes goes to `len`,
/// which may be NULL. Belongs to the completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_reasoning(
    completion: *const Completion,
    len: *mut usize,
) -> *const c_char {
    // SAFETY: an object of ours, or NULL, and the caller's place for a length, or NULL.
    unsafe {
        match completion.as_ref() {
            Some(completion) => completion.reasoning.give(len),
            None => nothing(len),
        }
    }
}

/// Returns warning `index`: an option of the request that the model could serve only in another way, for
/// example tools that its chat template does not know. Belongs to the completion; NULL if `index` is out of
/// range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_warning(
    completion: *const Completion,
    index: usize,
) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    let warning = unsafe { completion.as_ref() }.and_then(|completion| completion.warnings.get(index));
    // SAFETY: no length is asked for.
    warning.map_or(std::ptr::null(), |text| unsafe { text.give(std::ptr::null_mut()) })
}

/// Returns the number of generated tokens, including an end token.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_tokens(completion: *const Completion) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { completion.as_ref() }.map_or(0, |completion| completion.tokens.0.len())
}

/// Writes token `index` to `token`; false if `index` is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_token(
    completion: *const Completion,
    index: usize,
    token: *mut Token,
) -> bool {
    // SAFETY: an object of ours, or NULL, and the caller's place for a token, or NULL.
    unsafe { completion.as_ref().is_some_and(|completion| completion.tokens.get(index, token)) }
}

/// Returns the number of tool calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_tool_calls(completion: *const Completion) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { completion.as_ref() }.map_or(0, |completion| completion.calls.0.len())
}

/// Writes tool call `index` to `call`; false if `index` is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_tool_call(
    completion: *const Completion,
    index: usize,
    call: *mut FunctionCall,
) -> bool {
    // SAFETY: an object of ours, or NULL, and the caller's place for a call, or NULL.
    unsafe { completion.as_ref().is_some_and(|completion| completion.calls.get(index, call)) }
}

/// Writes the end of the generation, and the tokens and seconds used, to `finish`; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_finish(completion: *const Completion, finish: *mut Finish) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(completion) = (unsafe { completion.as_ref() }) else { return false };
    // SAFETY: the caller's place for an end, or NULL.
    unsafe { put(finish, completion.finish) };
    true
}

/// Frees a completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_completion_free(completion: *mut Completion) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(completion) }
}

/// Returns an empty text.
unsafe fn nothing(len: *mut usize) -> *const c_char {
    // SAFETY: the caller's place for a length, or NULL.
    unsafe { put(len, 0) };
    c"".as_ptr()
}
