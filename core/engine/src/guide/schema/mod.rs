//! From a JSON schema to the grammar of the texts that it allows.
//!
//! [`read`] turns the schema into a [`Schema`], which says the same in fewer words: keywords side by side,
//! `allOf`, `not`, `if` and the like are resolved by [`meet`] and [`subtract`], so that only values, ranges,
//! texts, arrays, objects, unions of them and references remain. [`emit`] writes these as rules and lexemes
//! of llguidance. llguidance's own compiler is not used: it rounds numbers to 64-bit floating point, allows
//! numbers of any length, and does not report the place of a keyword that it does not know.
//!
//! Three rules hold:
//!
//! - All generated text is valid.
//! - If a keyword can't be expressed, the schema is refused with the keyword and its place.
//! - Where a schema allows several spellings of a value, or any number of digits, some of them may be left
//!   out.

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

/// The reason why a schema can't be followed, with the place in it.
pub(super) type Complaint = String;
type Result<T> = std::result::Result<T, Complaint>;

/// Returns the texts that `schema` allows, as a grammar for llguidance.
///
/// # Errors
/// A sentence that names the keyword and its place.
pub(super) fn compile(schema: &Value, white_space: &str, limits: &ParserLimits) -> Result<GrammarInit> {
    let options = Options::of(schema)?;
    let mut reader = read::Reader::new(schema, &options);
    let root = reader.root()?;
    emit::emit(&mut reader, &root, &options, white_space, limits)
}

/// Options in the schema's own key `x-guidance`, under llguidance's names.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    item_separator: Option<String>,
    key_separator: Option<String>,
    whitespace_flexible: Option<bool>,
    whitespace_pattern: Option<String>,
    /// Takes `oneOf` for `anyOf` where the options may overlap.
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

/// A condition on a JSON value.
#[derive(Debug)]
enum Schema {
    Any,
    /// No value, with the reason.
    Never(String),
    /// One of these values.
    Values(Vec<Value>),
    Number(Number),
    Text(Text),
    Array(Array),
    Object(Object),
    Union(Vec<S>),
    /// A definition, by its number in the reader.
    Ref(usize),
}

/// A number within bounds. A bound's flag says whether the bound itself is allowed.
#[derive(Debug, Clone, Default)]
struct Number {
    integer: bool,
    low: Option<(Decimal, bool)>,
    high: Option<(Decimal, bool)>,
    multiples: Vec<Decimal>,
}

/// A text with a least and a most number of characters that all `forms` match as a whole.
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
    /// The place of `uniqueItems`.
    unique: Option<String>,
}

/// An object. A property that is not among `properties` has the schema of the entry of `others` whose names
/// it matches.
#[derive(Debug, Clone)]
struct Object {
    properties: Vec<(Rc<str>, S)>,
    required: Vec<Rc<str>>,
    /// Sets of names, each given by expressions that all match. The sets exclude each other and cover all
    /// names.
    others: Vec<(Vec<RegexAst>, S)>,
    min: usize,
    max: Option<usize>,
    /// The place of the schema.
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

    /// Returns schemas that together allow every value, one for each type.
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

/// Returns the text of a number in JSON, whole numbers without a fraction.
fn number_text(number: &serde_json::Number) -> String {
    const EXACT: f64 = (1u64 << 53) as f64;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < EXACT => {
            format!("{value:.0}")
        }
        _ => number.to_string(),
    }
}

/// Returns a value for an error message, shortened.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
