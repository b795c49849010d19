//! The intersection of two schemas, whether they exclude each other, and whether a schema allows a given
//! value.

use std::rc::Rc;

use llguidance::derivre::RegexAst;
use serde_json::Value;

use super::decimal::{Decimal, Number};
use super::reader::Reader;
use super::types::{Array, Object, S, Schema, Text};
use super::{Result, pattern};

/// Returns the bound that excludes more.
fn stricter<T>(a: Option<(T, bool)>, b: Option<(T, bool)>, wins: impl Fn(&T, &T) -> bool) -> Option<(T, bool)>
where
    T: PartialEq,
{
    match (a, b) {
        (Some(a), Some(b)) if a.0 == b.0 => Some((a.0, a.1 && b.1)),
        (Some(a), Some(b)) => Some(if wins(&a.0, &b.0) { a } else { b }),
        (a, b) => a.or(b),
    }
}

fn least(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    a.into_iter().chain(b).min()
}

/// Returns the intersection of two schemas.
pub(super) fn meet(reader: &mut Reader, a: &S, b: &S) -> Result<S> {
    reader.spend()?;
    let both = match (&**a, &**b) {
        (Schema::Any, _) | (_, Schema::Never(_)) => return Ok(Rc::clone(b)),
        (_, Schema::Any) | (Schema::Never(_), _) => return Ok(Rc::clone(a)),
        (Schema::Ref(one), Schema::Ref(other)) if one == other => return Ok(Rc::clone(a)),
        (Schema::Ref(target), _) => {
            let a = reader.definition(*target)?;
            return meet(reader, &a, b);
        }
        (_, Schema::Ref(target)) => {
            let b = reader.definition(*target)?;
            return meet(reader, a, &b);
        }
        (Schema::Values(values), other) | (other, Schema::Values(values)) => {
            let mut kept = Vec::new();
            for value in values {
                if accepts(reader, other, value)? {
                    kept.push(value.clone());
                }
            }
            if kept.is_empty() {
                return Ok(Schema::never("none of the values that it names is allowed otherwise"));
            }
            Schema::Values(kept)
        }
        (Schema::Union(options), _) => {
            let met: Result<Vec<S>> = options.iter().map(|option| meet(reader, option, b)).collect();
            return Ok(Schema::union(met?));
        }
        (_, Schema::Union(options)) => {
            let met: Result<Vec<S>> = options.iter().map(|option| meet(reader, a, option)).collect();
            return Ok(Schema::union(met?));
        }
        (Schema::Number(a), Schema::Number(b)) => {
            let mut multiples = a.multiples.clone();
            multiples.extend(b.multiples.iter().filter(|step| !a.multiples.contains(step)).cloned());
            let number = Number {
                integer: a.integer || b.integer,
                low: stricter(a.low.clone(), b.low.clone(), |a, b| a > b),
                high: stricter(a.high.clone(), b.high.clone(), |a, b| a < b),
                multiples,
            };
            if number.is_empty() {
                return Ok(Schema::never("its minimum is above its maximum"));
            }
            Schema::Number(number)
        }
        (Schema::Text(a), Schema::Text(b)) => {
            let forms = a.forms.iter().chain(&b.forms).cloned().collect();
            Schema::Text(Text { min: a.min.max(b.min), max: least(a.max, b.max), forms })
        }
        (Schema::Array(a), Schema::Array(b)) => {
            let mut prefix = Vec::new();
            for i in 0..a.prefix.len().max(b.prefix.len()) {
                let (a, b) = (a.prefix.get(i).unwrap_or(&a.rest), b.prefix.get(i).unwrap_or(&b.rest));
                prefix.push(meet(reader, a, b)?);
            }
            let rest = meet(reader, &a.rest, &b.rest)?;
            let unique = a.unique.clone().or_else(|| b.unique.clone());
            Schema::Array(Array { prefix, rest, min: a.min.max(b.min), max: least(a.max, b.max), unique })
        }
        (Schema::Object(a), Schema::Object(b)) => Schema::Object(objects(reader, a, b)?),
        _ => return Ok(Schema::never("what it asks for has no type in common")),
    };
    Ok(Rc::new(both))
}

fn objects(reader: &mut Reader, a: &Object, b: &Object) -> Result<Object> {
    let mut properties = Vec::new();
    for (name, one) in &a.properties {
        let other = property(reader, b, name)?;
        properties.push((Rc::clone(name), meet(reader, one, &other)?));
    }
    for (name, one) in &b.properties {
        if !a.properties.iter().any(|(known, _)| known == name) {
            let other = property(reader, a, name)?;
            properties.push((Rc::clone(name), meet(reader, &other, one)?));
        }
    }
    let others = match (&a.others[..], &b.others[..]) {
        // One schema for all names, as in most objects.
        ([(names, one)], [(more, other)]) if names.is_empty() && more.is_empty() => {
            vec![(Vec::new(), meet(reader, one, other)?)]
        }
        _ => {
            let mut others = Vec::new();
            for (names, one) in &a.others {
                for (more, other) in &b.others {
                    reader.spend()?;
                    let names: Vec<RegexAst> = names.iter().chain(more).cloned().collect();
                    if names.len() < 2 || !pattern::is_empty(&pattern::all(&names))? {
                        others.push((names, meet(reader, one, other)?));
                    }
                }
            }
            others
        }
    };
    let mut both = Object {
        properties,
        required: a.required.clone(),
        others,
        min: a.min.max(b.min),
        max: least(a.max, b.max),
        path: a.path.clone(),
    };
    b.required.iter().for_each(|name| both.require(name));
    Ok(both)
}

/// Returns the schema of the property with this name.
pub(super) fn property(reader: &mut Reader, object: &Object, name: &str) -> Result<S> {
    if let Some((_, schema)) = object.properties.iter().find(|(known, _)| &**known == name) {
        return Ok(Rc::clone(schema));
    }
    for (names, schema) in &object.others {
        if matches(reader, names, name)? {
            return Ok(Rc::clone(schema));
        }
    }
    Ok(Schema::never("its name is not allowed"))
}

/// Returns whether all of `forms` match `text`.
pub(super) fn matches(reader: &mut Reader, forms: &[RegexAst], text: &str) -> Result<bool> {
    if forms.is_empty() {
        return Ok(true);
    }
    reader.spend()?;
    Ok(pattern::compiled(&pattern::all(forms))?.is_match(text))
}

/// Returns whether `schema` allows `value`.
pub(super) fn accepts(reader: &mut Reader, schema: &Schema, value: &Value) -> Result<bool> {
    reader.spend()?;
    Ok(match (schema, value) {
        (Schema::Any, _) => true,
        (Schema::Never(_), _) => false,
        (Schema::Values(values), _) => values.iter().any(|known| equal(known, value)),
        (Schema::Union(options), _) => {
            for option in options {
                if accepts(reader, option, value)? {
                    return Ok(true);
                }
            }
            false
        }
        (Schema::Ref(target), _) => {
            let schema = reader.definition(*target)?;
            accepts(reader, &schema, value)?
        }
        (Schema::Number(number), Value::Number(value)) => {
            Decimal::new(value).is_some_and(|value| number.accepts(&value))
        }
        (Schema::Text(text), Value::String(value)) => {
            let length = value.chars().count();
            length >= text.min
                && text.max.is_none_or(|max| length <= max)
                && matches(reader, &text.forms, value)?
        }
        (Schema::Array(array), Value::Array(items)) => {
            if items.len() < array.min || array.max.is_some_and(|max| items.len() > max) {
                return Ok(false);
            }
            for (i, item) in items.iter().enumerate() {
                if !accepts(reader, array.prefix.get(i).unwrap_or(&array.rest), item)? {
                    return Ok(false);
                }
            }
            let twice = (1..items.len()).any(|i| items[..i].iter().any(|item| equal(item, &items[i])));
            array.unique.is_none() || !twice
        }
        (Schema::Object(object), Value::Object(members)) => {
            if members.len() < object.min || object.max.is_some_and(|max| members.len() > max) {
                return Ok(false);
            }
            for (name, member) in members {
                let schema = property(reader, object, name)?;
                if !accepts(reader, &schema, member)? {
                    return Ok(false);
                }
            }
            object.required.iter().all(|name| members.contains_key(&**name))
        }
        _ => false,
    })
}

/// Returns whether two JSON values are equal: 1 and 1.0 are one number.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Decimal::new(a) == Decimal::new(b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// The most references that are followed to tell two schemas apart.
const DEPTH: usize = 8;

/// Returns whether no value is allowed by both. `false` also if that is not clear.
pub(super) fn exclude_each_other(reader: &mut Reader, a: &S, b: &S) -> Result<bool> {
    disjoint(reader, a, b, DEPTH)
}

fn disjoint(reader: &mut Reader, a: &S, b: &S, depth: usize) -> Result<bool> {
    reader.spend()?;
    Ok(match (&**a, &**b) {
        (Schema::Never(_), _) | (_, Schema::Never(_)) => true,
        (Schema::Any, _) | (_, Schema::Any) => false,
        (Schema::Ref(one), Schema::Ref(other)) if one == other => false,
        (Schema::Ref(target), _) => {
            depth > 0 && {
                let a = reader.definition(*target)?;
                disjoint(reader, &a, b, depth - 1)?
            }
        }
        (_, Schema::Ref(_)) => disjoint(reader, b, a, depth)?,
        (Schema::Values(values), _) => {
            for value in values {
                if accepts(reader, b, value)? {
                    return Ok(false);
                }
            }
            true
        }
        (_, Schema::Values(_)) => disjoint(reader, b, a, depth)?,
        (Schema::Union(options), _) => {
            for option in options {
                if !disjoint(reader, option, b, depth)? {
                    return Ok(false);
                }
            }
            true
        }
        (_, Schema::Union(_)) => disjoint(reader, b, a, depth)?,
        (Schema::Number(_), Schema::Number(_)) => meet(reader, a, b)?.is_never(),
        (Schema::Text(one), Schema::Text(other)) => {
            let apart = |a: &Text, b: &Text| a.max.is_some_and(|max| max < b.min);
            apart(one, other) || apart(other, one) || {
                let forms: Vec<RegexAst> = one.forms.iter().chain(&other.forms).cloned().collect();
                // If it takes too long to find out, they may overlap.
                !one.forms.is_empty()
                    && !other.forms.is_empty()
                    && pattern::is_empty(&pattern::all(&forms)).unwrap_or(false)
            }
        }
        (Schema::Array(one), Schema::Array(other)) => {
            let apart = |a: &Array, b: &Array| a.max.is_some_and(|max| max < b.min);
            if apart(one, other) || apart(other, one) {
                return Ok(true);
            }
            for i in 0..one.min.max(other.min).min(64) {
                let (a, b) =
                    (one.prefix.get(i).unwrap_or(&one.rest), other.prefix.get(i).unwrap_or(&other.rest));
                if disjoint(reader, a, b, depth)? {
                    return Ok(true);
                }
            }
            false
        }
        (Schema::Object(one), Schema::Object(other)) => {
            for name in one.required.iter().chain(&other.required) {
                let (a, b) = (property(reader, one, name)?, property(reader, other, name)?);
                if disjoint(reader, &a, &b, depth)? {
                    return Ok(true);
                }
            }
            false
        }
        _ => true,
    })
}
