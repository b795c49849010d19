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
    /// `system`, `user`, `assistant`, `tool` or what else the model's template knows.
    pub role: String,
    /// What was said.
    pub content: String,
    /// Other fields that the template reads, such as `tool_calls`: a JSON object. A `content` in it, such as a list of parts, takes the
    /// place of the message's.
    #[uniffi(default = None)]
    pub fields: Option<String>,
}

/// What a generation goes on from.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum Prompt {
    /// Text as it is. Control tokens spelled in it are not parsed.
    Text(String),
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<Message>),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// What a text has to spell.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum Guide {
    /// JSON that a schema, a JSON text, allows.
    JsonSchema(String),
    /// Any JSON object.
    JsonObject,
    /// What a regular expression matches as a whole.
    Regex(String),
    /// What a grammar allows, in llguidance's dialect of Lark or in llama.cpp's GBNF.
    Lark(String),
}

/// Which beginning of a prompt may be computed once for all tenants who mark it too.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum SharedBeginning {
    /// What the system message makes up.
    System,
    /// So many tokens.
    Tokens(u64),
}

/// Where drafts come from. The text is the same with and without.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum Speculation {
    /// From wherever there are any.
    Auto,
    /// None.
    Off,
    /// What followed the last tokens earlier in the text.
    Lookup,
    /// The draft model alone.
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

/// Whether the model may, must or must not call tools.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// It is not told of them.
    Never,
    /// The answer is one call of any of them, with arguments that its schema allows.
    Required,
    /// The answer is one call of the tool of this name, with arguments that its schema allows.
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

/// Where a model's thought goes.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum ReasoningFormat {
    /// Into `reasoning`. The text is the answer alone.
    Separate,
    /// It stays in the text, with its marks.
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

/// A prompt and how to go on from it.
#[derive(Clone, uniffi::Record)]
pub struct Request {
    /// What to go on from.
    pub prompt: Prompt,
    /// Tokens to generate at most; nil for as many as the context holds.
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
    /// Divides positive and multiplies negative logits of tokens that occurred lately; 1 changes nothing.
    #[uniffi(default = 1.0)]
    pub repetition_penalty: f32,
    /// How many of the last tokens, prompt included, `repetitionPenalty` looks at.
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
    /// Tokens that never come out.
    #[uniffi(default)]
    pub banned_tokens: Vec<u32>,
    /// Same seed, same text; nil takes another one every time.
    #[uniffi(default = None)]
    pub seed: Option<u64>,
    /// Strings that end the text and are not part of it.
    #[uniffi(default)]
    pub stop: Vec<String>,
    /// What the text has to spell.
    #[uniffi(default = None)]
    pub guide: Option<Guide>,
    /// Log-probabilities of every token and of so many of the likeliest in its place.
    #[uniffi(default = None)]
    pub logprobs: Option<u64>,
    /// Go on after an end token.
    #[uniffi(default = false)]
    pub ignore_eos: bool,
    /// The beginning of the prompt that other tenants send too.
    #[uniffi(default = None)]
    pub shared_prefix: Option<SharedBeginning>,
    /// The LoRA adapter that changes the model for this request.
    #[uniffi(default = None)]
    pub adapter: Option<Arc<Adapter>>,
    /// Factor on what the adapter adds: 1 is the adapter as it was trained, 0 none.
    #[uniffi(default = 1.0)]
    pub adapter_scale: f32,
    /// Tool definitions in OpenAI's format, JSON objects, for templates that know tools. With any, calls that the answer spells
    /// leave its text and become `toolCalls`.
    #[uniffi(default)]
    pub tools: Vec<String>,
    /// Whether the model may, must or must not call them; nil is `auto`.
    #[uniffi(default = None)]
    pub tool_choice: Option<ToolChoice>,
    /// Further variables for the template, such as `enable_thinking`; their values are JSON.
    #[uniffi(default)]
    pub template_variables: HashMap<String, String>,
    /// Whether a conversation's prompt ends with the start of the assistant's answer; nil for yes, unless the last message is gone
    /// on with.
    #[uniffi(default = None)]
    pub add_generation_prompt: Option<bool>,
    /// The answer goes on with the words of the conversation's last message, which the generated text does not repeat.
    #[uniffi(default = false)]
    pub continue_final_message: bool,
    /// Control tokens spelled in a prompt that is a text, such as `<|im_start|>`, become those tokens: only for text that no user
    /// wrote.
    #[uniffi(default = false)]
    pub special: bool,
    /// Whether the model thinks before it answers, for templates that know `enable_thinking`; nil leaves it to the template.
    #[uniffi(default = None)]
    pub enable_thinking: Option<bool>,
    /// How much it thinks, for templates that know `reasoning_effort`: mostly `low`, `medium` or `high`.
    #[uniffi(default = None)]
    pub reasoning_effort: Option<String>,
    /// Where the thought goes; nil is `separate`.
    #[uniffi(default = None)]
    pub reasoning_format: Option<ReasoningFormat>,
    /// What else the tenant's program is told: any JSON.
    #[uniffi(default = None)]
    pub input: Option<String>,
    /// Where drafts come from; nil for what the model was loaded with.
    #[uniffi(default = None)]
    pub speculation: Option<Speculation>,
    /// Functions that change the logits before each token is chosen, in this order; `addLogitsProcessor` adds a closure. They run on a
    /// thread of the request's own: no other request waits for them.
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
    /// As `realm` takes it.
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
