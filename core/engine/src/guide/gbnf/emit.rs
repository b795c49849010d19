//! From GBNF to rules and lexemes of llguidance.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::derivre::{RegexAst, RegexBuilder};

use super::chars::Chars;
use super::{Node, Result};
use crate::guide::rules::{Rules, Symbol};

/// The most parts of one lexeme, with rules in place of their names.
const MAX_PARTS: usize = 20_000;

pub(super) fn emit(rules: &[Node], limits: &ParserLimits) -> Result<GrammarInit> {
    let facts = Facts::new(rules);
    for lexemes in [true, false] {
        let out = Rules::new(RegexAst::NoMatch, limits)?;
        let mut emitter =
            Emitter { rules, facts: &facts, out, lexemes, symbols: HashMap::new(), todo: Vec::new() };
        if let Some(start) = emitter.all()? {
            return emitter.out.finish(start);
        }
    }
    Err("GBNF could not be followed".into())
}

/// Facts about each rule.
struct Facts<'a> {
    rules: &'a [Node],
    /// True if the rule leads to no rule that calls itself.
    regular: Vec<bool>,
    /// The number of its parts once names are replaced.
    parts: Vec<usize>,
    nullable: Vec<bool>,
    first: Vec<Chars>,
    /// The characters that may follow it, where it is no part of a lexeme.
    follow: Vec<Chars>,
    goes_on: Vec<Option<Chars>>,
    /// The number of states that may still be visited, where the parts of a lexeme do not suffice.
    states: Cell<usize>,
}

impl<'a> Facts<'a> {
    fn new(rules: &'a [Node]) -> Self {
        let count = rules.len();
        let mut facts = Self {
            rules,
            regular: vec![false; count],
            parts: vec![0; count],
            nullable: vec![false; count],
            first: vec![Chars::default(); count],
            follow: vec![Chars::default(); count],
            goes_on: vec![None; count],
            states: Cell::new(20_000),
        };
        // Each of these only grows, until a round changes none.
        let mut grown = true;
        while grown {
            grown = false;
            for (i, rule) in rules.iter().enumerate() {
                if !facts.nullable[i] && facts.nullable(rule) {
                    facts.nullable[i] = true;
                    grown = true;
                }
                let first = facts.first(rule);
                grown |= facts.first[i].add(&first);
                if !facts.regular[i] && facts.is_regular(rule) {
                    facts.regular[i] = true;
                    facts.parts[i] = facts.parts(rule);
                    facts.goes_on[i] = facts.goes_on(rule);
                    grown = true;
                }
            }
        }
        // Once more, since the first rounds did not know all rules yet.
        for (i, rule) in rules.iter().enumerate() {
            if facts.regular[i] {
                facts.goes_on[i] = facts.goes_on(rule);
            }
        }
        let mut grown = true;
        while grown {
            grown = false;
            for (i, rule) in rules.iter().enumerate() {
                let after = facts.follow[i].clone();
                grown |= facts.spread(rule, &after);
            }
        }
        facts
    }

    fn is_regular(&self, node: &Node) -> bool {
        match node {
            Node::Chars(_) => true,
            Node::Rule(rule) => self.regular[*rule],
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter().all(|part| self.is_regular(part)),
            Node::Repeat(inner, ..) => self.is_regular(inner),
        }
    }

    fn parts(&self, node: &Node) -> usize {
        match node {
            Node::Chars(_) => 1,
            Node::Rule(rule) => self.parts[*rule],
            Node::Sequence(parts) | Node::Choice(parts) => {
                parts.iter().fold(1, |sum: usize, part| sum.saturating_add(self.parts(part)))
            }
            Node::Repeat(inner, ..) => self.parts(inner).saturating_add(1),
        }
    }

    fn nullable(&self, node: &Node) -> bool {
        match node {
            Node::Chars(_) => false,
            Node::Rule(rule) => self.nullable[*rule],
            Node::Sequence(parts) => parts.iter().all(|part| self.nullable(part)),
            Node::Choice(parts) => parts.iter().any(|part| self.nullable(part)),
            Node::Repeat(inner, min, _) => *min == 0 || self.nullable(inner),
        }
    }

    /// The characters that a node may begin with.
    fn first(&self, node: &Node) -> Chars {
        match node {
            Node::Chars(chars) => chars.clone(),
            Node::Rule(rule) => self.first[*rule].clone(),
            Node::Sequence(parts) => self.first_of(parts, &Chars::default()),
            Node::Choice(parts) => parts.iter().fold(Chars::default(), |mut all, part| {
                all.add(&self.first(part));
                all
            }),
            Node::Repeat(_, _, Some(0)) => Chars::default(),
            Node::Repeat(inner, ..) => self.first(inner),
        }
    }

    /// The characters that a sequence of these parts, followed by `after`, may begin with.
    fn first_of(&self, parts: &[Node], after: &Chars) -> Chars {
        let mut first = Chars::default();
        for part in parts {
            first.add(&self.first(part));
            if !self.nullable(part) {
                return first;
            }
        }
        first.add(after);
        first
    }

    /// The characters that can extend a text of a regular node to another of its texts, or to the beginning
    /// of one. `None` if the next character does not suffice to tell.
    fn goes_on(&self, node: &Node) -> Option<Chars> {
        match node {
            Node::Chars(_) => Some(Chars::default()),
            Node::Rule(rule) => self.goes_on[*rule].clone(),
            Node::Sequence(parts) => {
                let mut before = Some((Chars::default(), true));
                for part in parts {
                    let (mut on, _) = before?;
                    let (first, nullable) = (self.first(part), self.nullable(part));
                    if on.meets(&first) {
                        return None;
                    }
                    let own = self.goes_on(part)?;
                    if nullable {
                        on.add(&first);
                        on.add(&own);
                    } else {
                        on = own;
                    }
                    before = Some((on, nullable));
                }
                before.map(|(on, _)| on)
            }
            Node::Choice(parts) => {
                let mut all = Chars::default();
                let mut on = Chars::default();
                for part in parts {
                    let first = self.first(part);
                    if all.meets(&first) {
                        return None;
                    }
                    all.add(&first);
                    on.add(&self.goes_on(part)?);
                }
                // The other options may follow the empty one.
                if self.nullable(node) {
                    on.add(&all);
                }
                Some(on)
            }
            Node::Repeat(_, _, Some(0)) => Some(Chars::default()),
            Node::Repeat(inner, min, max) => {
                let (mut on, first) = (self.goes_on(inner)?, self.first(inner));
                if *max != Some(1) && (on.meets(&first) || self.nullable(inner)) {
                    return None;
                }
                if *max != Some(*min) {
                    on.add(&first);
                }
                Some(on)
            }
        }
    }

    /// Adds `after` to the characters that follow the rules in `node`; returns whether any were new.
    fn spread(&mut self, node: &Node, after: &Chars) -> bool {
        match node {
            Node::Chars(_) => false,
            Node::Rule(rule) => self.follow[*rule].add(after),
            Node::Sequence(parts) => {
                let mut grown = false;
                for (i, part) in parts.iter().enumerate() {
                    let next = self.first_of(&parts[i + 1..], after);
                    grown |= self.spread(part, &next);
                }
                grown
            }
            Node::Choice(parts) => parts.iter().fold(false, |grown, part| self.spread(part, after) | grown),
            Node::Repeat(inner, ..) => {
                let mut next = self.first(inner);
                next.add(after);
                self.spread(inner, &next)
            }
        }
    }

    /// Returns whether a regular node can be a lexeme where `after` follows.
    fn is_lexeme(&self, node: &Node, after: &Chars) -> bool {
        if !self.is_regular(node) || self.parts(node) > MAX_PARTS {
            return false;
        }
        if after.is_empty() {
            return true;
        }
        self.goes_on(node)
            .or_else(|| self.looked_up(node))
            .is_some_and(|on| !(on.meets(after) || self.nullable(node) && self.first(node).meets(after)))
    }

    /// Computes [`Self::goes_on`] by the automaton of the node, byte by byte. All characters beyond ASCII
    /// count as one.
    fn looked_up(&self, node: &Node) -> Option<Chars> {
        let mut builder = RegexBuilder::new();
        let expression = builder.mk(&self.regex(node)).ok()?;
        let mut regex = builder.into_regex_limited(expression, 100_000).ok()?;
        let start = regex.initial_state();
        let (mut seen, mut todo, mut ranges) = (HashSet::from([start]), vec![start], Vec::new());
        while let Some(state) = todo.pop() {
            self.states.set(self.states.get().checked_sub(1)?);
            let ends = regex.is_accepting(state);
            for byte in 0..=255u8 {
                let next = regex.transition(state, byte);
                if next.is_dead() {
                    continue;
                }
                if ends {
                    let code = u32::from(byte);
                    ranges.push(if byte < 0x80 { (code, code) } else { (0x80, char::MAX as u32) });
                }
                if seen.insert(next) {
                    todo.push(next);
                }
            }
        }
        Some(Chars::from_ranges(ranges))
    }

    fn regex(&self, node: &Node) -> RegexAst {
        match node {
            Node::Chars(chars) if chars.is_empty() => RegexAst::NoMatch,
            Node::Chars(chars) => RegexAst::Regex(chars.regex()),
            Node::Rule(rule) => self.regex(&self.rules[*rule]),
            Node::Sequence(parts) => RegexAst::Concat(parts.iter().map(|part| self.regex(part)).collect()),
            Node::Choice(parts) => RegexAst::Or(parts.iter().map(|part| self.regex(part)).collect()),
            Node::Repeat(inner, min, max) => {
                RegexAst::Repeat(Box::new(self.regex(inner)), *min, max.unwrap_or(u32::MAX))
            }
        }
    }
}

struct Emitter<'a> {
    rules: &'a [Node],
    facts: &'a Facts<'a>,
    out: Rules,
    /// True if lexemes may be longer than a character.
    lexemes: bool,
    symbols: HashMap<usize, Symbol>,
    todo: Vec<usize>,
}

impl Emitter<'_> {
    /// Returns the symbol of the first rule; `None` if the next character does not suffice to tell its parts
    /// apart.
    fn all(&mut self) -> Result<Option<Symbol>> {
        let start = self.rule(0)?;
        while let Some(rule) = self.todo.pop() {
            let Some(body) = self.node(&self.rules[rule], &self.facts.follow[rule])? else {
                return Ok(None);
            };
            self.out.define(self.symbols[&rule], vec![vec![body]]);
        }
        Ok(Some(start))
    }

    fn rule(&mut self, rule: usize) -> Result<Symbol> {
        if let Some(&symbol) = self.symbols.get(&rule) {
            return Ok(symbol);
        }
        let symbol = self.out.declare()?;
        self.symbols.insert(rule, symbol);
        self.todo.push(rule);
        Ok(symbol)
    }

    fn node(&mut self, node: &Node, after: &Chars) -> Result<Option<Symbol>> {
        if self.lexemes && self.facts.is_lexeme(node, after) {
            return self.out.lexeme(self.facts.regex(node)).map(Some);
        }
        match node {
            Node::Chars(chars) if chars.is_empty() => self.out.declare().map(Some),
            Node::Chars(_) => self.out.lexeme(self.facts.regex(node)).map(Some),
            // Any follower here follows the rule everywhere.
            Node::Rule(rule) if self.lexemes && self.facts.regular[*rule] => {
                self.node(&self.rules[*rule], after)
            }
            Node::Rule(rule) => self.rule(*rule).map(Some),
            Node::Sequence(parts) => self.sequence(parts, after),
            Node::Choice(parts) => {
                let mut seen = Chars::default();
                let mut options = Vec::new();
                for part in parts {
                    let first = self.facts.first_of(std::slice::from_ref(part), after);
                    if self.lexemes && seen.meets(&first) {
                        return Ok(None);
                    }
                    seen.add(&first);
                    let Some(symbol) = self.node(part, after)? else { return Ok(None) };
                    options.push(vec![symbol]);
                }
                self.out.rule(options).map(Some)
            }
            Node::Repeat(inner, min, max) => {
                let first = self.facts.first(inner);
                let plain = *max == Some(*min);
                if self.lexemes && (self.facts.nullable(inner) || first.meets(after) && !plain) {
                    return Ok(None);
                }
                let mut next = first;
                next.add(after);
                let Some(item) = self.node(inner, &next)? else { return Ok(None) };
                self.out.repeat(item, *min as usize, max.map(|max| max as usize)).map(Some)
            }
        }
    }

    /// Joins neighbors to one lexeme where possible: fewer lexemes take less parsing.
    fn sequence(&mut self, parts: &[Node], after: &Chars) -> Result<Option<Symbol>> {
        let mut symbols = Vec::new();
        let mut at = 0;
        while at < parts.len() {
            let next = |end: usize| self.facts.first_of(&parts[end..], after);
            let longest = (at + 1..=parts.len()).rev().find(|&end| {
                let together = Node::Sequence(parts[at..end].to_vec());
                self.lexemes && self.facts.is_lexeme(&together, &next(end))
            });
            match longest {
                Some(end) => {
                    let together = Node::Sequence(parts[at..end].to_vec());
                    symbols.push(self.out.lexeme(self.facts.regex(&together))?);
                    at = end;
                }
                None => {
                    let Some(symbol) = self.node(&parts[at], &next(at + 1))? else { return Ok(None) };
                    symbols.push(symbol);
                    at += 1;
                }
            }
        }
        self.out.rule(vec![symbols]).map(Some)
    }
}
