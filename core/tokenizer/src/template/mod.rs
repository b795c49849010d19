//! Chat templates: `tokenizer.chat_template`, rendered as Hugging Face's `apply_chat_template` does.
//!
//! - [`ChatTemplate`] holds a model's templates. [`builtin`] has those that go by a name.
//! - [`capabilities`] finds out once what a template takes, and [`shape`] brings a conversation in OpenAI's format into that
//!   form.
//! - [`continuation`] ends a prompt in the middle of its last message.
//!
//! What a prompt's text says and who said it are kept together ([`Rendered`]), so that a user's words never become control
//! tokens.

mod builtin;
mod capabilities;
mod continuation;
mod shape;

use realm_gguf::Metadata;
use realm_template::{Input, Limits, Rendered, Template};
use serde_json::{Map, Value};

use crate::tokenizer::optional;
use crate::{Error, Tokenizer};

pub use self::builtin::names as template_names;
pub use self::capabilities::Capabilities;

/// What a chat template is rendered with.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Objects with `role` and `content`, and what else the template reads (`tool_calls`, `name`).
    pub messages: Vec<Value>,
    /// Tool definitions in OpenAI's format; empty for none.
    pub tools: Vec<Value>,
    /// Whether to end with the start of the assistant's answer; `None` for yes, unless the final message is continued.
    pub add_generation_prompt: Option<bool>,
    /// Whether to end in the middle of the final message, so that its words are gone on with.
    pub continue_final_message: bool,
    /// Further variables, such as `enable_thinking` or `documents`. Those called `add_generation_prompt` and
    /// `continue_final_message` are as the fields of these names, where those say nothing.
    pub variables: Map<String, Value>,
}

/// The texts of a model's special tokens, as templates name them: `bos_token`, `eos_token`, `pad_token` and so on.
#[derive(Debug, Clone, Default)]
pub struct SpecialTexts(Map<String, Value>);

impl SpecialTexts {
    /// A begin and an end token.
    pub fn new(bos: impl Into<String>, eos: impl Into<String>) -> Self {
        Self(Map::from_iter([
            ("bos_token".to_owned(), Value::String(bos.into())),
            ("eos_token".to_owned(), Value::String(eos.into())),
        ]))
    }

    /// Those that a file's metadata names.
    pub fn of(metadata: &Metadata, tokenizer: &Tokenizer) -> Self {
        let text = |id: Option<u32>| {
            let mut bytes = Vec::new();
            tokenizer.push_bytes(id?, true, &mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        // Templates join these two to other texts without asking whether they are there.
        let mut this =
            Self::new(text(tokenizer.bos()).unwrap_or_default(), text(tokenizer.eos()).unwrap_or_default());
        let others =
            [("unknown", "unk"), ("seperator", "sep"), ("padding", "pad"), ("cls", "cls"), ("mask", "mask")];
        for (key, name) in others {
            if let Some(text) = text(optional(metadata.u32(&format!("tokenizer.ggml.{key}_token_id")))) {
                this.0.insert(format!("{name}_token"), text.into());
            }
        }
        this
    }
}

/// A model's chat template.
pub struct ChatTemplate {
    default: Compiled,
    /// What conversations with tools are rendered by.
    tool_use: Option<Compiled>,
    special: SpecialTexts,
}

/// A template's source, and what became of it.
struct Compiled {
    source: String,
    /// The reason where it can't be parsed.
    template: Result<(Template, Capabilities), String>,
}

impl Compiled {
    fn new(source: &str, special: &SpecialTexts) -> Self {
        let template = Template::parse(source).map_err(|error| error.to_string());
        let probed = template.map(|template| {
            let capabilities = Capabilities::of(&template, source, special);
            (template, capabilities)
        });
        Self { source: source.to_owned(), template: probed }
    }
}

impl ChatTemplate {
    /// The template of a GGUF file, `None` if it has none. One that can't be parsed is an error only when a conversation
    /// is rendered: plain prompts don't need it.
    pub fn from_metadata(metadata: &Metadata, special: SpecialTexts) -> Option<Self> {
        let read = |key: &str| match metadata.str(key) {
            Ok(source) => source.map(|source| Compiled::new(source, &special)),
            Err(error) => Some(Compiled { source: String::new(), template: Err(error.to_string()) }),
        };
        let default = read("tokenizer.chat_template")?;
        let tool_use = read("tokenizer.chat_template.tool_use");
        for compiled in [Some(&default), tool_use.as_ref()].into_iter().flatten() {
            if let Err(why) = &compiled.template {
                tracing::warn!(
                    "the file's chat template is of no use, and conversations need another: {why}"
                );
            }
        }
        Some(Self { default, tool_use, special })
    }

    /// Compiles a template: its source, or the [name](template_names) of a builtin one.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn new(source: &str, special: SpecialTexts) -> Result<Self, Error> {
        let default = Compiled::new(builtin::source(source)?, &special);
        match &default.template {
            Ok(_) => Ok(Self { default, tool_use: None, special }),
            Err(why) => Err(Error::Template(why.clone())),
        }
    }

    /// The source that conversations with or without tools are rendered by.
    pub fn source(&self, tools: bool) -> &str {
        &self.compiled(tools).source
    }

    /// What the template for conversations with or without tools takes; `None` if it can't be parsed.
    pub fn capabilities(&self, tools: bool) -> Option<&Capabilities> {
        self.compiled(tools).template.as_ref().ok().map(|(_, capabilities)| capabilities)
    }

    fn compiled(&self, tools: bool) -> &Compiled {
        self.tool_use.as_ref().filter(|_| tools).unwrap_or(&self.default)
    }

    /// Renders the prompt of a conversation in OpenAI's format, brought into the form that the template takes.
    ///
    /// # Errors
    /// The template's own `raise_exception`, an operation that fails, too many steps or bytes, or a message with parts
    /// that are no text.
    pub fn render(&self, conversation: &Conversation) -> Result<Rendered, Error> {
        let Compiled { template, .. } = self.compiled(!conversation.tools.is_empty());
        let (template, capabilities) = template.as_ref().map_err(|why| Error::BrokenTemplate(why.clone()))?;
        let variable = |name: &str| conversation.variables.get(name).and_then(Value::as_bool);
        let go_on =
            conversation.continue_final_message || variable("continue_final_message").unwrap_or(false);
        let generate = conversation.add_generation_prompt.or_else(|| variable("add_generation_prompt"));
        let generate = generate.unwrap_or(!go_on);
        if generate && go_on {
            let why = "`continue_final_message` goes on with the last message, and `add_generation_prompt` begins a new one: \
                       leave one of them out";
            return Err(Error::Conversation(why.into()));
        }
        let mut messages = shape::shape(&conversation.messages, capabilities)?;
        let mark = if go_on { Some(continuation::mark(&mut messages)?) } else { None };
        let foreign = self.foreign(conversation, messages);
        let mut trusted = self.special.0.clone();
        trusted.insert("add_generation_prompt".into(), generate.into());
        trusted.retain(|name, _| !foreign.contains_key(name));
        let input = Input { trusted: &trusted, foreign: &foreign };
        let rendered = template.render(&input, &Limits::default());
        let rendered = rendered.map_err(|error| Error::Template(error.to_string()))?;
        match mark {
            Some(mark) => continuation::cut(rendered, &mark),
            None => Ok(rendered),
        }
    }

    fn foreign(&self, conversation: &Conversation, messages: Vec<Value>) -> Map<String, Value> {
        let mut foreign = conversation.variables.clone();
        foreign.retain(|name, _| name != "add_generation_prompt" && name != "continue_final_message");
        foreign.insert("messages".into(), Value::Array(messages));
        // `tools is not none` is a common test, so no tools is none and not an empty list.
        let tools = &conversation.tools;
        let tools = if tools.is_empty() { Value::Null } else { Value::Array(tools.clone()) };
        foreign.insert("tools".into(), tools);
        foreign.entry("documents").or_insert(Value::Null);
        foreign
    }
}
