//! The state of reading a schema: its definitions, and the steps so far.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::types::{S, Schema};
use super::{Options, Result, brief};

/// The most steps of reading and combining, which take a tenth of a second.
const STEPS: usize = 200_000;

/// Reads one schema. References are read when they are needed, each once.
pub(super) struct Reader<'a> {
    root: &'a Value,
    /// Reads the keywords of a schema at a path.
    keywords: fn(&mut Self, &Value, &str) -> Result<S>,
    pub(super) options: &'a Options,
    definitions: Vec<Definition>,
    by_target: HashMap<String, usize>,
    steps: usize,
}

enum Definition {
    /// A pointer into the schema, which was not read yet.
    Waiting(String),
    Reading(String),
    Ready(S),
}

impl<'a> Reader<'a> {
    /// Creates a reader of the schema `root`, which reads every schema in it by `keywords`.
    pub(super) fn new(
        root: &'a Value,
        options: &'a Options,
        keywords: fn(&mut Self, &Value, &str) -> Result<S>,
    ) -> Self {
        Self { root, keywords, options, definitions: Vec::new(), by_target: HashMap::new(), steps: 0 }
    }

    pub(super) fn root(&mut self) -> Result<S> {
        self.read(self.root, "#")
    }

    /// Counts a step.
    ///
    /// # Errors
    /// Fails after [`STEPS`] steps.
    pub(super) fn spend(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > STEPS { Err("it is too large once its parts are combined".into()) } else { Ok(()) }
    }

    /// Returns the schema that a reference leads to.
    pub(super) fn definition(&mut self, target: usize) -> Result<S> {
        self.spend()?;
        let pointer = match &self.definitions[target] {
            Definition::Ready(schema) => return Ok(Rc::clone(schema)),
            Definition::Reading(pointer) => {
                return Err(format!("{pointer} leads to itself where it is combined with other keywords"));
            }
            Definition::Waiting(pointer) => pointer.clone(),
        };
        let value = lookup(self.root, &pointer).unwrap_or(&Value::Null);
        self.definitions[target] = Definition::Reading(pointer.clone());
        let schema = self.read(value, &pointer)?;
        self.definitions[target] = Definition::Ready(Rc::clone(&schema));
        Ok(schema)
    }

    /// Returns the schema of a `$ref`, which is read later.
    pub(super) fn reference(&mut self, reference: &Value, path: &str) -> Result<S> {
        let Some(reference) = reference.as_str() else { return Err(format!("{path} is not a text")) };
        let pointer = resolve(self.root, reference).ok_or_else(|| {
            if reference.starts_with('#') {
                format!("{path}: there is no {}", brief(&reference.into()))
            } else {
                format!("{path}: Realm does not fetch other schemas, such as {}", brief(&reference.into()))
            }
        })?;
        let next = self.definitions.len();
        let target = *self.by_target.entry(pointer.clone()).or_insert(next);
        if target == next {
            self.definitions.push(Definition::Waiting(pointer));
        }
        Ok(Rc::new(Schema::Ref(target)))
    }

    /// Reports a keyword that can't be expressed.
    ///
    /// # Errors
    /// The keyword's place, unless the schema asks for leniency.
    pub(super) fn refuse(&self, path: &str, why: &str) -> Result<()> {
        if self.options.lenient { Ok(()) } else { Err(format!("{path} {why}")) }
    }

    /// Reads a schema.
    ///
    /// # Errors
    /// The place of a keyword that can't be expressed, and the reason.
    pub(super) fn read(&mut self, value: &Value, path: &str) -> Result<S> {
        self.spend()?;
        (self.keywords)(self, value, path)
    }
}

pub(super) fn list<'v>(value: &'v Value, at: &str) -> Result<&'v [Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("{at} is not a list"))
}

/// Returns the value at a pointer such as `#/$defs/a`.
fn lookup<'v>(root: &'v Value, pointer: &str) -> Option<&'v Value> {
    root.pointer(pointer.strip_prefix('#')?)
}

/// Resolves a reference within the schema to a pointer: the reference itself, or the place of its `$anchor`
/// or `$id`.
fn resolve(root: &Value, reference: &str) -> Option<String> {
    let base = root.get("$id").and_then(Value::as_str).unwrap_or("");
    let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    let place = if document.is_empty() || document == base.trim_end_matches('#') {
        String::new()
    } else {
        let relative = base.rsplit_once('/').map(|(folder, _)| format!("{folder}/{document}"));
        find(root, "", &|keys: &Map<String, Value>| {
            let id =
                keys.get("$id").or(keys.get("id")).and_then(Value::as_str).map(|id| id.trim_end_matches('#'));
            id.is_some_and(|id| {
                id == document
                    || Some(id) == relative.as_deref()
                    || relative
                        .as_deref()
                        .is_some_and(|r| !id.contains("://") && r.ends_with(&format!("/{id}")))
            })
        })?
    };
    let fragment = decode(fragment)?;
    let pointer = if fragment.is_empty() || fragment == "/" {
        place
    } else if fragment.starts_with('/') {
        place + &fragment
    } else {
        let inside = root.pointer(&place)?;
        let anchor = |keys: &Map<String, Value>| {
            let dynamic = keys.get("$dynamicAnchor");
            keys.get("$anchor").or(dynamic).and_then(Value::as_str) == Some(&fragment)
        };
        place.clone() + &find(inside, "", &anchor)?
    };
    root.pointer(&pointer)?;
    Some(format!("#{pointer}"))
}

/// Returns the pointer to the first object whose keys are `wanted`. The recursion is bounded, since the
/// reader bounds a schema's depth.
fn find(value: &Value, at: &str, wanted: &dyn Fn(&Map<String, Value>) -> bool) -> Option<String> {
    match value {
        Value::Object(keys) if wanted(keys) => Some(at.to_owned()),
        Value::Object(keys) => keys
            .iter()
            .filter(|(key, _)| !["const", "enum", "default", "examples"].contains(&key.as_str()))
            .find_map(|(key, value)| {
                find(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), wanted)
            }),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(i, value)| find(value, &format!("{at}/{i}"), wanted))
        }
        _ => None,
    }
}

/// Decodes the percent escapes of a fragment.
fn decode(fragment: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = fragment.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}
