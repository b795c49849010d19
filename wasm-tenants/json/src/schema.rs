//! Checks a value against a JSON schema: the keywords of draft 2020-12 that schemas for models use. Other
//! keywords (`format`, `pattern`, `unevaluatedProperties`, `$ref` beyond the schema itself) are left to the
//! grammar.

use serde_json::Value;

/// Returns the first problem of `value`, as a text for the model. `root` is the schema that `$ref` refers to.
pub(crate) fn check(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    at("the answer", value, schema, root, 0)
}

/// Most references that lead to references.
const MAX_DEPTH: u32 = 64;

fn at(place: &str, value: &Value, schema: &Value, root: &Value, depth: u32) -> Result<(), String> {
    if depth > MAX_DEPTH || *schema == Value::Bool(true) {
        return Ok(());
    }
    if *schema == Value::Bool(false) {
        return Err(format!("{place} must not be there"));
    }
    let fits = |schema: &Value| at(place, value, schema, root, depth + 1);
    if let Some(reference) = schema["$ref"].as_str().and_then(|name| name.strip_prefix('#'))
        && let Some(schema) = root.pointer(reference)
    {
        fits(schema)?;
    }
    any_value(place, value, schema)?;
    match value {
        Value::Object(_) => object(place, value, schema, root, depth)?,
        Value::Array(items) => array(place, items, schema, root, depth)?,
        Value::String(text) => {
            length(place, text.chars().count(), "characters", schema, "minLength", "maxLength")?
        }
        Value::Number(_) => number(place, value, schema)?,
        Value::Null | Value::Bool(_) => {}
    }
    for part in list(schema, "allOf") {
        fits(part)?;
    }
    let fitting = |keyword| list(schema, keyword).iter().filter(|part| fits(part).is_ok()).count();
    if schema["anyOf"].is_array() && fitting("anyOf") == 0 {
        return Err(format!("{place} is none of what it may be"));
    }
    if schema["oneOf"].is_array() && fitting("oneOf") != 1 {
        return Err(format!("{place} must fit exactly one of {}", schema["oneOf"]));
    }
    if let Some(not) = schema.get("not")
        && fits(not).is_ok()
    {
        return Err(format!("{place} must not be what fits {not}"));
    }
    if let Some(condition) = schema.get("if") {
        let branch = if fits(condition).is_ok() { "then" } else { "else" };
        fits(schema.get(branch).unwrap_or(&Value::Bool(true)))?;
    }
    Ok(())
}

fn any_value(place: &str, value: &Value, schema: &Value) -> Result<(), String> {
    let is = |name: &Value| match name.as_str() {
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => true,
    };
    let typed = match &schema["type"] {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    };
    if !typed {
        return Err(format!("{place} must be of type {}", schema["type"]));
    }
    if schema["enum"].is_array() && !list(schema, "enum").contains(value) {
        return Err(format!("{place} must be one of {}", schema["enum"]));
    }
    if let Some(only) = schema.get("const")
        && value != only
    {
        return Err(format!("{place} must be {only}"));
    }
    Ok(())
}

fn object(place: &str, value: &Value, schema: &Value, root: &Value, depth: u32) -> Result<(), String> {
    let Value::Object(properties) = value else { return Ok(()) };
    for name in list(schema, "required").iter().filter_map(Value::as_str) {
        if !properties.contains_key(name) {
            return Err(format!("{place} lacks {name:?}"));
        }
    }
    length(place, properties.len(), "properties", schema, "minProperties", "maxProperties")?;
    let named = schema["properties"].as_object();
    for (name, value) in properties {
        let place = format!("{name:?} in {place}");
        let stated = named.and_then(|named| named.get(name));
        if let Some(schema) = stated.or(schema.get("additionalProperties")) {
            at(&place, value, schema, root, depth + 1)?;
        }
        if let Some(names) = schema.get("propertyNames") {
            at(&format!("the name {name:?}"), &Value::String(name.clone()), names, root, depth + 1)?;
        }
    }
    Ok(())
}

fn array(place: &str, items: &[Value], schema: &Value, root: &Value, depth: u32) -> Result<(), String> {
    length(place, items.len(), "items", schema, "minItems", "maxItems")?;
    let first = list(schema, "prefixItems");
    for (i, item) in items.iter().enumerate() {
        if let Some(schema) = first.get(i).or(schema.get("items")) {
            at(&format!("item {} of {place}", i + 1), item, schema, root, depth + 1)?;
        }
        if schema["uniqueItems"] == Value::Bool(true) && items[..i].contains(item) {
            return Err(format!("{place} must not have {item} twice"));
        }
    }
    if let Some(contained) = schema.get("contains") {
        let found = items.iter().filter(|item| at(place, item, contained, root, depth + 1).is_ok()).count();
        let least = schema["minContains"].as_u64().unwrap_or(1) as usize;
        let most = schema["maxContains"].as_u64().map_or(usize::MAX, |most| most as usize);
        if !(least..=most).contains(&found) {
            return Err(format!("{found} items of {place} fit {contained}"));
        }
    }
    Ok(())
}

fn number(place: &str, value: &Value, schema: &Value) -> Result<(), String> {
    let Some(number) = value.as_f64() else { return Ok(()) };
    let must = |keyword: &str, words: &str, within: fn(&f64, &f64) -> bool| match schema[keyword].as_f64() {
        Some(limit) if !within(&number, &limit) => {
            Err(format!("{place} is {value}; it must be {words} {limit}"))
        }
        _ => Ok(()),
    };
    must("minimum", "at least", f64::ge)?;
    must("maximum", "at most", f64::le)?;
    must("exclusiveMinimum", "more than", f64::gt)?;
    must("exclusiveMaximum", "less than", f64::lt)?;
    match schema["multipleOf"].as_f64() {
        Some(step) if step > 0.0 && (number / step).fract() != 0.0 => {
            Err(format!("{place} is {value}; it must be a multiple of {step}"))
        }
        _ => Ok(()),
    }
}

fn length(
    place: &str,
    len: usize,
    what: &str,
    schema: &Value,
    least: &str,
    most: &str,
) -> Result<(), String> {
    let limit = |keyword: &str| schema[keyword].as_u64().map(|limit| limit as usize);
    if limit(least).is_some_and(|limit| len < limit) {
        return Err(format!("{place} has {len} {what}; it must have at least {}", schema[least]));
    }
    if limit(most).is_some_and(|limit| len > limit) {
        return Err(format!("{place} has {len} {what}; it must have at most {}", schema[most]));
    }
    Ok(())
}

fn list<'s>(schema: &'s Value, keyword: &str) -> &'s [Value] {
    schema[keyword].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaint(value: Value, schema: Value) -> String {
        check(&value, &schema, &schema).err().unwrap_or_default()
    }

    #[test]
    fn what_fits_is_not_complained_about() {
        let schema = json!({
            "type": "object", "required": ["name", "tags"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "minLength": 2},
                "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "uniqueItems": true},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
            },
            "$defs": {"tag": {"enum": ["a", "b"]}},
        });
        let value =
            json!({"name": "xy", "tags": ["a", "b"], "next": {"name": "zz", "tags": [], "next": null}});
        assert_eq!(complaint(value, schema.clone()), "");
        let deep = json!({"name": "xy", "tags": [], "next": {"name": "z", "tags": []}});
        assert_eq!(complaint(deep, schema.clone()), "\"next\" in the answer is none of what it may be");
        let more = json!({"name": "xy", "tags": [], "other": 1});
        assert_eq!(complaint(more, schema), "\"other\" in the answer must not be there");
    }

    #[test]
    fn what_no_grammar_asks_is_checked() {
        let unique = json!({"type": "array", "uniqueItems": true});
        assert_eq!(complaint(json!([1, 2, 1]), unique), "the answer must not have 1 twice");
        assert!(complaint(json!(3), json!({"not": {"minimum": 2}})).contains("must not be"));
        assert!(
            complaint(json!(3), json!({"if": {"minimum": 2}, "then": {"multipleOf": 2}}))
                .contains("multiple")
        );
        assert!(
            complaint(json!(4), json!({"oneOf": [{"minimum": 2}, {"multipleOf": 2}]})).contains("one of")
        );
        assert_eq!(complaint(json!(1), json!({"if": {"minimum": 2}, "then": false})), "");
    }

    #[test]
    fn a_reference_to_itself_ends() {
        let schema = json!({"$ref": "#"});
        assert_eq!(complaint(json!(1), schema), "");
    }
}
