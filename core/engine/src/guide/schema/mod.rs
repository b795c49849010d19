//! From a JSON schema to the grammar of the texts that it allows.
//!
//! [`read`] turns the schema into a [`Schema`](types::Schema), which says the same in fewer words: keywords
//! side by side, `allOf`, `not`, `if` and the like are resolved by [`meet`] and [`negate`], so that only
//! values, ranges, texts, arrays, objects, unions of them and references remain. [`emit`] writes these as
//! rules and lexemes of llguidance. llguidance's own compiler is not used: it rounds numbers to 64-bit
//! floating point, allows numbers of any length, and does not report the place of a keyword that it does not
//! know.
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
mod reader;
#[cfg(test)]
mod tests;
mod typed;
mod types;

use llguidance::api::{GrammarInit, ParserLimits};
use serde::Deserialize;
use serde_json::Value;

use reader::Reader;

/// The reason why a schema can't be followed, with the place in it.
pub(super) type Complaint = String;
type Result<T> = std::result::Result<T, Complaint>;

/// Returns the texts that `schema` allows, as a grammar for llguidance.
///
/// # Errors
/// A sentence that names the keyword and its place.
pub(super) fn compile(schema: &Value, white_space: &str, limits: &ParserLimits) -> Result<GrammarInit> {
    let options = Options::of(schema)?;
    let mut reader = Reader::new(schema, &options, read::read);
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
