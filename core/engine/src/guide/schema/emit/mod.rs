//! From a [`Schema`] to rules.

mod arrays;
mod objects;

use std::collections::HashMap;
use std::rc::Rc;

use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::derivre::{JsonQuoteOptions, RegexAst};
use serde_json::Value;

use super::reader::Reader;
use super::types::{Array, Object, S, Schema, Text};
use super::{Options, Result, number_text, pattern};
use crate::guide::rules::{Rules, Symbol};

/// A symbol, or the reason why there is no such text.
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
        // Without rules, a symbol that needs this one is impossible.
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
    /// By address, with the schema, so that the address stays valid.
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

    /// Returns the expression of a schema that needs only one lexeme.
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

    /// Any JSON value.
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
}

/// Returns the schema of exactly one value.
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
