//! A prompt or a conversation, and how to answer it.

use std::collections::HashMap;
use std::str::FromStr;

use realm_engine::{Grammar, Sampling, Speculation};
use serde_json::{Map, Value, json};

use crate::error::ErrorCode;
use crate::{Adapter, Error, LogitsProcessor, ToolChoice};

/// One message of a conversation, in OpenAI's format: `role`, `content` and what else a template reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(pub(crate) Value);

impl Message {
    /// A message of any role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self(json!({"role": role, "content": content.into()}))
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model is told beforehand.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// Its fields, as JSON.
    pub fn as_json(&self) -> &Value {
        &self.0
    }

    /// Whether the role is `user`.
    pub(crate) fn is_user(&self) -> bool {
        self.0["role"] == "user"
    }

    /// Whether the role is `system` or `developer`.
    pub(crate) fn is_system(&self) -> bool {
        matches!(self.0["role"].as_str(), Some("system" | "developer"))
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

impl From<Value> for Message {
    /// A message with other fields, such as `tool_calls`.
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl From<&str> for Message {
    /// What the user says.
    fn from(text: &str) -> Self {
        Self::user(text)
    }
}

impl From<String> for Message {
    /// What the user says.
    fn from(text: String) -> Self {
        Self::user(text)
    }
}

/// What a generation goes on from.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text as it is. Control tokens spelled in it are not parsed, unless [`Request::special`] says so.
    Text(String),
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<Message>),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// Which beginning of a prompt may be computed once for all tenants who mark it too. Without a mark nothing that one
/// tenant sent makes another one's requests faster, since that would tell what it was. A marked beginning is no secret:
/// who sends the same finds out that it was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedPrefix {
    /// None.
    #[default]
    Nothing,
    /// What the system message makes up.
    System,
    /// So many tokens.
    Tokens(usize),
}

/// Where a model's thought goes: what it writes between `<think>` and `</think>`, or whatever marks its chat template shows,
/// before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReasoningFormat {
    /// Into `reasoning` of [`Chunk`](crate::Chunk) and [`Completion`](crate::Completion). The text is the answer alone.
    #[default]
    Separate,
    /// It stays in the text as the model wrote it, with its marks. Where the prompt ends inside a thought, the text begins
    /// there.
    Inline,
}

impl FromStr for ReasoningFormat {
    type Err = Error;

    /// `separate` or `inline`.
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

/// A prompt and how to go on from it. Fields can be set directly or in builder style.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to go on from.
    pub prompt: Prompt,
    /// Tool definitions in OpenAI's format. With any, calls that the answer spells become
    /// [`ToolCall`](crate::ToolCall)s and leave its text, in the spelling that the model's template shows and in those that
    /// all models write. Where the template knows no tools, the model is told of them in words, and
    /// [`Completion::warnings`](crate::Completion::warnings) says so. What a JSON schema guides is never a call.
    /// What a tenant's program sends is left as it is.
    pub tools: Vec<Value>,
    /// Whether the model may, must or must not call them.
    pub tool_choice: ToolChoice,
    /// Further variables for the template, such as `documents`. They win over what other fields set.
    pub template_variables: Map<String, Value>,
    /// Whether a conversation's prompt ends with the start of the assistant's answer; `None` for yes, unless
    /// [`continue_final_message`](Self::continue_final_message) is set.
    pub add_generation_prompt: Option<bool>,
    /// Whether the answer goes on with the words of the conversation's last message, which the text that is generated does
    /// not repeat.
    pub continue_final_message: bool,
    /// Whether control tokens spelled in a [`Prompt::Text`], such as `<|im_start|>` or `<think>`, become those tokens: only
    /// for text that no user wrote.
    pub special: bool,
    /// Whether the model thinks before it answers: the template's variable `enable_thinking`, and `thinking`, as some
    /// templates call it. `None` leaves it to the template. Templates of models that can't choose ignore it.
    pub enable_thinking: Option<bool>,
    /// How much it thinks, for templates that know `reasoning_effort`: mostly `low`, `medium` or `high`.
    pub reasoning_effort: Option<String>,
    /// Where the thought goes.
    pub reasoning_format: ReasoningFormat,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens to generate at most; `None` for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Strings that end the text: 1,024 at most, of 16,384 bytes together.
    pub stop: Vec<String>,
    /// What the text has to spell.
    pub grammar: Option<Grammar>,
    /// With `Some(n)`, log-probabilities of every token and the `n` likeliest in its place.
    pub logprobs: Option<usize>,
    /// Go on after an end token.
    pub ignore_eos: bool,
    /// The beginning of the prompt that other tenants send too.
    pub shared_prefix: SharedPrefix,
    /// The LoRA adapter that changes the model for this request.
    pub adapter: Option<Adapter>,
    /// Factor on what the adapter adds: 1 is the adapter as it was trained, 0 none.
    pub adapter_scale: f32,
    /// What else the tenant's program is told: any JSON. Without a program it has to be null.
    pub input: Value,
    /// Where drafts come from; `None` for what the model was loaded with. The text is the same with and without.
    pub speculation: Option<Speculation>,
    /// Functions that change the logits before each token is chosen, in this order. Nobody else waits for them; drafts are not
    /// made for such a request.
    pub logits_processors: Vec<LogitsProcessor>,
}

impl Request {
    /// Goes on from `prompt`.
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

    /// Goes on from text as it is.
    pub fn text(prompt: impl Into<String>) -> Self {
        Self::new(Prompt::Text(prompt.into()))
    }

    /// Answers a conversation.
    pub fn chat(messages: impl IntoIterator<Item = Message>) -> Self {
        Self::new(Prompt::Chat(messages.into_iter().collect()))
    }

    /// Goes on from token ids.
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

    /// Sets everything about sampling.
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

    /// The text will be JSON that `schema` allows: [`Grammar::JsonSchema`].
    pub fn json_schema(self, schema: Value) -> Self {
        self.grammar(Grammar::JsonSchema(schema))
    }

    /// The text will be a JSON object: [`Grammar::JsonObject`].
    pub fn json(self) -> Self {
        self.grammar(Grammar::JsonObject)
    }

    /// The text will be what a regular expression matches: [`Grammar::Regex`].
    pub fn regex(self, expression: impl Into<String>) -> Self {
        self.grammar(Grammar::Regex(expression.into()))
    }

    /// The text will be what a context-free grammar, in Lark or in GBNF, allows: [`Grammar::Lark`].
    pub fn lark(self, grammar: impl Into<String>) -> Self {
        self.grammar(Grammar::Lark(grammar.into()))
    }

    /// Guides the text as a `response_format` of OpenAI's says: `{"type": "text"}`, `{"type": "json_object"}` or
    /// `{"type": "json_schema", "json_schema": {"schema": ...}}`. A `schema` beside `json_object` counts too, as
    /// llama.cpp's server has it. `name`, `strict` and `description` change nothing: a schema is always kept to.
    ///
    /// # Errors
    /// `invalid-argument` for anything else, with the key that is wrong.
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

    /// The variables of the template, those that have fields of their own included.
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
