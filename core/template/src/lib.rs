//! Chat templates as Hugging Face's transformers renders them, with the origin of every byte.
//!
//! A template is a program from a stranger in Jinja's language: transformers runs it in jinja2's immutable sandbox, with
//! `trim_blocks`, `lstrip_blocks`, loop controls, the tag `generation`, and `tojson`, `raise_exception` and
//! `strftime_now` of its own. [`Template::render`] gives the same text, and says which ranges of it came from
//! the conversation and which from the template. Whoever encodes the text reads control tokens in the template's parts
//! alone, so words of users, tools and documents are never read as control tokens.
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
//! How it is put together: [`lexer`](self) and `parser` make a tree; `scopes` decides as jinja2's compiler does which names
//! hide others; `height` refuses a tree that is too deep; `interpreter` walks the tree; `value` and `text` are what it works with, `filters`, `tests`,
//! `methods`, `functions` and `format` what templates call. `budget` counts steps and
//! bytes, and `stack` has room for what is deep.
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
/// The time that a template is told.
pub use jiff::ZonedDateTime;

/// Bytes that a template's source may have.
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
        // One line break at the end is the file's and not the template's.
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
    /// What the application and the model's file say: `bos_token`, `add_generation_prompt`. These names come first.
    pub trusted: &'a Map<String, Value>,
    /// What the conversation says: `messages`, `tools`, `documents`. Every text in these values, keys of objects
    /// included, is foreign, with one exception: the `role` of a message counts as the template's text if it is a plain
    /// word, since templates spell marks with it.
    pub foreign: &'a Map<String, Value>,
}

/// What a rendering may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Steps: each statement, operation and item takes one, and so do 256 bytes that are looked at or written.
    pub steps: u64,
    /// Bytes that the rendering may write or hold at a time, however it comes to them.
    pub bytes: usize,
    /// The time that `strftime_now` tells; the system's, in its time zone, if `None`.
    pub clock: Option<ZonedDateTime>,
}

impl Default for Limits {
    /// 5 million steps and 64 MiB. A large template over a thousand messages takes under a million steps.
    fn default() -> Self {
        Self { steps: 5_000_000, bytes: 64 << 20, clock: None }
    }
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The ranges of bytes of `text` that came from foreign values: sorted, disjoint, none empty, and none that touch.
    pub foreign: Vec<Range<usize>>,
}
