//! From a [`Schema`] to rules.

use std::collections::HashMap;
use std::rc::Rc;

use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::derivre::{JsonQuoteOptions, RegexAst};
use serde_json::Value;

use super::meet::{exclude_each_other, property};
use super::read::Reader;
use super::{Array, Object, Options, Result, S, Schema, Text, number_text, pattern};
use crate::guide::rules::{Rules, Symbol};

/// States of an object whose properties are counted, and of an array whose items differ, at most.
const MAX_STATES: usize = 50_000;
const MAX_SUBSETS: usize = 1024;

/// A symbol, or why there is no such text.
type Made<T> = std::result::Result<T, String>;

pub(super) fn emit(
    reader: &mut Reader,
    root: &S,
    options: &Options,
    white_space: &str,
    limits: &ParserLimits,
) -> Result<GrammarInit> {
    let skip = match (&options.whitespace_pattern, options.whitespace_flexible) {
        (Some(pattern), _) => RegexAst::Regex(pattern.clone()),
        (None, Some(false)) => RegexAst::NoMatch,
        _ => RegexAst::Regex(white_space.into()),
    };
    let mut rules = Rules::new(skip, limits)?;
    let mut separator = |pattern: &Option<String>, usual: &str| match pattern {
        Some(pattern) => rules.lexeme(RegexAst::Regex(pattern.clone())),
        None => rules.literal(usual),
    };
    let comma = separator(&options.item_separator, ",")?;
    let colon = separator(&options.key_separator, ":")?;
    let mut quoting = JsonQuoteOptions::regular();
    if let Some(escapes) = &options.json_allowed_escapes {
        quoting.allowed_escapes.clone_from(escapes);
    }
    let mut emitter = Emitter {
        reader,
        rules,
        comma,
        colon,
        quoting,
        any: None,
        made: HashMap::new(),
        definitions: HashMap::new(),
        pending: Vec::new(),
    };
    let start = emitter.schema(root)?.map_err(|why| format!("nothing is valid: {why}"))?;
    while let Some((target, symbol)) = emitter.pending.pop() {
        let schema = emitter.reader.definition(target)?;
        // Without rules, what needs it can't be.
        if let Ok(made) = emitter.schema(&schema)? {
            emitter.rules.define(symbol, vec![vec![made]]);
        }
    }
    emitter.rules.finish(start)
}

struct Emitter<'r, 'a> {
    reader: &'r mut Reader<'a>,
    rules: Rules,
    comma: Symbol,
    colon: Symbol,
    quoting: JsonQuoteOptions,
    any: Option<Symbol>,
    /// By address; with the schema, so that it stays there.
    made: HashMap<*const Schema, (S, Made<Symbol>)>,
    definitions: HashMap<usize, Symbol>,
    pending: Vec<(usize, Symbol)>,
}

impl Emitter<'_, '_> {
    fn schema(&mut self, schema: &S) -> Result<Made<Symbol>> {
        if let Some((_, made)) = self.made.get(&Rc::as_ptr(schema)) {
            return Ok(made.clone());
        }
        let made = self.new_schema(schema)?;
        self.made.insert(Rc::as_ptr(schema), (Rc::clone(schema), made.clone()));
        Ok(made)
    }

    fn new_schema(&mut self, schema: &S) -> Result<Made<Symbol>> {
        if let Some(terminal) = self.terminal(schema)? {
            return terminal.map_or_else(|why| Ok(Err(why)), |ast| self.rules.lexeme(ast).map(Ok));
        }
        match &**schema {
            Schema::Any => self.any().map(Ok),
            Schema::Never(why) => Ok(Err(why.clone())),
            Schema::Ref(target) => self.reference(*target).map(Ok),
            Schema::Array(array) => self.array(array),
            Schema::Object(object) => self.object(object),
            Schema::Union(options) => self.union(options),
            Schema::Values(values) => {
                let values: Vec<S> = values.iter().map(value).collect();
                self.union(&values)
            }
            Schema::Number(_) | Schema::Text(_) => Ok(Err("it is a lexeme".into())),
        }
    }

    /// What needs but a lexeme.
    fn terminal(&mut self, schema: &S) -> Result<Option<Made<RegexAst>>> {
        Ok(match &**schema {
            Schema::Number(number) => Some(Ok(number.regex())),
            Schema::Text(text) => Some(self.text(text)?),
            Schema::Values(values) if !values.iter().any(|value| value.is_array() || value.is_object()) => {
                let literal = |value: &Value| match value {
                    Value::Number(number) => RegexAst::Literal(number_text(number)),
                    other => RegexAst::Literal(other.to_string()),
                };
                Some(Ok(RegexAst::Or(values.iter().map(literal).collect())))
            }
            _ => None,
        })
    }

    fn quoted(&self, inner: RegexAst) -> RegexAst {
        RegexAst::JsonQuote(Box::new(inner), self.quoting.clone())
    }

    fn text(&mut self, text: &Text) -> Result<Made<RegexAst>> {
        let inner = text.regex();
        if !text.forms.is_empty() && pattern::is_empty(&inner)? {
            return Ok(Err("no text has its pattern, format and length".into()));
        }
        Ok(Ok(self.quoted(inner)))
    }

    /// Any JSON.
    fn any(&mut self) -> Result<Symbol> {
        if let Some(any) = self.any {
            return Ok(any);
        }
        let any = self.rules.declare()?;
        self.any = Some(any);
        let kinds = self.union(&Schema::all_types())?;
        if let Ok(kinds) = kinds {
            self.rules.define(any, vec![vec![kinds]]);
        }
        Ok(any)
    }

    fn reference(&mut self, target: usize) -> Result<Symbol> {
        if let Some(&symbol) = self.definitions.get(&target) {
            return Ok(symbol);
        }
        let symbol = self.rules.declare()?;
        self.definitions.insert(target, symbol);
        self.pending.push((target, symbol));
        Ok(symbol)
    }

    fn union(&mut self, options: &[S]) -> Result<Made<Symbol>> {
        let (mut terminals, mut rules, mut why) = (Vec::new(), Vec::new(), None);
        for option in options {
            match self.terminal(option)? {
                Some(Ok(ast)) => terminals.push(ast),
                Some(Err(reason)) => why = why.or(Some(reason)),
                None => match self.schema(option)? {
                    Ok(symbol) => rules.push(vec![symbol]),
                    Err(reason) => why = why.or(Some(reason)),
                },
            }
        }
        if !terminals.is_empty() {
            rules.push(vec![self.rules.lexeme(RegexAst::Or(terminals))?]);
        }
        if rules.is_empty() {
            return Ok(Err(why.unwrap_or_else(|| "there is no option".into())));
        }
        self.rules.rule(rules).map(Ok)
    }

    fn array(&mut self, array: &Array) -> Result<Made<Symbol>> {
        let (open, close) = (self.rules.literal("[")?, self.rules.literal("]")?);
        if let Some(place) = &array.unique
            && array.max.is_none_or(|max| max > 1)
        {
            return self.different(array, place);
        }
        let mut max = array.max.unwrap_or(usize::MAX);
        let mut prefix = Vec::new();
        for (i, schema) in array.prefix.iter().enumerate().take(max) {
            match self.schema(schema)? {
                Ok(symbol) => prefix.push(symbol),
                Err(_) if i >= array.min => {
                    max = i;
                    break;
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        let count = prefix.len();
        let mut ends = Vec::new();
        if count >= array.min {
            ends.push(Vec::new());
        }
        if max > count {
            match self.schema(&array.rest)? {
                Ok(item) => {
                    let least = array.min.saturating_sub(count).max(1);
                    let most = (max != usize::MAX).then(|| max - count);
                    ends.push(vec![self.list(item, least, most, count == 0)?]);
                }
                Err(why) if count < array.min => return Ok(Err(why)),
                Err(_) => {}
            }
        }
        let mut rest = self.rules.rule(ends)?;
        for (i, item) in prefix.into_iter().enumerate().rev() {
            let mut options = vec![if i == 0 { vec![item, rest] } else { vec![self.comma, item, rest] }];
            if i >= array.min {
                options.push(Vec::new());
            }
            rest = self.rules.rule(options)?;
        }
        self.rules.rule(vec![vec![open, rest, close]]).map(Ok)
    }

    /// From `min`, which is not 0, to `max` items, after others unless they are the first.
    fn list(&mut self, item: Symbol, min: usize, max: Option<usize>, first: bool) -> Result<Symbol> {
        let another = self.rules.rule(vec![vec![self.comma, item]])?;
        let taken = usize::from(first);
        let more = self.rules.repeat(another, min - taken, max.map(|max| max - taken))?;
        self.rules.rule(vec![if first { vec![item, more] } else { vec![more] }])
    }

    /// An array of different values.
    fn different(&mut self, array: &Array, place: &str) -> Result<Made<Symbol>> {
        let refusal = "can't be guaranteed unless the items are of a short `enum`, or exclude each other in `prefixItems`";
        let rest = match &*array.rest {
            Schema::Ref(target) => self.reader.definition(*target)?,
            _ => Rc::clone(&array.rest),
        };
        if !array.prefix.is_empty()
            && (rest.is_never() || array.max.is_some_and(|max| max <= array.prefix.len()))
        {
            for (i, a) in array.prefix.iter().enumerate() {
                for b in &array.prefix[..i] {
                    if !exclude_each_other(self.reader, a, b)? {
                        self.reader.refuse(place, refusal)?;
                    }
                }
            }
        } else if let (Schema::Values(values), true) = (&*rest, array.prefix.is_empty()) {
            if let Some(made) = self.subsets(values, array)? {
                let (open, close) = (self.rules.literal("[")?, self.rules.literal("]")?);
                return made.map_or_else(
                    |why| Ok(Err(why)),
                    |inner| self.rules.rule(vec![vec![open, inner, close]]).map(Ok),
                );
            }
            self.reader.refuse(
                place,
                &format!(
                    "can't be guaranteed for {} values; there are too many orders of them",
                    values.len()
                ),
            )?;
        } else {
            self.reader.refuse(place, refusal)?;
        }
        self.array(&Array { unique: None, ..array.clone() })
    }

    /// Some of `values` in any order, each once; `None` if there are too many ways.
    fn subsets(&mut self, values: &[Value], array: &Array) -> Result<Option<Made<Symbol>>> {
        let mut distinct: Vec<&Value> = Vec::new();
        for value in values {
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        let count = distinct.len();
        let max = array.max.map_or(count, |max| max.min(count));
        if array.min > max {
            return Ok(Some(Err(format!("it asks for {} different items and names {count}", array.min))));
        }
        if count > 20 {
            return Ok(None);
        }
        let masks: Vec<u32> = (0..1u32 << count)
            .filter(|mask| mask.count_ones() as usize <= max)
            .take(MAX_SUBSETS + 1)
            .collect();
        if masks.len() > MAX_SUBSETS {
            return Ok(None);
        }
        let mut items = Vec::new();
        for value in distinct {
            match self.schema(&self::value(value))? {
                Ok(symbol) => items.push(symbol),
                Err(why) => return Ok(Some(Err(why))),
            }
        }
        // What may follow once the items of a mask are there. Masks with more items come first.
        let mut after: HashMap<u32, Symbol> = HashMap::new();
        for mask in masks.into_iter().rev() {
            let taken = mask.count_ones() as usize;
            let mut options = Vec::new();
            if taken >= array.min {
                options.push(Vec::new());
            }
            for (i, &item) in items.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 0 && taken < max) {
                let next = after[&(mask | 1 << i)];
                options.push(if mask == 0 { vec![item, next] } else { vec![self.comma, item, next] });
            }
            after.insert(mask, self.rules.rule(options)?);
        }
        Ok(Some(Ok(after[&0])))
    }

    fn object(&mut self, object: &Object) -> Result<Made<Symbol>> {
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

    /// The members of an object: `items` in their order, those that are required and some of the others, then `others`.
    /// Counts them as far as their number matters. `None` if no number of them is allowed.
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
        // What may follow once there are so many members, by their number; `None` for nothing that is allowed.
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
                // The last count stands for all from there on, unless there is a largest one.
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

/// The schema of one value.
fn value(value: &Value) -> S {
    let exactly = |value: &Value| self::value(value);
    Rc::new(match value {
        Value::Array(items) => Schema::Array(Array {
            prefix: items.iter().map(exactly).collect(),
            rest: Schema::never("the array ends"),
            min: items.len(),
            max: Some(items.len()),
            unique: None,
        }),
        Value::Object(members) => {
            let properties: Vec<(Rc<str>, S)> =
                members.iter().map(|(name, member)| (name.as_str().into(), exactly(member))).collect();
            let required = properties.iter().map(|(name, _)| Rc::clone(name)).collect();
            let others = vec![(Vec::new(), Schema::never("the object ends"))];
            Schema::Object(Object { properties, required, others, min: 0, max: None, path: String::new() })
        }
        scalar => Schema::Values(vec![scalar.clone()]),
    })
}
