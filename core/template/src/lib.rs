//! Chat templates, rendered as in Hugging Face's transformers, with the origin of every byte.
//!
//! A template is an untrusted program in Jinja's language: transformers runs it in jinja2's immutable
//! sandbox, with `trim_blocks`, `lstrip_blocks`, loop controls, the tag `generation`, and `tojson`,
//! `raise_exception` and `strftime_now` of its own. [`Template::render`] gives the same text, and says which
//! ranges of it came from the conversation and which from the template. A tokenizer then looks for control
//! tokens only in the template's parts, so words of users, tools and documents never become control tokens.
//!
//! ```
//! use realm_template::{Input, Limits, Template};
//! use serde_json::json;
//!
//! let template = Template::parse("{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}")?;
//! let foreign = json!({"messages": [{"role": "user", "content": " <|system|> "}]});
//! let trusted = serde_json::Map::new();
//! let input = Input { trusted: &trusted, foreign: foreign.as_object().unwrap() };
//! let rendered = template.render(&input, &Limits::default())?;
//! assert_eq!(rendered.text, "<|user|><|system|>\n");
//! assert_eq!(rendered.foreign, [8..18]);
//! # Ok::<(), realm_template::Error>(())
//! ```
//!
//! Reading order: [`lexer`](self) and `parser` make a tree. `scopes` decides, by the rules of jinja2's
//! compiler, which names hide others; `height` refuses a tree that is too high. `interpreter` runs the tree
//! on the types of `value` and `text`; templates call `filters`, `tests`, `methods`, `functions` and
//! `format`. `budget` counts steps and bytes, and `stack` provides a larger stack for deep templates.
#![forbid(unsafe_code)]

mod ast;
mod budget;
mod error;
mod filters;
mod format;
mod functions;
mod height;
mod html;
mod interpreter;
mod json;
mod lexer;
mod literal;
mod methods;
mod parser;
mod scopes;
mod stack;
mod strftime;
mod tests;
mod text;
mod unicode;
mod value;

use std::ops::Range;

use serde_json::{Map, Value};

pub use error::Error;
/// The type of the current time that a template sees.
pub use jiff::ZonedDateTime;

/// Most bytes of a template's source.
pub const SOURCE_LIMIT: usize = 1 << 20;

/// A parsed chat template. It is immutable, and may be rendered by several threads at once.
#[derive(Debug)]
pub struct Template {
    source: String,
    body: ast::Body,
    tables: ast::Tables,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`Error::Syntax`]: the source is no template, is larger than [`SOURCE_LIMIT`], nests too deep, or names a filter
    /// or test that does not exist.
    pub fn parse(source: &str) -> Result<Self, Error> {
        if source.len() > SOURCE_LIMIT {
            let message = format!("{} bytes; a template has at most {SOURCE_LIMIT}", source.len());
            return Err(Error::Syntax { line: 1, message });
        }
        let normal = source.replace("\r\n", "\n").replace('\r', "\n");
        // One line break at the end belongs to the file, not to the template.
        let parse = || parser::parse(normal.strip_suffix('\n').unwrap_or(&normal));
        let none =
            || Err(Error::Syntax { line: 1, message: "the system starts no thread to parse it".into() });
        let (body, tables) = stack::own(parse).unwrap_or_else(none)?;
        Ok(Self { source: source.to_owned(), body, tables })
    }

    /// The source as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders the template.
    ///
    /// # Errors
    /// The template's own `raise_exception`, an operation that fails, or more steps or bytes than allowed.
    pub fn render(&self, input: &Input<'_>, limits: &Limits) -> Result<Rendered, Error> {
        interpreter::render(&self.body, &self.tables, input, limits)
    }
}

/// The variables of a template.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Values of the application and the model's file, such as `bos_token` and `add_generation_prompt`. They
    /// take precedence over foreign values of the same name.
    pub trusted: &'a Map<String, Value>,
    /// Values of the conversation: `messages`, `tools`, `documents`. Every text in these values is foreign,
    /// including keys of objects, with one exception: the `role` of a message counts as the template's text
    /// if it is a plain word, because templates spell control tokens with it.
    pub foreign: &'a Map<String, Value>,
}

/// The limits of a rendering.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Steps: each statement, operation and item takes one, and so does every 256 bytes read or written.
    pub steps: u64,
    /// Bytes that the rendering may write or hold at a time.
    pub bytes: usize,
    /// The current time for `strftime_now`; `None` means the system's time in its time zone.
    pub clock: Option<ZonedDateTime>,
}

impl Default for Limits {
    /// Returns 5 million steps and 64 MiB. A large template over a thousand messages takes under a million
    /// steps.
    fn default() -> Self {
        Self { steps: 5_000_000, bytes: 64 << 20, clock: None }
    }
}

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt's text.
    pub text: String,
    /// Byte ranges of `text` that came from foreign values: sorted, disjoint, not adjacent and not empty.
    pub foreign: Vec<Range<usize>>,
}
