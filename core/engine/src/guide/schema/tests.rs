//! Every text that a schema's grammar makes is valid by another implementation of JSON schema, and keywords
//! that can't be enforced are refused with their place.

use std::sync::Arc;

use realm_gguf::Gguf;
use realm_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::Error;
use crate::guide::tests::plenty;
use crate::guide::{Grammar, Guides};

fn guides() -> Guides {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
    let gguf = Gguf::open(path).unwrap();
    Guides::new(Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap()), Arc::default())
}

/// Makes a random text, which comes to its end soon after some tokens.
fn text(guides: &Guides, schema: &Value, seed: u64) -> Result<String, Error> {
    let mut guide = guides.guide(0, &plenty(), &Grammar::JsonSchema(schema.clone()))?;
    let tokenizer = &guides.tokenizer;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::new();
    let patience = seed as usize % 40;
    for step in 0..2000 {
        if guide.is_finished() {
            return Ok(String::from_utf8(bytes).unwrap());
        }
        let mask = guide.mask()?;
        let allowed: Vec<u32> = (0..mask.len() as u32).filter(|&token| mask.allows(token)).collect();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let spelled = |token: u32| {
            let mut bytes = Vec::new();
            tokenizer.push_bytes(token, false, &mut bytes).unwrap();
            bytes
        };
        let closing = |token: u32| {
            tokenizer.end_tokens().contains(&token) || matches!(&spelled(token)[..], b"\"" | b"]" | b"}")
        };
        let any = allowed[(state >> 33) as usize % allowed.len()];
        let token = if step > patience {
            allowed.iter().copied().find(|&token| closing(token)).unwrap_or(any)
        } else {
            any
        };
        if !tokenizer.end_tokens().contains(&token) {
            bytes.extend(spelled(token));
        }
        guide.accept(token)?;
    }
    panic!("no end: {schema} {}", String::from_utf8_lossy(&bytes));
}

/// Schemas that are followed, grouped by subject.
fn followed() -> Vec<Value> {
    let tag = |name: &str| json!({"type": "object", "properties": {"kind": {"const": name, "default": name}, name: {"type": "integer"}}, "required": [name]});
    vec![
        json!({}),
        json!(true),
        json!({"const": 9_007_199_254_740_993_u64}),
        json!({"enum": [1, 1.5, null, "a\"b", [1, {"a": true}], {"x": [], "y": -0.25}]}),
        json!({"type": "integer", "minimum": 1_000_000_000_000_000_001_u64, "maximum": 1_000_000_000_000_000_003_u64}),
        json!({"type": "integer", "exclusiveMinimum": -5, "exclusiveMaximum": 17, "multipleOf": 4}),
        json!({"type": "number", "minimum": -1.25, "exclusiveMaximum": 3}),
        // The other implementation divides by floating point, so the step is one that floating point holds.
        json!({"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 10}),
        json!({"type": "integer", "multipleOf": 5000, "minimum": 1}),
        json!({"type": "number", "minimum": 0.1, "maximum": 0.3, "exclusiveMinimum": true}),
        json!({"type": ["number", "null"], "maximum": 1e300, "minimum": -3.5, "nullable": true}),
        json!({"type": "integer", "minimum": 18_446_744_073_709_551_615_u64}),
        json!({"type": "string", "minLength": 2, "maxLength": 4}),
        json!({"type": "string", "pattern": "^[a-c]+$", "maxLength": 3}),
        json!({"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", "maxLength": 8}),
        json!({"type": "string", "format": "password"}),
        json!({"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": true}),
        json!({"type": "array", "items": {"enum": [1, 2, 3, 4]}, "uniqueItems": true, "minItems": 2, "maxItems": 3}),
        json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true, "maxItems": 1}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": false, "minItems": 1}),
        json!({"type": "array", "items": [{"type": "integer"}, {"type": "boolean"}], "additionalItems": {"type": "null"}}),
        json!({"type": "array", "items": {"type": "null"}, "minItems": 3, "maxItems": 21}),
        json!({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 2, "maxItems": 2, "uniqueItems": true}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}, "c": {}}, "required": ["b"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"score": {"type": "integer", "multipleOf": 5}}, "required": ["score"], "additionalProperties": false, "patternProperties": {"^score$": {"type": "integer", "maximum": 50}}}),
        json!({"type": "object", "patternProperties": {"^a": {"type": "integer"}, "b$": {"maximum": 5}}, "additionalProperties": {"type": "null"}}),
        json!({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "propertyNames": {"pattern": "^[ab]+$"}, "additionalProperties": {"type": "integer"}, "properties": {"x": {}}}),
        json!({"type": "object", "propertyNames": {"maxLength": 2}, "maxProperties": 3}),
        json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "additionalProperties": false, "minProperties": 2, "maxProperties": 2}),
        json!({"type": "object", "minProperties": 1, "additionalProperties": {"type": "boolean"}}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"a": {"minimum": 3, "maximum": 4}}, "additionalProperties": false}]}),
        json!({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": null}),
        json!({"oneOf": [{"type": "string", "maxLength": 2}, {"type": "string", "minLength": 4}, {"type": "null"}]}),
        json!({"type": "string", "oneOf": [{"maxLength": 2}, {"minLength": 4}]}),
        json!({"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/cat"}}, "$defs": {"cat": tag("cat"), "dog": tag("dog")}}),
        json!({"not": {"type": ["object", "array", "string"]}}),
        json!({"type": "string", "not": {"enum": ["a", "b"]}, "maxLength": 1}),
        json!({"enum": ["a", "b", "c"], "not": {"const": "b"}}),
        json!({"type": "integer", "minimum": 0, "maximum": 20, "not": {"minimum": 5, "maximum": 15}}),
        json!({"type": "object", "properties": {"k": {"enum": ["x", "y"]}, "v": {}}, "required": ["k", "v"], "additionalProperties": false,
            "if": {"properties": {"k": {"const": "x"}}}, "then": {"properties": {"v": {"type": "integer"}}}, "else": {"properties": {"v": {"type": "null"}}}}),
        json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "additionalProperties": false, "dependentRequired": {"a": ["b"]}}),
        json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {}}, "additionalProperties": false, "dependentSchemas": {"a": {"properties": {"b": {"type": "integer"}}, "required": ["b"]}}}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "unevaluatedProperties": false}),
        json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v"], "additionalProperties": false}}}),
        json!({"type": "array", "items": {"$ref": "#"}}),
        json!({"$ref": "#tree", "$defs": {"t": {"$anchor": "tree", "type": "array", "items": {"$ref": "#tree"}, "maxItems": 2}}}),
        json!({"$id": "https://example.com/root.json", "$ref": "item.json", "$defs": {"i": {"$id": "item.json", "type": "boolean"}}}),
        json!({"anyOf": [{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"], "additionalProperties": false}, {"type": "integer"}]}),
        json!({"type": "array", "contains": {"type": "integer"}, "minContains": 0}),
        json!({"type": "string", "contentMediaType": "application/json", "contentSchema": {"type": "object"}, "deprecated": true, "x-unknown": 3}),
    ]
}

/// Checks texts of a schema by another implementation.
fn check(guides: &Guides, schema: &Value, texts: u64) -> Result<(), Error> {
    {
        // `nullable` is OpenAPI's and has no meaning for the other implementation.
        let mut plain = schema.clone();
        if plain.get("nullable").is_some() {
            plain.as_object_mut().unwrap().remove("nullable");
        }
        let draft4 = plain.get("exclusiveMinimum") == Some(&json!(true));
        let old = plain.get("additionalItems").is_some();
        let options = jsonschema::options();
        let options = options.should_validate_formats(true);
        let options = match (draft4, old) {
            (true, _) => options.with_draft(jsonschema::Draft::Draft4),
            (_, true) => options.with_draft(jsonschema::Draft::Draft7),
            _ => options,
        };
        let validator = options.build(&plain).unwrap();
        for seed in 0..texts {
            let text = text(guides, schema, seed)?;
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{schema}: {text:?}: {error}"));
            assert!(validator.is_valid(&value), "{schema}: {text}");
        }
    }
    Ok(())
}

#[test]
fn every_text_is_valid() {
    let guides = guides();
    for schema in followed() {
        check(&guides, &schema, 20).unwrap_or_else(|error| panic!("{schema}: {error}"));
    }
}

/// The schemas that pydantic 2 writes for common annotations; `pydantic/generate.py` made the file. The
/// refused ones need every item to differ from all others, which no grammar can enforce for arbitrary texts
/// or numbers.
#[test]
fn what_pydantic_writes_is_followed() {
    let guides = guides();
    let types: Vec<Value> = serde_json::from_str(include_str!("pydantic/schemas.json")).unwrap();
    let mut refused = Vec::new();
    for each in &types {
        let name = each["type"].as_str().unwrap();
        if let Err(error) = check(&guides, &each["schema"], 8) {
            assert!(error.to_string().contains("#/"), "{name}: {error}");
            refused.push(name);
        }
    }
    assert_eq!(refused, ["Set[str]", "Set[int]"]);
}

/// A generator of random schemas.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(20) as i64 - 10),
            3 => json!(self.below(80) as f64 / 4.0 - 10.0),
            4 => json!(["", "a", "ab", "b c", "\"\n"][self.below(5)]),
            5 => (0..self.below(3)).map(|_| self.value(depth - 1)).collect(),
            _ => (0..self.below(3))
                .map(|_| (self.name(), self.value(depth - 1)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn name(&mut self) -> String {
        ["a", "b", "c", "d"][self.below(4)].into()
    }

    fn schema(&mut self, depth: usize) -> Value {
        let mut keys = serde_json::Map::new();
        let kinds = ["string", "integer", "number", "boolean", "null", "array", "object"];
        if self.below(6) > 0 {
            let kind = kinds[self.below(if depth == 0 { 5 } else { 7 })];
            keys.insert("type".into(), kind.into());
        }
        for _ in 0..self.below(4) {
            let deep = depth.saturating_sub(1);
            let count = json!(self.below(4));
            let (key, value) = match self.below(if depth == 0 { 11 } else { 24 }) {
                0 => ("minimum", json!(self.below(40) as f64 / 4.0 - 5.0)),
                1 => ("maximum", json!(self.below(40) as f64 / 4.0 - 2.0)),
                2 => ("exclusiveMinimum", json!(self.below(10) as i64 - 5)),
                3 => ("exclusiveMaximum", json!(self.below(10))),
                4 => ("multipleOf", json!([1.0, 2.0, 0.5, 3.0][self.below(4)])),
                5 => ("minLength", count),
                6 => ("maxLength", count),
                7 => ("pattern", json!(["^a", "b$", "^[ab]*$", "a|c"][self.below(4)])),
                8 => ("enum", (0..1 + self.below(4)).map(|_| self.value(1)).collect()),
                9 => ("const", self.value(1)),
                10 => ("format", json!(["date", "ipv4", "unknown", "uuid"][self.below(4)])),
                11 => ("items", self.schema(deep)),
                12 => ("prefixItems", (0..1 + self.below(2)).map(|_| self.schema(deep)).collect()),
                13 => ("minItems", count),
                14 => ("maxItems", count),
                15 => ("uniqueItems", json!(true)),
                16 => (
                    "properties",
                    (0..1 + self.below(3))
                        .map(|_| (self.name(), self.schema(deep)))
                        .collect::<serde_json::Map<_, _>>()
                        .into(),
                ),
                17 => ("required", {
                    let mut names: Vec<String> = (0..1 + self.below(2)).map(|_| self.name()).collect();
                    names.sort();
                    names.dedup();
                    json!(names)
                }),
                18 => ("additionalProperties", self.schema(deep)),
                19 => ("minProperties", json!(self.below(3))),
                20 => ("maxProperties", count),
                21 => (
                    ["anyOf", "allOf", "oneOf"][self.below(3)],
                    (0..1 + self.below(3)).map(|_| self.schema(deep)).collect(),
                ),
                22 => ("not", self.schema(deep)),
                _ => ("patternProperties", json!({["^a", "b", "^[cd]$"][self.below(3)]: self.schema(deep)})),
            };
            keys.insert(key.into(), value);
        }
        keys.into()
    }
}

/// Even senseless schemas are followed to a valid text, or refused at the start, and never fail in the
/// middle.
#[test]
fn schemas_at_random_are_followed_or_refused() {
    let guides = guides();
    let (mut followed, mut refused) = (0, 0);
    for seed in 0..300 {
        let schema = Dice(seed * 7919 + 1).schema(2);
        if guides.guide(0, &plenty(), &Grammar::JsonSchema(schema.clone())).is_err() {
            refused += 1;
            continue;
        }
        followed += 1;
        check(&guides, &schema, 5).unwrap_or_else(|error| panic!("{schema}: {error}"));
    }
    println!("{followed} were followed, {refused} refused");
    assert!(followed > 100);
}

#[test]
fn integers_beyond_floating_point_are_exact() {
    let guides = guides();
    let exact = json!({"const": 9_007_199_254_740_993_u64});
    assert_eq!(text(&guides, &exact, 1).unwrap(), "9007199254740993");
    let range = json!({"type": "integer", "minimum": 1_000_000_000_000_000_001_u64, "maximum": 1_000_000_000_000_000_003_u64});
    for seed in 0..20 {
        let found: u64 = text(&guides, &range, seed).unwrap().parse().unwrap();
        assert!((1_000_000_000_000_000_001..=1_000_000_000_000_000_003).contains(&found), "{found}");
    }
}

#[test]
fn a_number_has_so_many_digits() {
    let guides = guides();
    for schema in [
        json!({"type": "number"}),
        json!({"type": "integer"}),
        json!({"type": "number", "minimum": 0}),
        json!({}),
    ] {
        let mut guide = guides.guide(0, &plenty(), &Grammar::JsonSchema(schema.clone())).unwrap();
        let digit = guides.tokenizer.encode_after("7")[0];
        let mut digits = 0;
        while !guide.is_finished() && guide.mask().unwrap().allows(digit) {
            guide.accept(digit).unwrap();
            digits += 1;
            assert!(digits < 20, "{schema}");
        }
        assert_eq!(digits, super::decimal::MAX_DIGITS, "{schema}");
    }
}

#[test]
fn what_cannot_be_promised_is_refused_with_its_place() {
    let guides = guides();
    let inside = |schema: Value| json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
    for (schema, words) in [
        (
            inside(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
            &["#/properties/a/uniqueItems"][..],
        ),
        (inside(json!({"type": "array", "contains": {"type": "string"}})), &["#/properties/a/contains"]),
        (inside(json!({"type": "string", "pattern": "a(?=b)"})), &["#/properties/a/pattern", "look"]),
        (
            inside(json!({"oneOf": [{"type": "integer"}, {"type": "number"}]})),
            &["#/properties/a/oneOf", "anyOf"],
        ),
        (inside(json!({"type": "integer", "multipleOf": 1_000_003})), &["#/properties/a/multipleOf"]),
        (inside(json!({"type": "integer", "multipleOf": 0})), &["#/properties/a/multipleOf"]),
        (inside(json!({"const": 1e20})), &["#/properties/a/const", "64 bits"]),
        (inside(json!({"enum": [[18_446_744_073_709_551_616_f64]]})), &["#/properties/a/enum", "64 bits"]),
        (inside(json!({"minimum": 1e30, "type": "integer"})), &["#/properties/a/minimum", "64 bits"]),
        (inside(json!({"type": "integer", "minimum": 3, "maximum": 2})), &["#/properties/a", "minimum"]),
        (
            inside(json!({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4})),
            &["#/properties/a", "minimum"],
        ),
        (inside(json!({"type": "string", "minLength": 3, "maxLength": 2})), &["#/properties/a", "minLength"]),
        (inside(json!({"type": "string", "pattern": "^a{5}$", "maxLength": 2})), &["pattern"]),
        (inside(json!({"type": "shoe"})), &["#/properties/a/type", "shoe"]),
        (inside(json!({"type": "object", "minProperties": 3})), &["#/properties/a/minProperties"]),
        (inside(json!({"$ref": "#/$defs/nothing"})), &["#/properties/a/$ref", "nothing"]),
        (inside(json!({"$ref": "https://example.com/x"})), &["#/properties/a/$ref", "fetch"]),
        (inside(json!({"not": {"type": "array", "items": {"type": "null"}}})), &["#/properties/a/not"]),
        (inside(json!({"enum": []})), &["#/properties/a/enum"]),
        (inside(json!(false)), &["#/properties/a"]),
        (inside(json!({"$dynamicRef": "#x"})), &["#/properties/a/$dynamicRef"]),
        (inside(json!({"allOf": [{"$ref": "#/properties/a/anyOf"}]})), &["#/properties/a"]),
        (json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}), &["no text"]),
        (json!({"type": "object", "required": ["a"], "propertyNames": {"enum": ["b"]}}), &["a", "required"]),
        (json!({"x-guidance": {"colour": 1}}), &["x-guidance"]),
    ] {
        let error = guides
            .guide(0, &plenty(), &Grammar::JsonSchema(schema.clone()))
            .err()
            .unwrap_or_else(|| panic!("{schema}"));
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{schema}: {text}");
    }
    let lenient = json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true, "x-guidance": {"lenient": true}});
    assert!(guides.guide(0, &plenty(), &Grammar::JsonSchema(lenient)).is_ok());
}
