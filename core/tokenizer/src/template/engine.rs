//! Jinja templates.

use std::io;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::python_json::Layout;

pub(super) struct Limits {
    pub(super) steps: u64,
    pub(super) bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 5_000_000, bytes: 16 << 20 }
    }
}

pub(super) struct Input<'a> {
    pub(super) trusted: &'a Map<String, Value>,
    pub(super) foreign: &'a Map<String, Value>,
}

pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) foreign: Vec<Range<usize>>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Error(String);

/// A compiled template.
pub(super) struct Template {
    environment: Environment<'static>,
}

impl Template {
    pub(super) fn parse(source: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| failure(&e))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_recursion_limit(100);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment
            .add_template_owned("default", without_generation_tags(source))
            .map_err(|e| failure(&e))?;
        Ok(Self { environment })
    }

    pub(super) fn render(&self, input: &Input<'_>, limits: &Limits) -> Result<Rendered, Error> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(limits.steps));
        let template = environment.get_template("default").map_err(|e| failure(&e))?;
        let mut context = input.trusted.clone();
        context.extend(input.foreign.clone());
        let mut out = Limited(Vec::new(), limits.bytes);
        template.render_captured_to(Serde(&context), &mut out).map_err(|e| failure(&e))?;
        let text = String::from_utf8(out.0).map_err(|e| Error(e.to_string()))?;
        Ok(Rendered { text, foreign: Vec::new() })
    }
}

/// A writer that refuses to grow beyond a limit.
struct Limited(Vec<u8>, usize);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > self.1 {
            return Err(io::Error::other(format!("the prompt exceeds {} bytes", self.1)));
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
        return Error("it took too many steps".into());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    Error(text)
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
