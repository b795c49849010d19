//! `POST /v1/chat/completions`.

use realm::{Completion, FinishReason, Prompt, Request, Tokenizer};
use serde_json::{Map, Value};

use super::options::{Options, template_variables};
use super::types::{ChatChoice, ChatCompletion, ChatMessage, SYSTEM_FINGERPRINT, ToolCall, Usage};
use super::{Head, logprobs, messages, tools};
use crate::fields::Fields;
use crate::{ApiError, Extras};

/// A conversation, and options for its answer.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// The model's name.
    pub model: String,
    /// The request for each of the choices.
    pub request: Request,
    /// The number of choices.
    pub n: usize,
    /// True if the answer is streamed.
    pub stream: bool,
    /// True if a last chunk gives the number of tokens used.
    pub include_usage: bool,
    /// True if a choice may have more than one call; otherwise further calls are left out.
    pub parallel_tool_calls: bool,
    /// Unknown fields, such as `messages[0].colour`.
    pub ignored: Vec<String>,
    /// The program and the adapter that it names.
    pub extras: Extras,
    service_tier: Option<&'static str>,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Status 400 with the name of a field whose value is invalid or can't be honored.
    pub fn read(body: Map<String, Value>) -> Result<Self, ApiError> {
        let mut ignored = Vec::new();
        let mut fields = Fields::new(body, "");
        let messages = messages::read(&mut fields, &mut ignored)?;
        let options = Options::read(&mut fields, &mut ignored)?;
        let mut request = Request { prompt: Prompt::Chat(messages), ..options.request };
        tools::read(&mut fields, &mut request)?;
        request.max_tokens = max_tokens(&mut fields)?;
        request.logprobs = top_logprobs(&mut fields)?;
        request.template_variables = template_variables(&mut fields)?;
        request.add_generation_prompt = fields.flag("add_generation_prompt")?;
        request.continue_final_message = fields.flag("continue_final_message")?.unwrap_or(false);
        let modalities = fields.list("modalities")?.unwrap_or_default();
        if modalities.iter().any(|modality| modality != "text") {
            return Err(ApiError::unsupported("modalities", "modalities can only be [\"text\"]"));
        }
        if fields.flag("echo")? == Some(true) {
            return Err(ApiError::unsupported(
                "echo",
                "echo is not supported for conversations; leave it out",
            ));
        }
        let parallel_tool_calls = fields.flag("parallel_tool_calls")?.unwrap_or(true);
        fields.rest(&mut ignored);
        Ok(Self {
            model: options.model,
            request,
            n: options.n,
            stream: options.stream,
            include_usage: options.include_usage,
            parallel_tool_calls,
            ignored,
            extras: options.extras,
            service_tier: options.service_tier,
        })
    }

    /// Returns a request for each choice.
    pub fn requests(&self) -> impl Iterator<Item = Request> + use<> {
        choices(self.request.clone(), self.n)
    }

    /// Returns a head for the answer.
    pub fn head(&self) -> Head {
        Head { service_tier: self.service_tier, ..Head::new("chatcmpl-", &*self.model) }
    }

    /// Returns the answer, given a completion for each choice.
    pub fn answer(&self, completions: Vec<Completion>, tokenizer: &Tokenizer) -> ChatCompletion {
        let head = self.head();
        let mut usage = Usage::default();
        let choice = |(index, completion): (usize, Completion)| {
            usage.add(&completion.usage, index == 0);
            self.choice(index, completion, tokenizer)
        };
        ChatCompletion {
            choices: completions.into_iter().enumerate().map(choice).collect(),
            usage,
            id: head.id,
            object: "chat.completion",
            created: head.created,
            model: head.model,
            service_tier: head.service_tier,
            system_fingerprint: SYSTEM_FINGERPRINT,
        }
    }

    fn choice(&self, index: usize, completion: Completion, tokenizer: &Tokenizer) -> ChatChoice {
        let finish = completion.finish_reason;
        let logprobs = self.request.logprobs.map(|_| {
            let ended = finish != FinishReason::Length;
            logprobs::of_chat(logprobs::spoken(&completion.tokens, ended, tokenizer), tokenizer)
        });
        let most = if self.parallel_tool_calls { usize::MAX } else { 1 };
        let calls = completion.tool_calls.into_iter().take(most).map(|call| ToolCall::new(call, None));
        let calls: Vec<_> = calls.collect();
        let content = (calls.is_empty() || !completion.text.is_empty()).then_some(completion.text);
        let reasoning = (!completion.reasoning.is_empty()).then_some(completion.reasoning);
        let message = ChatMessage {
            role: "assistant",
            content,
            refusal: None,
            reasoning_content: reasoning.clone(),
            reasoning,
            tool_calls: calls,
        };
        ChatChoice { index, message, logprobs, finish_reason: finish.as_str() }
    }
}

/// Returns a request for each of `n` choices. With a seed, each has a seed of its own that is derived from
/// it.
pub(super) fn choices(request: Request, n: usize) -> impl Iterator<Item = Request> {
    (0..n as u64).map(move |index| {
        let mut request = request.clone();
        if let Some(seed) = &mut request.sampling.seed {
            *seed = seed.wrapping_add(index);
        }
        request
    })
}

/// Reads the limit under both of its names. OpenAI's API allows one of them at a time.
fn max_tokens(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let old = fields.count("max_tokens", 1)?;
    let new = fields.count("max_completion_tokens", 1)?;
    match (old, new) {
        (Some(old), Some(new)) => {
            let message = format!("max_tokens is {old} and max_completion_tokens {new}; give one of them");
            Err(ApiError::combination("max_tokens", message))
        }
        _ => Ok(new.or(old)),
    }
}

fn top_logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let (wanted, top) = (fields.flag("logprobs")?.unwrap_or(false), fields.count("top_logprobs", 0)?);
    match top {
        Some(1..) if !wanted => {
            Err(ApiError::combination("top_logprobs", "top_logprobs needs `logprobs`: true beside it"))
        }
        _ => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}
