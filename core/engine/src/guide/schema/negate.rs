//! The difference of two schemas, for `not` and `if`.

use std::rc::Rc;

use llguidance::derivre::RegexAst;
use serde_json::Value;

use super::decimal::Number;
use super::meet::{accepts, meet, property};
use super::reader::Reader;
use super::types::{Array, Object, S, Schema, Text};
use super::{Result, pattern};

/// Returns a schema of the values that `from` allows and `without` does not.
///
/// # Errors
/// Fails if a [`Schema`] can't express the difference.
pub(super) fn subtract(reader: &mut Reader, from: &S, without: &S) -> Result<S> {
    reader.spend()?;
    match (&**from, &**without) {
        (Schema::Never(_), _) | (_, Schema::Never(_)) => Ok(Rc::clone(from)),
        (_, Schema::Any) => Ok(Schema::never("everything is excluded")),
        (_, Schema::Ref(target)) => {
            let without = reader.definition(*target)?;
            subtract(reader, from, &without)
        }
        (Schema::Ref(target), _) => {
            let from = reader.definition(*target)?;
            subtract(reader, &from, without)
        }
        (_, Schema::Union(options)) => {
            let mut from = Rc::clone(from);
            for option in options {
                from = subtract(reader, &from, option)?;
            }
            Ok(from)
        }
        (Schema::Any, _) => {
            let rest: Result<_> =
                Schema::all_types().iter().map(|kind| subtract(reader, kind, without)).collect();
            Ok(Schema::union(rest?))
        }
        (Schema::Union(options), _) => {
            let rest: Result<_> = options.iter().map(|option| subtract(reader, option, without)).collect();
            Ok(Schema::union(rest?))
        }
        (Schema::Values(values), _) => {
            let mut kept = Vec::new();
            for value in values {
                if !accepts(reader, without, value)? {
                    kept.push(value.clone());
                }
            }
            Ok(if kept.is_empty() {
                Schema::never("every value is excluded")
            } else {
                Rc::new(Schema::Values(kept))
            })
        }
        (Schema::Text(text), Schema::Values(values)) => {
            let words = values.iter().filter_map(Value::as_str).map(|word| RegexAst::Literal(word.into()));
            Ok(excluding(text, words.collect()))
        }
        (Schema::Text(text), Schema::Text(other)) => {
            if other.forms.is_empty() && other.min == 0 && other.max.is_none() {
                return Ok(Schema::never("every text is excluded"));
            }
            Ok(excluding(text, vec![other.regex()]))
        }
        (Schema::Number(number), Schema::Number(other)) => numbers(number, other),
        (Schema::Number(_), Schema::Values(values)) if !values.iter().any(Value::is_number) => {
            Ok(Rc::clone(from))
        }
        (Schema::Array(_), Schema::Values(values)) if !values.iter().any(Value::is_array) => {
            Ok(Rc::clone(from))
        }
        (Schema::Object(_), Schema::Values(values)) if !values.iter().any(Value::is_object) => {
            Ok(Rc::clone(from))
        }
        (Schema::Array(_), Schema::Array(other)) => {
            let all = other.prefix.is_empty() && matches!(*other.rest, Schema::Any) && other.unique.is_none();
            match (all, other.min, other.max) {
                (true, 0, None) => Ok(Schema::never("every array is excluded")),
                (true, min, max) => {
                    let lengths = [
                        (0, min.checked_sub(1)),
                        (max.map_or(usize::MAX, |max| max.saturating_add(1)), None),
                    ];
                    let parts = [min > 0, max.is_some()].into_iter().zip(lengths).filter(|(there, _)| *there);
                    let parts: Result<_> = parts
                        .map(|(_, (min, max))| {
                            let length =
                                Array { prefix: Vec::new(), rest: Schema::any(), min, max, unique: None };
                            meet(reader, from, &Rc::new(Schema::Array(length)))
                        })
                        .collect();
                    Ok(Schema::union(parts?))
                }
                _ => Err("an array can only be excluded by its length".into()),
            }
        }
        (Schema::Object(object), Schema::Object(other)) => objects(reader, object, other),
        (Schema::Number(_) | Schema::Array(_) | Schema::Object(_), Schema::Values(_)) => {
            Err("numbers, arrays and objects can't be excluded one by one".into())
        }
        // The types differ, so nothing is excluded.
        _ => Ok(Rc::clone(from)),
    }
}

fn excluding(text: &Text, words: Vec<RegexAst>) -> S {
    let mut text = text.clone();
    if !words.is_empty() {
        text.forms.push(pattern::not(RegexAst::Or(words)));
    }
    Rc::new(Schema::Text(text))
}

/// The numbers below the excluded range, and those above it.
fn numbers(number: &Number, other: &Number) -> Result<S> {
    if !other.multiples.is_empty() || other.integer && !number.integer {
        return Err("whole numbers and multiples can't be excluded from others".into());
    }
    let bounds = [
        other.low.clone().map(|(low, itself)| Number { high: Some((low, !itself)), ..Number::default() }),
        other.high.clone().map(|(high, itself)| Number { low: Some((high, !itself)), ..Number::default() }),
    ];
    let parts = bounds.into_iter().flatten().map(|bound| number.within(bound)).collect::<Vec<_>>();
    Ok(if parts.is_empty() { Schema::never("every number is excluded") } else { Schema::union(parts) })
}

/// The objects that break one of the conditions of `other`.
fn objects(reader: &mut Reader, object: &Object, other: &Object) -> Result<S> {
    let plain = other.others.iter().all(|(_, schema)| matches!(**schema, Schema::Any));
    if !plain || other.min > 0 || other.max.is_some() {
        return Err("an object can only be excluded by the properties that it names".into());
    }
    let mut parts = Vec::new();
    for name in &other.required {
        parts.push(with(object, name, Schema::never("it is excluded"), false));
    }
    for (name, schema) in &other.properties {
        let there = property(reader, object, name)?;
        let rest = subtract(reader, &there, schema)?;
        if !rest.is_never() {
            parts.push(with(object, name, rest, true));
        }
    }
    let possible = |part: &S| match &**part {
        Schema::Object(object) => {
            !object.properties.iter().any(|(name, schema)| object.requires(name) && schema.is_never())
        }
        _ => true,
    };
    parts.retain(possible);
    Ok(if parts.is_empty() { Schema::never("every object is excluded") } else { Schema::union(parts) })
}

/// Returns `object` with another schema for one of its properties.
fn with(object: &Object, name: &Rc<str>, schema: S, required: bool) -> S {
    let mut object = object.clone();
    match object.properties.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = schema,
        None => object.properties.push((Rc::clone(name), schema)),
    }
    if required {
        object.require(name);
    }
    Rc::new(Schema::Object(object))
}
