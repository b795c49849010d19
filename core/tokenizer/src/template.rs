//! Chat templates: `tokenizer.chat_template`, rendered as Hugging Face's `apply_chat_template` does.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use realm_gguf::Metadata;
use serde_json::{Map, Value};

use crate::Error;
use crate::python_json::Layout;

/// Steps that a template may take. The largest real template over a thousand messages takes under a million.
const FUEL: u64 = 5_000_000;
/// Bytes that a template may write.
const OUTPUT_LIMIT: usize = 16 << 20;
/// Bytes that a template itself may have.
const SOURCE_LIMIT: usize = 1 << 20;

/// What a chat template is rendered with.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Objects with `role` and `content`, and what else the template reads (`tool_calls`, `name`).
    pub messages: Vec<Value>,
    /// Tool definitions in OpenAI's format; empty for none.
    pub tools: Vec<Value>,
    /// Whether to end with the start of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking` or `documents`.
    pub variables: Map<String, Value>,
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// The template of a GGUF file, `None` if it has none. `bos_token` and `eos_token` are the texts of the
    /// begin and end tokens.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn from_metadata(
        metadata: &Metadata,
        bos_token: String,
        eos_token: String,
    ) -> Result<Option<Self>, Error> {
        let Some(source) = metadata.str("tokenizer.chat_template")? else { return Ok(None) };
        let mut this = Self::new(source, bos_token, eos_token)?;
        if let Some(source) = metadata.str("tokenizer.chat_template.tool_use")? {
            this.add("tool_use", source)?;
        }
        Ok(Some(this))
    }

    /// Compiles `source`.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn new(source: &str, bos_token: String, eos_token: String) -> Result<Self, Error> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| failure(&e))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(100);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        let mut this = Self { environment, bos_token, eos_token };
        this.add("default", source)?;
        Ok(this)
    }

    fn add(&mut self, name: &'static str, source: &str) -> Result<(), Error> {
        if source.len() > SOURCE_LIMIT {
            let len = source.len();
            return Err(Error::Template(format!("{len} bytes; at most {SOURCE_LIMIT} are accepted")));
        }
        let source = without_generation_tags(source);
        self.environment.add_template_owned(name, source).map_err(|e| failure(&e))
    }

    /// The source that conversations with or without tools are rendered by.
    pub fn source(&self, tools: bool) -> String {
        let named = |name| self.environment.get_template(name).ok();
        let tool_use = if tools { named("tool_use") } else { None };
        tool_use
            .or_else(|| named("default"))
            .map_or_else(String::new, |template| template.source().to_owned())
    }

    /// Renders the prompt of a conversation.
    ///
    /// # Errors
    /// The template's own `raise_exception`, an operation that fails, or too many steps or bytes.
    pub fn render(&self, conversation: &Conversation) -> Result<String, Error> {
        let Conversation { messages, tools, add_generation_prompt, variables } = conversation;
        let name = if tools.is_empty() { "default" } else { "tool_use" };
        let template =
            self.environment.get_template(name).or_else(|_| self.environment.get_template("default"));
        let template = template.map_err(|e| failure(&e))?;
        let mut context = variables.clone();
        context.insert("messages".into(), Value::Array(messages.clone()));
        context.insert("add_generation_prompt".into(), Value::Bool(*add_generation_prompt));
        context.entry("bos_token").or_insert_with(|| Value::String(self.bos_token.clone()));
        context.entry("eos_token").or_insert_with(|| Value::String(self.eos_token.clone()));
        // `tools is not none` is a common test, so no tools is none and not an empty list.
        let tools = if tools.is_empty() { Value::Null } else { Value::Array(tools.clone()) };
        context.insert("tools".into(), tools);
        context.entry("documents").or_insert(Value::Null);
        let mut out = Limited(Vec::new());
        let done = template.render_captured_to(Serde(&context), &mut out);
        done.map_err(|e| failure(&e))?;
        String::from_utf8(out.0).map_err(|e| Error::Template(e.to_string()))
    }
}

/// A writer that refuses to grow beyond [`OUTPUT_LIMIT`].
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_LIMIT {
            return Err(io::Error::other(format!("the prompt exceeds {OUTPUT_LIMIT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The whole chain of causes in one line: minijinja puts the line number first and the reason behind.
fn failure(error: &minijinja::Error) -> Error {
    if error.kind() == ErrorKind::OutOfFuel {
        return Error::Template(format!("it did not end within {FUEL} steps"));
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    Error::Template(text)
}

/// Hugging Face marks the assistant's words with `{% generation %}`, which prints what it holds.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end + 2);
        match tag.trim_matches(|c: char| "{%-+}".contains(c) || c.is_whitespace()) {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn tojson(value: Serde<Value>, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let mut separators = separators.unwrap_or_default().into_iter();
    let layout = Layout {
        indent: indent.map(|n| n.min(16)),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        item_separator: separators.next().unwrap_or_else(|| if indent.is_some() { "," } else { ", " }.into()),
        key_separator: separators.next().unwrap_or_else(|| ": ".into()),
    };
    options.assert_all_used()?;
    Ok(layout.dumps(&value))
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// Today's date, formatted as Python's `datetime.now().strftime` does.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let now = jiff::ZonedDateTime::now();
    jiff::fmt::strtime::format(format, &now)
        .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
}
