//! Requests.

use std::collections::HashMap;
use std::sync::Arc;

use realm::{Grammar, Message as CoreMessage, Prompt as CorePrompt, SharedPrefix};

use crate::chat::{LogitsProcessor, processor};
use crate::error::{RealmError, Result, json};
use crate::model::Adapter;

/// One message of a conversation.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool` or another role that the model's template knows.
    pub role: String,
    /// The text of the message.
    pub content: String,
    /// Other fields that the template reads, such as `tool_calls`: a JSON object. A `content` in it, such as
    /// a list of parts, replaces the message's.
    #[uniffi(default = None)]
    pub fields: Option<String>,
}

/// The tokens or text that a generation continues.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum Prompt {
    /// Text, as it is. Control tokens spelled in it are not parsed.
    Text(String),
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<Message>),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// The grammar of a text.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum Guide {
    /// JSON that a schema, a JSON text, allows.
    JsonSchema(String),
    /// Any JSON object.
    JsonObject,
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// Text that a grammar allows, in llguidance's dialect of Lark or in llama.cpp's GBNF.
    Lark(String),
}

/// The first part of a prompt that may be computed once for all tenants that mark it too.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum SharedBeginning {
    /// The system message.
    System,
    /// The given number of tokens at the beginning.
    Tokens(u64),
}

/// The source of drafts. Drafts do not change the text.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
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

/// The choice of a model that has tools: it may, must or must not call them.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum ToolChoice {
    /// The model calls tools or answers in words, as it likes.
    Auto,
    /// The model does not see the tools.
    Never,
    /// The answer is one call of any tool, with arguments that the tool's schema allows.
    Required,
    /// The answer is one call of the tool with this name, with arguments that its schema allows.
    Function(String),
}

impl From<ToolChoice> for realm::ToolChoice {
    fn from(choice: ToolChoice) -> Self {
        match choice {
            ToolChoice::Auto => Self::Auto,
            ToolChoice::Never => Self::None,
            ToolChoice::Required => Self::Required,
            ToolChoice::Function(name) => Self::Function(name),
        }
    }
}

/// The place of a model's thought.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum ReasoningFormat {
    /// Thoughts go into `reasoning`. The text is the answer alone.
    Separate,
    /// Thoughts stay in the text, with their marks.
    Inline,
}

impl From<ReasoningFormat> for realm::ReasoningFormat {
    fn from(format: ReasoningFormat) -> Self {
        match format {
            ReasoningFormat::Separate => Self::Separate,
            ReasoningFormat::Inline => Self::Inline,
        }
    }
}

/// A prompt, and the options of its answer.
#[derive(Clone, uniffi::Record)]
pub struct Request {
    /// The prompt to continue.
    pub prompt: Prompt,
    /// The most tokens to generate; nil for as many as the context holds.
    #[uniffi(default = None)]
    pub max_tokens: Option<u64>,
    /// Divides the logits; 0 takes the likeliest token (greedy).
    #[uniffi(default = 0.8)]
    pub temperature: f32,
    /// Keeps the `k` likeliest tokens; 0 keeps all.
    #[uniffi(default = 40)]
    pub top_k: u64,
    /// Keeps the likeliest tokens whose probabilities together reach `p`; 1 keeps all.
    #[uniffi(default = 0.95)]
    pub top_p: f32,
    /// Keeps tokens at least `p` times as likely as the likeliest; 0 keeps all.
    #[uniffi(default = 0.05)]
    pub min_p: f32,
    /// Keeps the most typical tokens up to a probability of `p` together; 1 keeps all.
    #[uniffi(default = 1.0)]
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens among the last `repetitionWindow`; 1 changes
    /// nothing.
    #[uniffi(default = 1.0)]
    pub repetition_penalty: f32,
    /// The number of last tokens, prompt included, that `repetitionPenalty` applies to.
    #[uniffi(default = 64)]
    pub repetition_window: u64,
    /// Subtracted from a token's logit for each time it was generated.
    #[uniffi(default = 0.0)]
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of a token that was generated.
    #[uniffi(default = 0.0)]
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    #[uniffi(default)]
    pub logit_bias: HashMap<u32, f32>,
    /// Tokens that are never generated.
    #[uniffi(default)]
    pub banned_tokens: Vec<u32>,
    /// The seed. The same seed gives the same text; nil takes another one every time.
    #[uniffi(default = None)]
    pub seed: Option<u64>,
    /// Strings that end the text and are not part of it.
    #[uniffi(default)]
    pub stop: Vec<String>,
    /// The grammar that the text has to follow.
    #[uniffi(default = None)]
    pub guide: Option<Guide>,
    /// The number of likeliest tokens to return in each token's place; log-probabilities come with all of
    /// them.
    #[uniffi(default = None)]
    pub logprobs: Option<u64>,
    /// True to continue after an end token.
    #[uniffi(default = false)]
    pub ignore_eos: bool,
    /// The beginning of the prompt that other tenants send too.
    #[uniffi(default = None)]
    pub shared_prefix: Option<SharedBeginning>,
    /// The LoRA adapter of this request.
    #[uniffi(default = None)]
    pub adapter: Option<Arc<Adapter>>,
    /// The factor on what the adapter adds: 1 for the adapter as it was trained, 0 for no effect.
    #[uniffi(default = 1.0)]
    pub adapter_scale: f32,
    /// Tool definitions in OpenAI's format, JSON objects. With tools, calls in the answer are removed from
    /// its text and become `toolCalls`.
    #[uniffi(default)]
    pub tools: Vec<String>,
    /// The choice that the model has: it may, must or must not call the tools; nil is `auto`.
    #[uniffi(default = None)]
    pub tool_choice: Option<ToolChoice>,
    /// Further variables for the template, such as `documents`; their values are JSON.
    #[uniffi(default)]
    pub template_variables: HashMap<String, String>,
    /// True if the prompt of a conversation ends with the start of the assistant's answer. Nil means true,
    /// unless the answer continues the last message.
    #[uniffi(default = None)]
    pub add_generation_prompt: Option<bool>,
    /// True if the answer continues the conversation's last message. The generated text does not repeat that
    /// message.
    #[uniffi(default = false)]
    pub continue_final_message: bool,
    /// True if control tokens spelled in a text prompt, such as `<|im_start|>`, become those tokens. Set it
    /// only for text that no user wrote.
    #[uniffi(default = false)]
    pub special: bool,
    /// True if the model thinks before it answers, for templates with the variable `enable_thinking`; nil
    /// leaves the choice to the template.
    #[uniffi(default = None)]
    pub enable_thinking: Option<bool>,
    /// The amount of thinking, for templates with the variable `reasoning_effort`: usually `low`, `medium` or
    /// `high`.
    #[uniffi(default = None)]
    pub reasoning_effort: Option<String>,
    /// The place of the model's thought; nil is `separate`.
    #[uniffi(default = None)]
    pub reasoning_format: Option<ReasoningFormat>,
    /// Further input for the tenant's program, any JSON.
    #[uniffi(default = None)]
    pub input: Option<String>,
    /// The source of drafts; nil for the one that the model was loaded with.
    #[uniffi(default = None)]
    pub speculation: Option<Speculation>,
    /// Functions that change the logits before each token is chosen, called in this order;
    /// `addLogitsProcessor` adds a closure. They run on a thread of the request's own: no other request waits
    /// for them.
    #[uniffi(default)]
    pub logits_processors: Vec<Arc<dyn LogitsProcessor>>,
}

pub(crate) fn message(message: Message) -> Result<CoreMessage> {
    let mut value = serde_json::json!({"role": message.role, "content": message.content});
    if let Some(fields) = message.fields {
        match json(&fields, "fields")? {
            serde_json::Value::Object(fields) => value.as_object_mut().into_iter().for_each(|all| {
                all.extend(fields.clone());
            }),
            _ => return Err(RealmError::invalid("`fields` of a message is no JSON object")),
        }
    }
    Ok(value.into())
}

impl Request {
    /// Converts the request for `realm`.
    pub(crate) fn convert(self) -> Result<realm::Request> {
        let mut request = realm::Request::new(match self.prompt {
            Prompt::Text(text) => CorePrompt::Text(text),
            Prompt::Chat(messages) => {
                CorePrompt::Chat(messages.into_iter().map(message).collect::<Result<_>>()?)
            }
            Prompt::Tokens(tokens) => CorePrompt::Tokens(tokens),
        });
        request.max_tokens = self.max_tokens.map(|tokens| tokens as usize);
        request.sampling = realm::Sampling {
            temperature: self.temperature,
            top_k: self.top_k as usize,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repetition_penalty: self.repetition_penalty,
            repetition_window: self.repetition_window as usize,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: self.logit_bias,
            banned_tokens: self.banned_tokens,
            seed: self.seed,
        };
        request.stop = self.stop;
        request.grammar = match self.guide {
            Some(Guide::JsonSchema(schema)) => Some(Grammar::JsonSchema(json(&schema, "jsonSchema")?)),
            Some(Guide::JsonObject) => Some(Grammar::JsonObject),
            Some(Guide::Regex(expression)) => Some(Grammar::Regex(expression)),
            Some(Guide::Lark(grammar)) => Some(Grammar::Lark(grammar)),
            None => None,
        };
        request.logprobs = self.logprobs.map(|likeliest| likeliest as usize);
        request.ignore_eos = self.ignore_eos;
        request.shared_prefix = match self.shared_prefix {
            Some(SharedBeginning::System) => SharedPrefix::System,
            Some(SharedBeginning::Tokens(tokens)) => SharedPrefix::Tokens(tokens as usize),
            None => SharedPrefix::Nothing,
        };
        request.adapter = self.adapter.map(|adapter| adapter.0.clone());
        request.adapter_scale = self.adapter_scale;
        request.tools = self.tools.iter().map(|tool| json(tool, "tools")).collect::<Result<_>>()?;
        request.tool_choice = self.tool_choice.map(Into::into).unwrap_or_default();
        for (name, value) in self.template_variables {
            request.template_variables.insert(name, json(&value, "templateVariables")?);
        }
        request.add_generation_prompt = self.add_generation_prompt;
        request.continue_final_message = self.continue_final_message;
        request.special = self.special;
        request.enable_thinking = self.enable_thinking;
        request.reasoning_effort = self.reasoning_effort;
        request.reasoning_format = self.reasoning_format.map(Into::into).unwrap_or_default();
        if let Some(input) = self.input {
            request.input = json(&input, "input")?;
        }
        request.speculation = self.speculation.map(Into::into);
        request.logits_processors = self.logits_processors.into_iter().map(processor).collect();
        Ok(request)
    }
}
