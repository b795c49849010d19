//! Requests: a prompt or a conversation, and the options of its answer.

use std::collections::HashMap;
use std::str::FromStr;

use realm_engine::{Grammar, Sampling, Speculation};
use serde_json::{Map, Value, json};

use crate::error::ErrorCode;
use crate::{Adapter, Error, LogitsProcessor, ToolChoice};

/// One message of a conversation, in OpenAI's format: `role`, `content` and any other field that a chat
/// template reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(pub(crate) Value);

impl Message {
    /// Creates a message of any role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self(json!({"role": role, "content": content.into()}))
    }

    /// Creates a message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// Creates a system message: instructions for the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// The fields of the message, as JSON.
    pub fn as_json(&self) -> &Value {
        &self.0
    }

    /// Returns whether the role is `user`.
    pub(crate) fn is_user(&self) -> bool {
        self.0["role"] == "user"
    }

    /// Returns whether the role is `system` or `developer`.
    pub(crate) fn is_system(&self) -> bool {
        matches!(self.0["role"].as_str(), Some("system" | "developer"))
    }

    /// Creates a message of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

impl From<Value> for Message {
    /// Takes a message with other fields, such as `tool_calls`.
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl From<&str> for Message {
    /// Creates a message of the user.
    fn from(text: &str) -> Self {
        Self::user(text)
    }
}

impl From<String> for Message {
    /// Creates a message of the user.
    fn from(text: String) -> Self {
        Self::user(text)
    }
}

/// The tokens or text that a generation continues.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Prompt {
    /// Text, as it is. Control tokens spelled in it are not parsed, unless [`Request::special`] says so.
    Text(String),
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<Message>),
    /// Token ids.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// Returns the bytes of text that have to be tokenized.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(_) => 0,
            Self::Chat(messages) => messages.iter().map(|message| text_bytes(&message.0)).sum(),
        }
    }
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(text_bytes).sum(),
        Value::Object(map) => map.values().map(text_bytes).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// The first part of a prompt that may be computed once for all tenants that mark it too. Without a mark,
/// nothing that one tenant sends makes another tenant's request faster, since the time would reveal the
/// prompt. Mark only text that is not secret: any tenant that sends the same text can find out that it was
/// used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SharedPrefix {
    /// Nothing is shared.
    #[default]
    Nothing,
    /// The system message is shared.
    System,
    /// The given number of tokens at the beginning of the prompt is shared.
    Tokens(usize),
}

/// The place of a model's thought: the text that the model writes before it answers, between `<think>` and
/// `</think>` or the marks that its chat template shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReasoningFormat {
    /// Thoughts go into `reasoning` of [`Chunk`](crate::Chunk) and [`Completion`](crate::Completion). The
    /// text is the answer alone.
    #[default]
    Separate,
    /// Thoughts stay in the text as the model wrote them, with their marks. If the prompt ends inside a
    /// thought, the text begins there.
    Inline,
}

impl FromStr for ReasoningFormat {
    type Err = Error;

    /// Parses `separate` or `inline`.
    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "separate" => Ok(Self::Separate),
            "inline" => Ok(Self::Inline),
            _ => {
                let why = format!("reasoning_format is `separate` or `inline`, not `{name}`");
                Err(Error::new(ErrorCode::InvalidArgument, why))
            }
        }
    }
}

/// A prompt, and the options of its answer. Set fields directly or in builder style.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt to continue.
    pub prompt: Prompt,
    /// Tool definitions in OpenAI's format. With tools, calls in the answer become
    /// [`ToolCall`](crate::ToolCall)s and are removed from its text. Realm recognizes the spelling that the
    /// model's template shows and those that all models write. If the template has no place for tools, Realm
    /// describes them to the model in words, and [`Completion::warnings`](crate::Completion::warnings) says
    /// so. Text guided by a JSON schema is never a call. The output of a tenant's program is left as it is.
    pub tools: Vec<Value>,
    /// The choice that the model has: it may, must or must not call the tools.
    pub tool_choice: ToolChoice,
    /// Further variables for the chat template, such as `documents`. They override the variables that other
    /// fields set.
    pub template_variables: Map<String, Value>,
    /// True if the prompt of a conversation ends with the start of the assistant's answer. `None` means true,
    /// unless [`continue_final_message`](Self::continue_final_message) is set.
    pub add_generation_prompt: Option<bool>,
    /// True if the answer continues the conversation's last message. The generated text does not repeat that
    /// message.
    pub continue_final_message: bool,
    /// True if control tokens spelled in a [`Prompt::Text`], such as `<|im_start|>` or `<think>`, become
    /// those tokens. Set it only for text that no user wrote.
    pub special: bool,
    /// True if the model thinks before it answers: the template's variable `enable_thinking`, which some
    /// templates call `thinking`. `None` leaves the choice to the template. Templates of models that always
    /// or never think ignore it.
    pub enable_thinking: Option<bool>,
    /// The amount of thinking, for templates with the variable `reasoning_effort`: usually `low`, `medium` or
    /// `high`.
    pub reasoning_effort: Option<String>,
    /// The place of the model's thought.
    pub reasoning_format: ReasoningFormat,
    /// Temperature and the other options that choose tokens.
    pub sampling: Sampling,
    /// The most tokens to generate; `None` for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Strings that end the text: at most 1,024, with at most 16,384 bytes together.
    pub stop: Vec<String>,
    /// The grammar that the text has to follow.
    pub grammar: Option<Grammar>,
    /// With `Some(n)`, the answer has the log-probability of each token and the `n` likeliest tokens in its
    /// place.
    pub logprobs: Option<usize>,
    /// True to continue after an end token.
    pub ignore_eos: bool,
    /// The beginning of the prompt that other tenants send too.
    pub shared_prefix: SharedPrefix,
    /// The LoRA adapter of this request.
    pub adapter: Option<Adapter>,
    /// The factor on what the adapter adds: 1 for the adapter as it was trained, 0 for no effect.
    pub adapter_scale: f32,
    /// Further input for the tenant's program, as any JSON value. Must be null if the tenant has no program.
    pub input: Value,
    /// The source of drafts; `None` for the one that the model was loaded with. Drafts do not change the
    /// text.
    pub speculation: Option<Speculation>,
    /// Functions that change the logits before each token is chosen, called in this order. They delay only
    /// this request. Realm makes no drafts for it.
    pub logits_processors: Vec<LogitsProcessor>,
}

impl Request {
    /// Creates a request that continues `prompt`.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            template_variables: Map::new(),
            add_generation_prompt: None,
            continue_final_message: false,
            special: false,
            enable_thinking: None,
            reasoning_effort: None,
            reasoning_format: ReasoningFormat::Separate,
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            grammar: None,
            logprobs: None,
            ignore_eos: false,
            shared_prefix: SharedPrefix::Nothing,
            adapter: None,
            adapter_scale: 1.0,
            input: Value::Null,
            speculation: None,
            logits_processors: Vec::new(),
        }
    }

    /// Creates a request that continues text as it is.
    pub fn text(prompt: impl Into<String>) -> Self {
        Self::new(Prompt::Text(prompt.into()))
    }

    /// Creates a request that answers a conversation.
    pub fn chat(messages: impl IntoIterator<Item = Message>) -> Self {
        Self::new(Prompt::Chat(messages.into_iter().collect()))
    }

    /// Creates a request that continues token ids.
    pub fn tokens(tokens: impl Into<Vec<u32>>) -> Self {
        Self::new(Prompt::Tokens(tokens.into()))
    }

    /// Sets [`Sampling::temperature`].
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.sampling.temperature = temperature;
        self
    }

    /// Sets [`Sampling::top_p`].
    pub fn top_p(mut self, p: f32) -> Self {
        self.sampling.top_p = p;
        self
    }

    /// Sets [`Sampling::top_k`].
    pub fn top_k(mut self, k: usize) -> Self {
        self.sampling.top_k = k;
        self
    }

    /// Sets [`Sampling::min_p`].
    pub fn min_p(mut self, p: f32) -> Self {
        self.sampling.min_p = p;
        self
    }

    /// Sets [`Sampling::seed`].
    pub fn seed(mut self, seed: u64) -> Self {
        self.sampling.seed = Some(seed);
        self
    }

    /// Sets [`Sampling::logit_bias`].
    pub fn logit_bias(mut self, bias: HashMap<u32, f32>) -> Self {
        self.sampling.logit_bias = bias;
        self
    }

    /// Sets [`Sampling::banned_tokens`].
    pub fn banned_tokens(mut self, tokens: impl Into<Vec<u32>>) -> Self {
        self.sampling.banned_tokens = tokens.into();
        self
    }

    /// Sets all sampling options.
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Sets [`max_tokens`](Self::max_tokens).
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Adds a stop string.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// Guides the text to be JSON that `schema` allows: [`Grammar::JsonSchema`].
    pub fn json_schema(self, schema: Value) -> Self {
        self.grammar(Grammar::JsonSchema(schema))
    }

    /// Guides the text to be a JSON object: [`Grammar::JsonObject`].
    pub fn json(self) -> Self {
        self.grammar(Grammar::JsonObject)
    }

    /// Guides the text to match a regular expression: [`Grammar::Regex`].
    pub fn regex(self, expression: impl Into<String>) -> Self {
        self.grammar(Grammar::Regex(expression.into()))
    }

    /// Guides the text by a context-free grammar in Lark or GBNF: [`Grammar::Lark`].
    pub fn lark(self, grammar: impl Into<String>) -> Self {
        self.grammar(Grammar::Lark(grammar.into()))
    }

    /// Guides the text by a `response_format` of OpenAI's API: `{"type": "text"}`, `{"type": "json_object"}`
    /// or `{"type": "json_schema", "json_schema": {"schema": ...}}`. A `schema` beside `json_object` counts
    /// too, as in llama.cpp's server. `name`, `strict` and `description` change nothing: the text always
    /// follows the schema.
    ///
    /// # Errors
    /// `invalid-argument` for any other format, with the key that is wrong.
    pub fn response_format(mut self, format: &Value) -> Result<Self, Error> {
        self.grammar = crate::response_format::grammar(format)?;
        Ok(self)
    }

    /// Sets [`grammar`](Self::grammar).
    pub fn grammar(mut self, grammar: Grammar) -> Self {
        self.grammar = Some(grammar);
        self
    }

    /// Sets [`logprobs`](Self::logprobs).
    pub fn logprobs(mut self, likeliest: usize) -> Self {
        self.logprobs = Some(likeliest);
        self
    }

    /// Sets [`shared_prefix`](Self::shared_prefix).
    pub fn shared_prefix(mut self, prefix: SharedPrefix) -> Self {
        self.shared_prefix = prefix;
        self
    }

    /// Sets [`adapter`](Self::adapter).
    pub fn adapter(mut self, adapter: &Adapter) -> Self {
        self.adapter = Some(adapter.clone());
        self
    }

    /// Sets [`adapter_scale`](Self::adapter_scale).
    pub fn adapter_scale(mut self, scale: f32) -> Self {
        self.adapter_scale = scale;
        self
    }

    /// Sets [`input`](Self::input).
    pub fn input(mut self, input: impl Into<Value>) -> Self {
        self.input = input.into();
        self
    }

    /// Sets [`speculation`](Self::speculation).
    pub fn speculation(mut self, speculation: Speculation) -> Self {
        self.speculation = Some(speculation);
        self
    }

    /// Sets [`add_generation_prompt`](Self::add_generation_prompt).
    pub fn add_generation_prompt(mut self, add: bool) -> Self {
        self.add_generation_prompt = Some(add);
        self
    }

    /// Sets [`continue_final_message`](Self::continue_final_message).
    pub fn continue_final_message(mut self, go_on: bool) -> Self {
        self.continue_final_message = go_on;
        self
    }

    /// Sets [`special`](Self::special).
    pub fn special(mut self, special: bool) -> Self {
        self.special = special;
        self
    }

    /// Sets [`enable_thinking`](Self::enable_thinking).
    pub fn enable_thinking(mut self, enable: bool) -> Self {
        self.enable_thinking = Some(enable);
        self
    }

    /// Sets [`reasoning_effort`](Self::reasoning_effort).
    pub fn reasoning_effort(mut self, effort: impl Into<String>) -> Self {
        self.reasoning_effort = Some(effort.into());
        self
    }

    /// Sets [`reasoning_format`](Self::reasoning_format).
    pub fn reasoning_format(mut self, format: ReasoningFormat) -> Self {
        self.reasoning_format = format;
        self
    }

    /// Returns the template's variables, including those that have fields of their own.
    pub(crate) fn variables(&self) -> Map<String, Value> {
        let mut variables = self.template_variables.clone();
        if let Some(enable) = self.enable_thinking {
            for name in ["enable_thinking", "thinking"] {
                variables.entry(name).or_insert(Value::Bool(enable));
            }
        }
        if let Some(effort) = &self.reasoning_effort {
            variables.entry("reasoning_effort").or_insert_with(|| effort.as_str().into());
        }
        variables
    }

    /// Adds a function that changes the logits before each token is chosen.
    pub fn logits_processor(mut self, processor: LogitsProcessor) -> Self {
        self.logits_processors.push(processor);
        self
    }

    /// Sets [`tool_choice`](Self::tool_choice).
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = choice;
        self
    }

    /// Adds a tool definition.
    pub fn tool(mut self, definition: Value) -> Self {
        self.tools.push(definition);
        self
    }
}
