//! Objects: properties in their order, other members, and counts of members.

use std::rc::Rc;

use llguidance::derivre::RegexAst;
use serde_json::Value;

use super::{Emitter, Made};
use crate::guide::rules::Symbol;
use crate::guide::schema::meet::property;
use crate::guide::schema::types::{Object, S};
use crate::guide::schema::{Result, pattern};

/// The most states of an object whose properties are counted.
const MAX_STATES: usize = 50_000;

impl Emitter<'_, '_> {
    pub(super) fn object(&mut self, object: &Object) -> Result<Made<Symbol>> {
        let (open, close) = (self.rules.literal("{")?, self.rules.literal("}")?);
        let mut properties = object.properties.clone();
        for name in &object.required {
            if !properties.iter().any(|(known, _)| known == name) {
                properties.push((Rc::clone(name), property(self.reader, object, name)?));
            }
        }
        let mut items = Vec::new();
        for (name, schema) in &properties {
            match self.schema(schema)? {
                Ok(value) => {
                    let key = self.rules.literal(&Value::from(&**name).to_string())?;
                    items.push((self.rules.rule(vec![vec![key, self.colon, value]])?, object.requires(name)));
                }
                Err(why) if object.requires(name) => {
                    return Ok(Err(format!("the property {:?}, which is required, can't be: {why}", name)));
                }
                Err(_) => {}
            }
        }
        let others = self.others(object, &properties)?;
        let required = items.iter().filter(|(_, required)| *required).count();
        if others.is_some() && object.min > required + 1 {
            let why = "can't be guaranteed: a name that the schema does not list may come twice";
            self.reader.refuse(&format!("{}/minProperties", object.path), why)?;
        }
        let Some(inner) = self.members(object, &items, others)? else {
            return Ok(Err(format!(
                "{}: minProperties, maxProperties and the properties exclude each other",
                object.path
            )));
        };
        self.rules.rule(vec![vec![open, inner, close]]).map(Ok)
    }

    /// A member whose name is not among `properties`.
    fn others(&mut self, object: &Object, properties: &[(Rc<str>, S)]) -> Result<Option<Symbol>> {
        let taken =
            || properties.iter().map(|(name, _)| RegexAst::Literal(name.to_string())).collect::<Vec<_>>();
        let mut options = Vec::new();
        for (names, schema) in &object.others {
            let Ok(value) = self.schema(schema)? else { continue };
            let mut names = names.clone();
            if !properties.is_empty() {
                names.push(pattern::not(RegexAst::Or(taken())));
            }
            let names = pattern::all(&names);
            if object.others.len() > 1 && pattern::is_empty(&names)? {
                continue;
            }
            let name = self.quoted(names);
            options.push(vec![self.rules.lexeme(name)?, self.colon, value]);
        }
        if options.is_empty() { Ok(None) } else { self.rules.rule(options).map(Some) }
    }

    /// The members of an object: `items` in their order, the required ones and some of the others, then
    /// `others`. Counts members as far as their number matters. `None` if no number of them is allowed.
    fn members(
        &mut self,
        object: &Object,
        items: &[(Symbol, bool)],
        others: Option<Symbol>,
    ) -> Result<Option<Symbol>> {
        let all = items.len();
        let max = object.max.filter(|&max| others.is_some() || max < all);
        let counted = max.map_or(object.min, |max| max.max(object.min)).max(1);
        if (all + 1).saturating_mul(counted + 1) > MAX_STATES {
            return Err(format!("{}: minProperties or maxProperties is too large", object.path));
        }
        // For each number of members so far, the possible continuation; `None` if none is allowed.
        let mut after: Vec<Option<Symbol>> = Vec::new();
        for count in 0..=counted {
            let least = object.min.saturating_sub(count);
            let most = max.map(|max| max.saturating_sub(count));
            let mut options = Vec::new();
            if least == 0 && max.is_none_or(|max| count <= max) {
                options.push(Vec::new());
            }
            if let Some(other) = others
                && most != Some(0)
                && most.is_none_or(|most| most >= least)
            {
                options.push(vec![self.list(other, least.max(1), most, count == 0)?]);
            }
            after.push(if options.is_empty() { None } else { Some(self.rules.rule(options)?) });
        }
        for &(item, required) in items.iter().rev() {
            let mut before = Vec::new();
            for count in 0..=counted {
                let mut options = Vec::new();
                // The last count stands for all counts from there on, unless there is a largest one.
                let next =
                    if count < counted { after[count + 1] } else { after[count].filter(|_| max.is_none()) };
                if let Some(next) = next {
                    options.push(if count == 0 { vec![item, next] } else { vec![self.comma, item, next] });
                }
                if let (Some(next), false) = (after[count], required) {
                    options.push(vec![next]);
                }
                before.push(if options.is_empty() { None } else { Some(self.rules.rule(options)?) });
            }
            after = before;
        }
        Ok(after[0])
    }
}
