//! From a JSON schema to the grammar of the texts that it allows.
//!
//! [`read`] turns the schema into a [`Schema`], which says the same with fewer words: keywords that stand side by side,
//! `allOf`, `not`, `if` and the like are worked out by [`meet`] and [`subtract`], so that what remains is values, ranges,
//! texts, arrays, objects, unions of them and references. [`emit`] writes these as rules and lexemes of llguidance. Its
//! own compiler is not used: it rounds numbers to 64-bit floating point, lets a number have digits without end, and says
//! nothing of where in a schema a keyword stands that it does not know.
//!
//! Three things hold. All text that comes out is valid. Where a keyword can't be expressed, the schema is refused with the
//! keyword and its place. And where a schema allows more than one spelling of a value, or digits without end, one part of
//! them may be left out.

mod decimal;
mod emit;
mod formats;
mod meet;
mod negate;
mod pattern;
mod read;

#[cfg(test)]
mod tests;
mod typed;

use std::rc::Rc;

use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::derivre::RegexAst;
use serde::Deserialize;
use serde_json::Value;

use decimal::Decimal;

/// Why a schema can't be followed, with the place in it.
pub(super) type Complaint = String;
type Result<T> = std::result::Result<T, Complaint>;

/// The texts that `schema` allows, as a grammar for llguidance.
///
/// # Errors
/// A sentence that names the keyword and its place.
pub(super) fn compile(schema: &Value, white_space: &str, limits: &ParserLimits) -> Result<GrammarInit> {
    let options = Options::of(schema)?;
    let mut reader = read::Reader::new(schema, &options);
    let root = reader.root()?;
    emit::emit(&mut reader, &root, &options, white_space, limits)
}

/// What the schema's own key `x-guidance` may say, in llguidance's words.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    item_separator: Option<String>,
    key_separator: Option<String>,
    whitespace_flexible: Option<bool>,
    whitespace_pattern: Option<String>,
    /// Takes `oneOf` for `anyOf` where it can't be shown that the options exclude each other.
    coerce_one_of: bool,
    /// Skips keywords that can't be expressed.
    lenient: bool,
    json_allowed_escapes: Option<String>,
}

impl Options {
    fn of(schema: &Value) -> Result<Self> {
        match schema.get("x-guidance") {
            Some(options) => Self::deserialize(options).map_err(|why| format!("#/x-guidance: {why}")),
            None => Ok(Self::default()),
        }
    }
}

type S = Rc<Schema>;

/// What a JSON value has to be.
#[derive(Debug)]
enum Schema {
    Any,
    /// Nothing, and why.
    Never(String),
    /// One of these.
    Values(Vec<Value>),
    Number(Number),
    Text(Text),
    Array(Array),
    Object(Object),
    Union(Vec<S>),
    /// A definition of the reader's.
    Ref(usize),
}

/// A number within bounds, which belong to it if their flag says so.
#[derive(Debug, Clone, Default)]
struct Number {
    integer: bool,
    low: Option<(Decimal, bool)>,
    high: Option<(Decimal, bool)>,
    multiples: Vec<Decimal>,
}

/// A text of so many characters that all `forms` match as a whole.
#[derive(Debug, Clone, Default)]
struct Text {
    min: usize,
    max: Option<usize>,
    forms: Vec<RegexAst>,
}

/// An array: items of `prefix` in their places, then any number of `rest`.
#[derive(Debug, Clone)]
struct Array {
    prefix: Vec<S>,
    rest: S,
    min: usize,
    max: Option<usize>,
    /// Where `uniqueItems` stands.
    unique: Option<String>,
}

/// An object. A property that is not among `properties` belongs to the one of `others` whose names it matches.
#[derive(Debug, Clone)]
struct Object {
    properties: Vec<(Rc<str>, S)>,
    required: Vec<Rc<str>>,
    /// Names that exclude each other and are all names together: what all expressions match.
    others: Vec<(Vec<RegexAst>, S)>,
    min: usize,
    max: Option<usize>,
    /// Where the schema stands.
    path: String,
}

impl Schema {
    fn any() -> S {
        Rc::new(Self::Any)
    }

    fn never(why: impl Into<String>) -> S {
        Rc::new(Self::Never(why.into()))
    }

    fn is_never(&self) -> bool {
        matches!(self, Self::Never(_))
    }

    fn union(options: Vec<S>) -> S {
        let mut kept: Vec<S> = Vec::new();
        let mut why = None;
        for option in options {
            match &*option {
                Self::Any => return option,
                Self::Never(_) => why = why.or(Some(option)),
                Self::Union(inner) => kept.extend(inner.iter().cloned()),
                _ => kept.push(option),
            }
        }
        match kept.len() {
            0 => why.unwrap_or_else(|| Self::never("there is no option")),
            1 => kept.remove(0),
            _ => Rc::new(Self::Union(kept)),
        }
    }

    /// Every value, type by type.
    fn all_types() -> Vec<S> {
        let path = String::new();
        [
            Self::Values(vec![Value::Null]),
            Self::Values(vec![Value::Bool(false), Value::Bool(true)]),
            Self::Number(Number::default()),
            Self::Text(Text::default()),
            Self::Array(Array { prefix: Vec::new(), rest: Self::any(), min: 0, max: None, unique: None }),
            Self::Object(Object::any(path)),
        ]
        .into_iter()
        .map(Rc::new)
        .collect()
    }
}

impl Object {
    fn any(path: String) -> Self {
        let others = vec![(Vec::new(), Schema::any())];
        Self { properties: Vec::new(), required: Vec::new(), others, min: 0, max: None, path }
    }

    fn requires(&self, name: &str) -> bool {
        self.required.iter().any(|required| &**required == name)
    }

    fn require(&mut self, name: &Rc<str>) {
        if !self.requires(name) {
            self.required.push(Rc::clone(name));
        }
    }
}

/// The text of a number in JSON, whole numbers without a fraction.
fn number_text(number: &serde_json::Number) -> String {
    const EXACT: f64 = (1u64 << 53) as f64;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < EXACT => {
            format!("{value:.0}")
        }
        _ => number.to_string(),
    }
}

/// A value in an error, shortened.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
