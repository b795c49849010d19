//! The grammars that a request may name.

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use serde_json::{Value, json};

use super::{gbnf, schema};
use crate::Error;

/// A grammar that guides a generation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Grammar {
    /// JSON that a schema (drafts 4 to 2020-12) allows. Properties come in the schema's order. Every
    /// constraint of the schema is enforced, or the schema is refused with the keyword's place before
    /// anything is generated. Refused are `contains`, an overlapping `oneOf`, `uniqueItems` for items that
    /// are not of a short `enum`, patterns with look-around other than at their beginning, and some others.
    /// Unknown formats are ignored, as the specification says.
    ///
    /// Numbers are exact up to 64 bits. A number has at most 16 digits before its point and 16 after it, or
    /// one more than its bounds have, so that a model cannot extend it forever. Text and lists without a
    /// largest length may be longer than the request's tokens. A key that the schema does not name may come
    /// twice.
    ///
    /// White space between tokens is at most two spaces, or two line breaks and their indentation, so that a
    /// model cannot fill its answer with it. The schema's own key `x-guidance` changes this: `{"x-guidance":
    /// {"whitespace_flexible": false}}` gives compact JSON. It may also have `whitespace_pattern`,
    /// `item_separator` and `key_separator` (regular expressions), `json_allowed_escapes`, `coerce_one_of`
    /// (an overlapping `oneOf` counts as `anyOf`) and `lenient` (keywords that can't be enforced are
    /// skipped).
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// Text that a regular expression matches as a whole, in the syntax of Rust's `regex` without look-around
    /// and anchors.
    Regex(String),
    /// Text of a context-free grammar: in llguidance's dialect of Lark, which starts at the rule `start`, or
    /// in llama.cpp's GBNF, which is recognized by its `::=` and starts at the rule `root`.
    Lark(String),
}

/// The longest schema, in bytes, and its deepest nesting, which is the most that `serde_json` reads.
const MAX_SCHEMA: usize = 256 << 10;
const MAX_DEPTH: usize = 128;

/// The longest regular expression or Lark grammar, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// The most rules, groups and classes of a Lark grammar. Rules and their errors are followed from one to the
/// next, so time and stack grow with their number.
const MAX_RULES: usize = 2000;

/// White space between the tokens of JSON, unless the schema says otherwise.
const WHITE_SPACE: &str = r"\x20{1,2}|\x0A{1,2}[\x20\x09]{0,32}";

impl Grammar {
    /// Returns a text that identifies the grammar. It keeps the order of JSON keys, which `==` ignores.
    pub(crate) fn source(&self) -> Result<String, Error> {
        let source = match self {
            Self::JsonSchema(schema) => {
                if deeper_than(MAX_DEPTH, schema) {
                    let why = format!("the JSON schema is nested more than {MAX_DEPTH} levels deep");
                    return Err(Error::LimitExceeded(why));
                }
                format!("json {schema}")
            }
            Self::JsonObject => "object".into(),
            Self::Regex(source) => format!("regex {source}"),
            Self::Lark(source) => format!("lark {source}"),
        };
        let most = if matches!(self, Self::JsonSchema(_)) { MAX_SCHEMA } else { MAX_TEXT };
        if source.len() > most {
            let (name, bytes) = (self.name(), source.len());
            return Err(Error::LimitExceeded(format!(
                "the {name} has {bytes} bytes; it may have at most {most}"
            )));
        }
        if let Self::Lark(source) = self {
            let rules = source.bytes().filter(|byte| b":([{~".contains(byte)).count();
            if rules > MAX_RULES {
                let why = format!(
                    "the grammar has {rules} of `:`, `(`, `[`, `{{` and `~`; it may have {MAX_RULES}"
                );
                return Err(Error::LimitExceeded(why));
            }
        }
        Ok(source)
    }

    /// The grammar's name in errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) | Self::JsonObject => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) => "grammar",
        }
    }

    /// Converts the grammar for llguidance.
    ///
    /// # Errors
    /// The part of it that can't be followed.
    pub(crate) fn to_llguidance(&self, limits: &ParserLimits) -> Result<GrammarInit, String> {
        Ok(GrammarInit::Serialized(match self {
            Self::JsonSchema(schema) => return schema::compile(schema, WHITE_SPACE, limits),
            Self::JsonObject => return schema::compile(&json!({"type": "object"}), WHITE_SPACE, limits),
            Self::Regex(source) => TopLevelGrammar::from_regex(source),
            Self::Lark(source) if gbnf::is_gbnf(source) => return gbnf::compile(source, limits),
            Self::Lark(source) => TopLevelGrammar::from_lark(source.clone()),
        }))
    }
}

/// Returns whether arrays and objects are nested deeper than `limit`. Uses no recursion.
fn deeper_than(limit: usize, value: &Value) -> bool {
    let mut todo = vec![(value, 0)];
    while let Some((value, depth)) = todo.pop() {
        if depth > limit {
            return true;
        }
        match value {
            Value::Array(items) => todo.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(keys) => todo.extend(keys.values().map(|item| (item, depth + 1))),
            _ => {}
        }
    }
    false
}
