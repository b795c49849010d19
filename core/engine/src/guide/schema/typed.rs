//! Keywords about one type, and their meaning for each of a schema's types.

use std::rc::Rc;

use llguidance::derivre::RegexAst;
use serde_json::{Map, Value};

use super::decimal::{Decimal, Number};
use super::meet::{accepts, matches, meet, property};
use super::reader::{Reader, list};
use super::types::{Array, Object, S, Schema, Text};
use super::{Result, brief, formats, pattern};

pub(super) const KEYWORDS: [&str; 24] = [
    "type",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "items",
    "prefixItems",
    "additionalItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "properties",
    "patternProperties",
    "additionalProperties",
    "required",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "nullable",
];

/// The longest text, array or object that a schema may ask for.
const LONGEST: u64 = 1 << 20;

/// The largest step of `multipleOf`, without trailing zeros: the automaton has a state for each remainder.
const LARGEST_STEP: u32 = 1000;

type Keys = Map<String, Value>;

pub(super) fn read(reader: &mut Reader, keys: &Keys, path: &str) -> Result<S> {
    let all = ["null", "boolean", "number", "string", "array", "object"];
    let mut types: Vec<&str> = match keys.get("type") {
        None => all.to_vec(),
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            let names = names
                .iter()
                .map(|name| name.as_str().ok_or_else(|| format!("{path}/type names what is not a text")));
            names.collect::<Result<_>>()?
        }
        Some(other) => {
            return Err(format!("{path}/type is {}; it is a text or a list of them", brief(other)));
        }
    };
    if keys.get("nullable") == Some(&Value::Bool(true))
        && keys.contains_key("type")
        && !types.contains(&"null")
    {
        types.push("null");
    }
    if types.contains(&"number") {
        types.retain(|name| *name != "integer");
    }
    let mut options = Vec::new();
    for name in types {
        options.push(match name {
            "null" => Rc::new(Schema::Values(vec![Value::Null])),
            "boolean" => Rc::new(Schema::Values(vec![Value::Bool(true), Value::Bool(false)])),
            "number" | "integer" => number(reader, keys, path, name == "integer")?,
            "string" => text(reader, keys, path)?,
            "array" => array(reader, keys, path)?,
            "object" => object(reader, keys, path)?,
            other => return Err(format!("{path}/type: there is no type {}", brief(&other.into()))),
        });
    }
    let nothing_said =
        options.len() == all.len() && KEYWORDS.iter().all(|key| *key == "type" || !keys.contains_key(*key));
    Ok(if nothing_said { Schema::any() } else { Schema::union(options) })
}

/// Reads a length; `None` if there is no such key.
fn length(keys: &Keys, key: &str, path: &str) -> Result<Option<usize>> {
    let Some(value) = keys.get(key) else { return Ok(None) };
    let whole = value.as_f64().filter(|length| *length >= 0.0 && length.fract() == 0.0);
    let whole =
        whole.ok_or_else(|| format!("{path}/{key} is {}; it is a whole number from 0", brief(value)))?;
    if key.starts_with("max") {
        return Ok((whole <= LONGEST as f64).then_some(whole as usize));
    }
    if whole > LONGEST as f64 {
        return Err(format!("{path}/{key} is {}; it may be {LONGEST}", brief(value)));
    }
    Ok(Some(whole as usize))
}

fn number(reader: &mut Reader, keys: &Keys, path: &str, integer: bool) -> Result<S> {
    let bound = |key: &str, upper: bool| -> Result<Option<Decimal>> {
        let Some(value) = keys.get(key).filter(|value| !value.is_boolean()) else { return Ok(None) };
        let Value::Number(number) = value else {
            return Err(format!("{path}/{key} is {}, not a number", brief(value)));
        };
        // A bound beyond all numbers that can be generated changes nothing.
        let outside = number.as_f64().is_some_and(|value| (value > 0.0) == upper);
        match Decimal::new(number) {
            None if outside => Ok(None),
            None => Err(format!("{path}/{key}: {number} has more than 64 bits and can't be taken exactly")),
            bound => Ok(bound),
        }
    };
    // In draft 4 the value is true, and refers to the bound beside it.
    let excludes = |key: &str| keys.get(key) == Some(&Value::Bool(true));
    let mut found = Number { integer, ..Number::default() };
    let bounds = [("minimum", "exclusiveMinimum", false), ("maximum", "exclusiveMaximum", true)];
    let mut met = Vec::new();
    for (key, exclusive, upper) in bounds {
        let one = bound(key, upper)?.map(|bound| (bound, !excludes(exclusive)));
        let other = bound(exclusive, upper)?.map(|bound| (bound, false));
        met.extend([one, other].into_iter().flatten().map(|bound| {
            let mut number = Number::default();
            *(if upper { &mut number.high } else { &mut number.low }) = Some(bound);
            Rc::new(Schema::Number(number))
        }));
    }
    if let Some(value) = keys.get("multipleOf") {
        let step = match value {
            Value::Number(number) => Decimal::new(number),
            _ => return Err(format!("{path}/multipleOf is {}, not a number", brief(value))),
        };
        let step = step.filter(|step| !step.is_zero() && *step > Decimal::zero());
        let Some(step) = step else {
            return Err(format!("{path}/multipleOf is {}; it is a number above 0", brief(value)));
        };
        let digits = step.scaled().map(|(mut digits, places)| {
            while places == 0 && digits.is_multiple_of(10) {
                digits /= 10;
            }
            digits
        });
        if digits.is_some_and(|digits| digits <= LARGEST_STEP) {
            found.multiples.push(step);
        } else {
            let why = format!(
                "is {}; it may have a value of {LARGEST_STEP} in its digits other than 0 at the end",
                brief(value)
            );
            reader.refuse(&format!("{path}/multipleOf"), &why)?;
        }
    }
    let mut number: S = Rc::new(Schema::Number(found));
    for bound in met {
        number = meet(reader, &number, &bound)?;
    }
    if let Schema::Number(found) = &*number
        && !found.multiples.is_empty()
        && pattern::is_empty(&found.regex()).map_err(|why| format!("{path}/multipleOf: {why}"))?
    {
        return Ok(Schema::never(format!("{path}: no multiple is within its bounds")));
    }
    Ok(match &*number {
        Schema::Never(_) => Schema::never(format!("{path}: its minimum is above its maximum")),
        Schema::Number(found)
            if found.integer && found.multiples.is_empty() && pattern::is_empty(&found.regex())? =>
        {
            Schema::never(format!("{path}: no integer is between its minimum and its maximum"))
        }
        _ => number,
    })
}

fn text(reader: &mut Reader, keys: &Keys, path: &str) -> Result<S> {
    let (min, max) = (length(keys, "minLength", path)?.unwrap_or(0), length(keys, "maxLength", path)?);
    let mut text = Text { min, max, forms: Vec::new() };
    if let Some(value) = keys.get("pattern") {
        let pattern =
            value.as_str().ok_or_else(|| format!("{path}/pattern is {}, not a text", brief(value)))?;
        match pattern::search(pattern) {
            Ok(form) => text.forms.push(form),
            Err(why) => reader.refuse(&format!("{path}/pattern"), &format!("is not supported: {why}"))?,
        }
    }
    if let Some(value) = keys.get("format") {
        let name = value.as_str().ok_or_else(|| format!("{path}/format is {}, not a text", brief(value)))?;
        text.forms.extend(formats::format(name));
    }
    if max.is_some_and(|max| max < min) {
        return Ok(Schema::never(format!("{path}: its minLength is above its maxLength")));
    }
    Ok(Rc::new(Schema::Text(text)))
}

fn array(reader: &mut Reader, keys: &Keys, path: &str) -> Result<S> {
    // Before draft 2020 `items` could be a list, with `additionalItems` for the rest.
    let old = matches!(keys.get("items"), Some(Value::Array(_)));
    let (first, rest) = if old { ("items", "additionalItems") } else { ("prefixItems", "items") };
    let mut prefix = Vec::new();
    if let Some(items) = keys.get(first) {
        let at = format!("{path}/{first}");
        for (i, value) in list(items, &at)?.iter().enumerate() {
            prefix.push(reader.read(value, &format!("{at}/{i}"))?);
        }
    }
    let rest = match keys.get(rest) {
        Some(value) => reader.read(value, &format!("{path}/{rest}"))?,
        None => Schema::any(),
    };
    let (min, max) = (length(keys, "minItems", path)?.unwrap_or(0), length(keys, "maxItems", path)?);
    if max.is_some_and(|max| max < min) {
        return Ok(Schema::never(format!("{path}: its minItems is above its maxItems")));
    }
    let unique = (keys.get("uniqueItems") == Some(&Value::Bool(true))).then(|| format!("{path}/uniqueItems"));
    Ok(Rc::new(Schema::Array(Array { prefix, rest, min, max, unique })))
}

fn object(reader: &mut Reader, keys: &Keys, path: &str) -> Result<S> {
    let mut found = Object::any(path.to_owned());
    let members = |key: &str| match keys.get(key) {
        None => Ok(None),
        Some(Value::Object(members)) => Ok(Some(members)),
        Some(other) => Err(format!("{path}/{key} is {}, not an object", brief(other))),
    };
    for (name, value) in members("properties")?.into_iter().flatten() {
        found
            .properties
            .push((name.as_str().into(), reader.read(value, &format!("{path}/properties/{name}"))?));
    }
    // Each name pattern splits the sets of names in two: names that it matches, and the rest. Names that no
    // pattern matches are additional.
    let mut classes: Vec<(Vec<RegexAst>, Option<S>)> = vec![(Vec::new(), None)];
    for (expression, value) in members("patternProperties")?.into_iter().flatten() {
        let at = format!("{path}/patternProperties/{expression}");
        let schema = reader.read(value, &at)?;
        let names = match pattern::search(expression) {
            Ok(names) => names,
            Err(why) => {
                reader.refuse(&at, &format!("is not supported: {why}"))?;
                continue;
            }
        };
        for (name, known) in &mut found.properties {
            if matches(reader, std::slice::from_ref(&names), name)? {
                *known = meet(reader, known, &schema)?;
            }
        }
        let mut cut = Vec::new();
        for (forms, known) in classes {
            for (form, more) in [(names.clone(), Some(&schema)), (pattern::not(names.clone()), None)] {
                reader.spend()?;
                let forms = [&forms[..], &[form]].concat();
                if pattern::is_empty(&pattern::all(&forms)).map_err(|why| format!("{at}: {why}"))? {
                    continue;
                }
                let both = match (&known, more) {
                    (Some(known), Some(more)) => Some(meet(reader, known, more)?),
                    (known, more) => known.clone().or(more.cloned()),
                };
                cut.push((forms, both));
            }
        }
        if cut.len() > 64 {
            return Err(format!("{path}/patternProperties overlap in too many ways"));
        }
        classes = cut;
    }
    let additional = match keys.get("additionalProperties") {
        Some(value) => reader.read(value, &format!("{path}/additionalProperties"))?,
        None => Schema::any(),
    };
    found.others = classes
        .into_iter()
        .map(|(forms, schema)| (forms, schema.unwrap_or_else(|| Rc::clone(&additional))))
        .collect();
    if let Some(value) = keys.get("required").filter(|value| !value.is_boolean()) {
        for name in list(value, &format!("{path}/required"))? {
            found.require(
                &name.as_str().ok_or_else(|| format!("{path}/required names what is not a text"))?.into(),
            );
        }
    }
    found.min = length(keys, "minProperties", path)?.unwrap_or(0);
    found.max = length(keys, "maxProperties", path)?;
    match keys.get("propertyNames") {
        Some(value) => named(reader, found, value, &format!("{path}/propertyNames")),
        None => Ok(Rc::new(Schema::Object(found))),
    }
}

/// Returns an object all of whose names are texts that the schema `value` allows.
fn named(reader: &mut Reader, mut object: Object, value: &Value, at: &str) -> Result<S> {
    let names = reader.read(value, at)?;
    let names = meet(reader, &names, &Rc::new(Schema::Text(Text::default())))?;
    let forbidden = || Schema::never(format!("{at} does not allow the name"));
    for (name, schema) in &mut object.properties {
        if !accepts(reader, &names, &Value::from(&**name))? {
            *schema = forbidden();
        }
    }
    match &*names {
        // A name of a list becomes a property, which comes once.
        Schema::Values(values) => {
            for name in values.iter().filter_map(Value::as_str) {
                if !object.properties.iter().any(|(known, _)| &**known == name) {
                    let schema = property(reader, &object, name)?;
                    object.properties.push((name.into(), schema));
                }
            }
            object.others = vec![(Vec::new(), forbidden())];
        }
        Schema::Never(_) => object.others = vec![(Vec::new(), forbidden())],
        Schema::Text(text) => {
            let form = text.regex();
            object.others.iter_mut().for_each(|(forms, _)| forms.push(form.clone()));
            object.others.push((vec![pattern::not(form)], forbidden()));
        }
        _ => reader.refuse(at, "can only be a pattern, lengths, or a list of names")?,
    }
    Ok(Rc::new(Schema::Object(object)))
}
