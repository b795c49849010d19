//! Reduces a schema to the part that a grammar can express.

use serde_json::{Map, Value};

/// Keywords whose violation does not show in the beginning of a value.
const UNGUIDED: [&str; 18] = [
    "not",
    "if",
    "then",
    "else",
    "oneOf",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Returns the schema without those keywords: it allows everything that the schema allows, and more.
pub(crate) fn strip(schema: &Value) -> Value {
    let Value::Object(keywords) = schema else { return schema.clone() };
    let kept = keywords.iter().filter(|(keyword, _)| !UNGUIDED.contains(&keyword.as_str()));
    let stripped = kept.map(|(keyword, value)| {
        let value = match (keyword.as_str(), value) {
            // The schema's own names, which only look like keywords.
            ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                Value::Object(named.iter().map(|(name, schema)| (name.clone(), strip(schema))).collect())
            }
            ("items" | "additionalProperties", schema) => strip(schema),
            ("anyOf" | "allOf" | "prefixItems", Value::Array(schemas)) => schemas.iter().map(strip).collect(),
            _ => value.clone(),
        };
        (keyword.clone(), value)
    });
    Value::Object(stripped.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_no_grammar_can_ask_goes_and_a_property_of_that_name_stays() {
        let schema = json!({"type": "object", "minProperties": 1, "properties": {
            "not": {"type": "array", "uniqueItems": true, "items": {"not": {"const": 1}, "type": "integer"}},
        }});
        let stripped = json!({"type": "object", "properties": {
            "not": {"type": "array", "items": {"type": "integer"}},
        }});
        assert_eq!(strip(&schema), stripped);
    }
}
