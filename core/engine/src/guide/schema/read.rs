//! Reads a schema's keywords and combines them.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::decimal::Decimal;
use super::meet::{exclude_each_other, meet};
use super::negate::subtract;
use super::reader::{Reader, list};
use super::types::{Object, S, Schema};
use super::{Result, brief, typed};

/// Reads the keywords of one schema.
///
/// # Errors
/// The place of a keyword that can't be expressed, and the reason.
pub(super) fn read(reader: &mut Reader<'_>, value: &Value, path: &str) -> Result<S> {
    let keys = match value {
        Value::Bool(true) => return Ok(Schema::any()),
        Value::Bool(false) => return Ok(Schema::never(format!("{path} is false"))),
        Value::Object(keys) => keys,
        _ => return Err(format!("{path} is {}; a schema is an object or boolean", brief(value))),
    };
    let mut schema = Schema::any();
    let mut typed = false;
    for (key, value) in keys {
        let at = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        if typed::KEYWORDS.contains(&key.as_str()) {
            // All keywords about types are read together, with the first of them.
            if !std::mem::replace(&mut typed, true) {
                let other = typed::read(reader, keys, path)?;
                schema = meet(reader, &schema, &other)?;
            }
            continue;
        }
        if let Some(other) = reader.combined(keys, key, value, &at, &schema)? {
            schema = other;
        }
    }
    // Last, when the other keywords have left the fewest values.
    if let Some(options) = keys.get("oneOf") {
        schema = reader.one_of(keys, options, &format!("{path}/oneOf"), &schema)?;
    }
    for key in ["not", "if"] {
        if let Some(value) = keys.get(key) {
            let at = format!("{path}/{key}");
            schema = reader.excluded(keys, key, value, &at, &schema)?;
        }
    }
    Ok(match &*schema {
        Schema::Never(why) if !why.contains('#') => Schema::never(format!("{path}: {why}")),
        _ => schema,
    })
}

impl Reader<'_> {
    /// Reads a keyword that amounts to another schema; `None` for one that has no effect here.
    fn combined(
        &mut self,
        keys: &Map<String, Value>,
        key: &str,
        value: &Value,
        at: &str,
        schema: &S,
    ) -> Result<Option<S>> {
        let other = match key {
            "const" => self.values(std::slice::from_ref(value), at)?,
            "enum" => self.values(list(value, at)?, at)?,
            "$ref" => self.reference(value, at)?,
            "allOf" => {
                let mut all = Rc::clone(schema);
                for (i, value) in list(value, at)?.iter().enumerate() {
                    let part = self.read(value, &format!("{at}/{i}"))?;
                    all = meet(self, &all, &part)?;
                }
                return Ok(Some(all));
            }
            "anyOf" => {
                let options = list(value, at)?
                    .iter()
                    .enumerate()
                    .map(|(i, value)| self.read(value, &format!("{at}/{i}")));
                Schema::union(options.collect::<Result<_>>()?)
            }
            "dependencies" | "dependentRequired" | "dependentSchemas" => self.dependencies(value, at)?,
            "contains"
                if keys.get("minContains") == Some(&Value::from(0)) && !keys.contains_key("maxContains") =>
            {
                return Ok(None);
            }
            "contains" => {
                self.refuse(at, "can't be guaranteed (name the items in their places by `prefixItems`)")?;
                return Ok(None);
            }
            "unevaluatedProperties" | "unevaluatedItems" if *value == Value::Bool(true) => return Ok(None),
            "unevaluatedProperties" | "unevaluatedItems" => {
                // No other keyword evaluates properties or items, so these mean the same as
                // `additionalProperties` and `items`.
                let elsewhere =
                    ["$ref", "allOf", "anyOf", "oneOf", "if", "not", "dependentSchemas", "contains"];
                if elsewhere.iter().any(|key| keys.contains_key(*key)) {
                    self.refuse(at, "can't be expressed beside keywords that combine schemas")?;
                    return Ok(None);
                }
                let rest = if key == "unevaluatedItems" { "items" } else { "additionalProperties" };
                if keys.contains_key(rest) {
                    return Ok(None);
                }
                let mut keys = keys.clone();
                keys.remove(key);
                keys.insert(rest.into(), value.clone());
                typed::read(self, &keys, at.rsplit_once('/').map_or("#", |(path, _)| path))?
            }
            "$dynamicRef" | "$recursiveRef" => {
                self.refuse(at, "is not supported; use `$ref`")?;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        meet(self, schema, &other).map(Some)
    }

    fn values(&mut self, values: &[Value], at: &str) -> Result<S> {
        if values.is_empty() {
            return Ok(Schema::never(format!("{at} is unsatisfiable: it names no value")));
        }
        let mut todo: Vec<&Value> = values.iter().collect();
        while let Some(value) = todo.pop() {
            match value {
                Value::Number(number) if Decimal::is_huge(number) => {
                    return Err(format!(
                        "{at}: {number} has more than 64 bits and can't be taken exactly; make it a text"
                    ));
                }
                Value::Array(items) => todo.extend(items),
                Value::Object(members) => todo.extend(members.values()),
                _ => {}
            }
        }
        Ok(Rc::new(Schema::Values(values.to_vec())))
    }

    fn one_of(&mut self, keys: &Map<String, Value>, value: &Value, at: &str, schema: &S) -> Result<S> {
        // OpenAPI's key, which pydantic writes: every option must have this property.
        let tag = keys.get("discriminator").and_then(|d| d.get("propertyName")).and_then(Value::as_str);
        let tagged = tag.map(|name| {
            let mut object = Object::any(at.to_owned());
            object.require(&name.into());
            Rc::new(Schema::Object(object))
        });
        let mut options: Vec<S> = Vec::new();
        for (i, value) in list(value, at)?.iter().enumerate() {
            let mut option = self.read(value, &format!("{at}/{i}"))?;
            if let Some(tagged) = &tagged {
                option = meet(self, &option, tagged)?;
            }
            options.push(meet(self, schema, &option)?);
        }
        for (j, b) in options.iter().enumerate() {
            for (i, a) in options[..j].iter().enumerate() {
                if !self.options.coerce_one_of && !exclude_each_other(self, a, b)? {
                    let why = format!(
                        "can't be guaranteed: a value may fit both option {i} and option {j} (use `anyOf`, or a `const` property that tells them apart)"
                    );
                    self.refuse(at, &why)?;
                }
            }
        }
        Ok(Schema::union(options))
    }

    /// Reads `not`, and `if` with `then` and `else`.
    fn excluded(
        &mut self,
        keys: &Map<String, Value>,
        key: &str,
        value: &Value,
        at: &str,
        schema: &S,
    ) -> Result<S> {
        let branch = |name: &str| {
            let at = at.strip_suffix("if").unwrap_or(at);
            keys.get(name).map(|value| (value, format!("{at}{name}")))
        };
        if key == "if" && branch("then").or(branch("else")).is_none() {
            return Ok(Rc::clone(schema));
        }
        let inner = self.read(value, at)?;
        let without = match subtract(self, schema, &inner) {
            Ok(without) => without,
            Err(why) => {
                self.refuse(at, &format!("can't be expressed: {why}"))?;
                return Ok(Rc::clone(schema));
            }
        };
        if key == "not" {
            return Ok(without);
        }
        let mut parts = vec![meet(self, schema, &inner)?, without];
        for (part, name) in parts.iter_mut().zip(["then", "else"]) {
            if let Some((value, at)) = branch(name) {
                let more = self.read(value, &at)?;
                *part = meet(self, part, &more)?;
            }
        }
        Ok(Schema::union(parts))
    }

    /// For each property: it is absent, or its dependency holds.
    fn dependencies(&mut self, value: &Value, at: &str) -> Result<S> {
        let Value::Object(dependencies) = value else { return Err(format!("{at} is not an object")) };
        let mut all = Schema::any();
        for (name, value) in dependencies {
            let path = format!("{at}/{name}");
            let name: Rc<str> = name.as_str().into();
            let mut absent = Object::any(at.to_owned());
            absent.properties.push((Rc::clone(&name), Schema::never("another property is missing")));
            let mut there = Object::any(at.to_owned());
            there.require(&name);
            let there = match value {
                Value::Array(names) => {
                    for name in names {
                        there.require(
                            &name.as_str().ok_or_else(|| format!("{path} names what is not a text"))?.into(),
                        );
                    }
                    Rc::new(Schema::Object(there))
                }
                _ => {
                    let more = self.read(value, &path)?;
                    meet(self, &Rc::new(Schema::Object(there)), &more)?
                }
            };
            let mut options = Schema::all_types();
            options.pop();
            options.extend([Rc::new(Schema::Object(absent)), there]);
            all = meet(self, &all, &Schema::union(options))?;
        }
        Ok(all)
    }
}
