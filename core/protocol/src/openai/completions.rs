//! `POST /v1/completions`.

use realm::{Completion, FinishReason, Prompt, Request, Tokenizer};
use serde_json::{Map, Value};

use super::chat::choices;
use super::options::Options;
use super::types::{SYSTEM_FINGERPRINT, TextChoice, TextCompletion, Usage};
use super::{Head, MAX_CHOICES, logprobs};
use crate::fields::{Fields, integer};
use crate::{ApiError, Extras};

/// OpenAI's default of `max_tokens`.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Texts, and options for their continuation.
#[derive(Debug, Clone)]
pub struct CompletionRequest {
    /// The model's name.
    pub model: String,
    /// The request, with the first prompt.
    pub request: Request,
    /// The prompts: texts or token ids.
    pub prompts: Vec<Prompt>,
    /// The number of choices for each prompt.
    pub n: usize,
    /// True if the answer is streamed.
    pub stream: bool,
    /// True if a last chunk gives the number of tokens used.
    pub include_usage: bool,
    /// True if the texts begin with their prompts.
    pub echo: bool,
    /// Unknown fields.
    pub ignored: Vec<String>,
    /// The program and the adapter that it names.
    pub extras: Extras,
}

impl CompletionRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Status 400 with the name of a field whose value is invalid or can't be honored.
    pub fn read(body: Map<String, Value>) -> Result<Self, ApiError> {
        let mut ignored = Vec::new();
        let mut fields = Fields::new(body, "");
        let prompts = prompts(fields.take("prompt"), "prompt")?;
        let options = Options::read(&mut fields, &mut ignored)?;
        let mut request = Request { prompt: prompts[0].clone(), ..options.request };
        request.max_tokens = Some(fields.count("max_tokens", 1)?.unwrap_or(DEFAULT_MAX_TOKENS));
        request.logprobs = fields.count("logprobs", 0)?;
        let echo = fields.flag("echo")?.unwrap_or(false);
        if echo && request.logprobs.is_some() {
            let message = "echo can't be combined with logprobs: those of a prompt are not computed";
            return Err(ApiError::unsupported("echo", message));
        }
        if prompts.len() * options.n > MAX_PROMPTS {
            let message = format!("at most {MAX_PROMPTS} choices at once; ask for fewer, or several times");
            return Err(ApiError::invalid("prompt", message));
        }
        fields.rest(&mut ignored);
        Ok(Self {
            model: options.model,
            request,
            prompts,
            n: options.n,
            stream: options.stream,
            include_usage: options.include_usage,
            echo,
            ignored,
            extras: options.extras,
        })
    }

    /// Returns a request for each choice of each prompt.
    pub fn requests(&self) -> Vec<Request> {
        let each =
            |prompt: &Prompt| choices(Request { prompt: prompt.clone(), ..self.request.clone() }, self.n);
        self.prompts.iter().flat_map(each).collect()
    }

    /// Returns the text that a choice begins with.
    pub(super) fn echoed(&self, choice: usize, tokenizer: &Tokenizer) -> String {
        match self.prompts.get(choice / self.n).filter(|_| self.echo) {
            Some(Prompt::Text(text)) => text.clone(),
            // Ids outside the vocabulary were refused when the request started.
            Some(Prompt::Tokens(tokens)) => tokenizer.decode(tokens, false).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// Returns a head for the answer.
    pub fn head(&self) -> Head {
        Head::new("cmpl-", &*self.model)
    }

    /// Returns the answer as JSON, given a completion for each choice.
    pub fn answer(&self, completions: Vec<Completion>, tokenizer: &Tokenizer) -> String {
        let head = self.head();
        let mut usage = Usage::default();
        let choice = |(index, completion): (usize, Completion)| {
            usage.add(&completion.usage, index.is_multiple_of(self.n));
            let text = self.echoed(index, tokenizer);
            let logprobs = self.request.logprobs.map(|_| {
                let ended = completion.finish_reason != FinishReason::Length;
                let tokens = logprobs::spoken(&completion.tokens, ended, tokenizer);
                logprobs::of_text(tokens, tokenizer, &mut 0)
            });
            let finish_reason = Some(text_reason(completion.finish_reason));
            TextChoice { index, text: text + &completion.text, logprobs, finish_reason }
        };
        let choices = completions.into_iter().enumerate().map(choice).collect();
        text_completion(&head, choices, Some(Some(&usage)))
    }
}

/// The most choices of one request, over all its prompts.
const MAX_PROMPTS: usize = 16 * MAX_CHOICES;

pub(super) fn text_completion(
    head: &Head,
    choices: Vec<TextChoice>,
    usage: Option<Option<&Usage>>,
) -> String {
    let completion = TextCompletion {
        id: &head.id,
        object: "text_completion",
        created: head.created,
        model: &head.model,
        system_fingerprint: SYSTEM_FINGERPRINT,
        choices,
        usage,
    };
    super::stream::json(&completion)
}

pub(super) fn text_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        _ => "stop",
    }
}

/// Reads one or more prompts: a text, a list of texts, token ids, or a list of lists of these.
pub(super) fn prompts(value: Option<Value>, name: &str) -> Result<Vec<Prompt>, ApiError> {
    let what =
        "a string, an array of strings, an array of token ids or an array of such arrays, none of them empty";
    let wrong = || ApiError::invalid(name, format!("{name} must be {what}"));
    let one = |value: &Value| match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(ids) if !ids.is_empty() => {
            ids.iter().map(token).collect::<Option<_>>().map(Prompt::Tokens)
        }
        _ => None,
    };
    let value = value.ok_or_else(wrong)?;
    if let Some(prompt) = one(&value) {
        return Ok(vec![prompt]);
    }
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(wrong)?;
    list.iter().map(one).collect::<Option<_>>().ok_or_else(wrong)
}

fn token(value: &Value) -> Option<u32> {
    value.is_number().then(|| integer(value)).flatten().and_then(|id| u32::try_from(id).ok())
}
