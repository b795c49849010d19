//! Chat templates: renders `tokenizer.chat_template` in the same way as Hugging Face's `apply_chat_template`.
//!
//! - [`ChatTemplate`] holds a model's templates. [`builtin`] has the named ones.
//! - [`capabilities`] finds the capabilities of a template once, and [`shape`] converts a conversation in
//!   OpenAI's format to match them.
//! - [`continuation`] ends a prompt in the middle of its last message.
//!
//! A prompt keeps its text together with the origin of each part ([`Rendered`]), so that a user's words never
//! become control tokens.

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

/// The input of a chat template.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Objects with `role` and `content`, and other fields that the template reads (`tool_calls`, `name`).
    pub messages: Vec<Value>,
    /// Tool definitions in OpenAI's format; empty for none.
    pub tools: Vec<Value>,
    /// Ends the prompt with the start of the assistant's answer; `None` means yes, unless the final message
    /// is continued.
    pub add_generation_prompt: Option<bool>,
    /// Ends the prompt in the middle of the final message, so that the model continues it.
    pub continue_final_message: bool,
    /// Further variables, such as `enable_thinking` or `documents`. Variables named `add_generation_prompt`
    /// and `continue_final_message` set the fields of these names, unless the fields are set.
    pub variables: Map<String, Value>,
}

/// The texts of a model's special tokens, as templates name them: `bos_token`, `eos_token`, `pad_token` and
/// so on.
#[derive(Debug, Clone, Default)]
pub struct SpecialTexts(Map<String, Value>);

impl SpecialTexts {
    /// Makes the texts of a begin and an end token.
    pub fn new(bos: impl Into<String>, eos: impl Into<String>) -> Self {
        Self(Map::from_iter([
            ("bos_token".to_owned(), Value::String(bos.into())),
            ("eos_token".to_owned(), Value::String(eos.into())),
        ]))
    }

    /// Reads the texts of the special tokens that a file's metadata names.
    pub fn of(metadata: &Metadata, tokenizer: &Tokenizer) -> Self {
        let text = |id: Option<u32>| {
            let mut bytes = Vec::new();
            tokenizer.push_bytes(id?, true, &mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        // Templates concatenate these two without a check, so they always exist.
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
    /// The template for conversations with tools, if it is another one.
    tool_use: Option<Compiled>,
    special: SpecialTexts,
}

/// A template's source, and the result of compiling it.
struct Compiled {
    source: String,
    /// The template, or the reason why it cannot be parsed.
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
    /// Reads the template of a GGUF file; `None` if it has none. A template that cannot be parsed is an error
    /// only when a conversation is rendered, because plain prompts do not need it.
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

    /// Returns the source of the template for conversations with or without tools.
    pub fn source(&self, tools: bool) -> &str {
        &self.compiled(tools).source
    }

    /// Returns the capabilities of the template for conversations with or without tools; `None` if it cannot
    /// be parsed.
    pub fn capabilities(&self, tools: bool) -> Option<&Capabilities> {
        self.compiled(tools).template.as_ref().ok().map(|(_, capabilities)| capabilities)
    }

    fn compiled(&self, tools: bool) -> &Compiled {
        self.tool_use.as_ref().filter(|_| tools).unwrap_or(&self.default)
    }

    /// Renders the prompt of a conversation in OpenAI's format, after converting it to the form that the
    /// template accepts.
    ///
    /// # Errors
    /// The template's own `raise_exception`, an operation that fails, too many steps or bytes, or a message
    /// with parts that are not text.
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
        // `tools is not none` is a common test, so an empty list of tools becomes none.
        let tools = &conversation.tools;
        let tools = if tools.is_empty() { Value::Null } else { Value::Array(tools.clone()) };
        foreign.insert("tools".into(), tools);
        foreign.entry("documents").or_insert(Value::Null);
        foreign
    }
}
