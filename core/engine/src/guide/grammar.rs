//! What a user asks for.

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use crate::Error;

/// What a generation has to spell.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// JSON that a schema (drafts 4 to 2020-12) allows. Properties come in the schema's order. Keywords that
    /// can't be guaranteed (`not`, `if`, `uniqueItems`, an overlapping `oneOf` and others) are refused by name. What can
    /// go wrong: a key that the schema does not name may come twice, so there may be fewer different ones than
    /// `minProperties`; and every year of the format `date` has a 29 February. Text, numbers and lists without a largest
    /// length may be longer than the request's tokens.
    ///
    /// White space between tokens is at most two spaces, or two line breaks and their indentation, lest a model
    /// fill its answer with it. The schema's own key `x-guidance` changes this and what else llguidance offers:
    /// `{"x-guidance": {"whitespace_flexible": false}}` gives compact JSON.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// Text that a regular expression matches as a whole, in the syntax of Rust's `regex` without look-around and
    /// anchors.
    Regex(String),
    /// Text of a context-free grammar in llguidance's dialect of Lark; its rule `start` is where it starts.
    Lark(String),
}

/// Longest schema, in bytes, and its deepest nesting: what `serde_json` reads at most.
const MAX_SCHEMA: usize = 256 << 10;
const MAX_DEPTH: usize = 128;

/// Longest regular expression or Lark grammar, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// Rules, groups and classes of a Lark grammar at most. Both rules and complaints about them are followed from one to
/// the next, so that time and stack grow with their number.
const MAX_RULES: usize = 2000;

/// White space between the tokens of JSON, unless the schema says otherwise.
const WHITE_SPACE: &str = r"\x20{1,2}|\x0A{1,2}[\x20\x09]{0,32}";

/// A key of the schema where llguidance looks for its options.
const OPTIONS: &str = "x-guidance";

impl Grammar {
    /// One text for each grammar. JSON keeps the order of its keys here, as `==` on it does not.
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

    /// What to call it in an error.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) | Self::JsonObject => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) => "grammar",
        }
    }

    /// As llguidance wants it.
    pub(crate) fn to_llguidance(&self) -> TopLevelGrammar {
        match self {
            Self::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_options(schema.clone())),
            Self::JsonObject => TopLevelGrammar::from_json_schema(with_options(json!({"type": "object"}))),
            Self::Regex(source) => TopLevelGrammar::from_regex(source),
            Self::Lark(source) => TopLevelGrammar::from_lark(source.clone()),
        }
    }
}

fn with_options(mut schema: Value) -> Value {
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    if let Value::Object(keys) = &mut schema {
        keys.entry(OPTIONS).or_insert_with(|| json!({"whitespace_pattern": WHITE_SPACE}));
    }
    schema
}

/// Whether arrays and objects are nested deeper than `limit`. Takes no stack for it.
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
