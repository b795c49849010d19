//! Rules of a context-free grammar, built for llguidance.

use std::collections::HashMap;

use llguidance::api::{GrammarInit, ParserLimits, SkipSpec};
use llguidance::derivre::RegexAst;
use llguidance::earley::lexerspec::{LexemeIdx, LexerSpec};
use llguidance::earley::{Grammar, SymbolProps};

type Result<T> = std::result::Result<T, String>;
use super::cache::brief;

/// The number of a symbol in [`Rules`].
pub(super) type Symbol = usize;

enum Kind {
    Lexeme(LexemeIdx),
    /// One of these sequences.
    Rules(Vec<Vec<Symbol>>),
}

/// The rules of a grammar. Rules that no finite text can complete are left out by [`finish`](Self::finish),
/// so that a generation never runs into one.
pub(super) struct Rules {
    kinds: Vec<Kind>,
    spec: LexerSpec,
    props: SymbolProps,
    literals: HashMap<String, Symbol>,
    exactly: HashMap<(Symbol, usize), Symbol>,
    at_most: HashMap<(Symbol, usize), Symbol>,
    most: usize,
    fuel: u64,
}

impl Rules {
    /// Creates an empty set of rules. `skip` may come between lexemes.
    pub(super) fn new(skip: RegexAst, limits: &ParserLimits) -> Result<Self> {
        let mut spec = LexerSpec::new().map_err(|why| brief(&why))?;
        let class = spec.setup_lexeme_class_with_skip(SkipSpec::once(skip)).map_err(|why| brief(&why))?;
        spec.regex_builder.unicode(true).utf8(true);
        Ok(Self {
            kinds: Vec::new(),
            spec,
            props: SymbolProps { grammar_id: class, ..SymbolProps::default() },
            literals: HashMap::new(),
            exactly: HashMap::new(),
            at_most: HashMap::new(),
            most: limits.max_grammar_size,
            fuel: limits.initial_lexer_fuel,
        })
    }

    fn add(&mut self, kind: Kind) -> Result<Symbol> {
        if self.kinds.len() >= self.most {
            return Err(format!("it is too large: more than {} rules", self.most));
        }
        self.kinds.push(kind);
        Ok(self.kinds.len() - 1)
    }

    /// Adds a lexeme: the longest match of `ast`.
    pub(super) fn lexeme(&mut self, ast: RegexAst) -> Result<Symbol> {
        let lexeme = self.spec.add_greedy_lexeme(String::new(), ast, false, None, usize::MAX);
        let lexeme = lexeme.map_err(|why| brief(&why))?;
        if self.spec.cost() > self.fuel {
            return Err("it is too large for the time that compiling it may take".into());
        }
        self.add(Kind::Lexeme(lexeme))
    }

    pub(super) fn literal(&mut self, text: &str) -> Result<Symbol> {
        if let Some(&symbol) = self.literals.get(text) {
            return Ok(symbol);
        }
        let symbol = self.lexeme(RegexAst::Literal(text.into()))?;
        self.literals.insert(text.into(), symbol);
        Ok(symbol)
    }

    /// Adds a rule for one of these sequences.
    pub(super) fn rule(&mut self, options: Vec<Vec<Symbol>>) -> Result<Symbol> {
        match &options[..] {
            [one] if one.len() == 1 => Ok(one[0]),
            _ => self.add(Kind::Rules(options)),
        }
    }

    /// Adds a symbol whose rules [`Self::define`] gives later.
    pub(super) fn declare(&mut self) -> Result<Symbol> {
        self.add(Kind::Rules(Vec::new()))
    }

    pub(super) fn define(&mut self, symbol: Symbol, options: Vec<Vec<Symbol>>) {
        self.kinds[symbol] = Kind::Rules(options);
    }

    /// Adds `min` to `max` repetitions of `item`; without `max`, any number from `min` on. The number of
    /// rules grows with the logarithm of the counts, and each count has one derivation.
    pub(super) fn repeat(&mut self, item: Symbol, min: usize, max: Option<usize>) -> Result<Symbol> {
        let least = self.exactly(item, min)?;
        let more = match max {
            Some(max) => self.at_most(item, max.saturating_sub(min))?,
            None => {
                let star = self.declare()?;
                self.define(star, vec![vec![], vec![star, item]]);
                star
            }
        };
        self.rule(vec![vec![least, more]])
    }

    fn exactly(&mut self, item: Symbol, count: usize) -> Result<Symbol> {
        if let Some(&symbol) = self.exactly.get(&(item, count)) {
            return Ok(symbol);
        }
        let symbol = match count {
            0 => self.rule(vec![vec![]])?,
            1 => item,
            _ => {
                let halves = vec![self.exactly(item, count / 2)?, self.exactly(item, count - count / 2)?];
                self.rule(vec![halves])?
            }
        };
        self.exactly.insert((item, count), symbol);
        Ok(symbol)
    }

    fn at_most(&mut self, item: Symbol, count: usize) -> Result<Symbol> {
        if let Some(&symbol) = self.at_most.get(&(item, count)) {
            return Ok(symbol);
        }
        let symbol = match count {
            0 => self.rule(vec![vec![]])?,
            _ => {
                // Fewer than half, or half and some more.
                let half = count.div_ceil(2);
                let fewer = self.at_most(item, half - 1)?;
                let more = vec![self.exactly(item, half)?, self.at_most(item, count - half)?];
                self.rule(vec![vec![fewer], more])?
            }
        };
        self.at_most.insert((item, count), symbol);
        Ok(symbol)
    }

    /// Returns, for each symbol, whether some finite text has it.
    fn productive(&self) -> Vec<bool> {
        let mut productive = vec![false; self.kinds.len()];
        // For every symbol the rules that use it: of which symbol, and which of its rules.
        let mut used: Vec<Vec<(Symbol, usize)>> = vec![Vec::new(); self.kinds.len()];
        let mut missing: Vec<Vec<usize>> = Vec::with_capacity(self.kinds.len());
        let mut todo = Vec::new();
        for (symbol, kind) in self.kinds.iter().enumerate() {
            let Kind::Rules(rules) = kind else {
                missing.push(Vec::new());
                todo.push(symbol);
                continue;
            };
            missing.push(rules.iter().map(Vec::len).collect());
            if rules.iter().any(Vec::is_empty) {
                todo.push(symbol);
            }
            for (at, rule) in rules.iter().enumerate() {
                rule.iter().for_each(|&part| used[part].push((symbol, at)));
            }
        }
        while let Some(symbol) = todo.pop() {
            if std::mem::replace(&mut productive[symbol], true) {
                continue;
            }
            for &(user, at) in &used[symbol] {
                missing[user][at] -= 1;
                if missing[user][at] == 0 {
                    todo.push(user);
                }
            }
        }
        productive
    }

    /// Returns the grammar of the texts of `start`.
    ///
    /// # Errors
    /// Fails if there is no such text.
    pub(super) fn finish(self, start: Symbol) -> Result<GrammarInit> {
        let productive = self.productive();
        if !productive[start] {
            return Err("no text is what it asks for".into());
        }
        let mut grammar = Grammar::new(None);
        let root = grammar.fresh_symbol_ext("start", self.props.clone());
        grammar.sym_props_mut(root).is_start = true;
        let symbols: Vec<_> =
            (0..self.kinds.len()).map(|_| grammar.fresh_symbol_ext("s", self.props.clone())).collect();
        let complain = |why: anyhow::Error| brief(&why);
        grammar.add_rule(root, vec![symbols[start]]).map_err(complain)?;
        for (kind, &symbol) in self.kinds.iter().zip(&symbols) {
            match kind {
                Kind::Lexeme(lexeme) => {
                    grammar.make_terminal(symbol, *lexeme, &self.spec).map_err(complain)?
                }
                Kind::Rules(rules) => {
                    for rule in rules.iter().filter(|rule| rule.iter().all(|&part| productive[part])) {
                        let rule = rule.iter().map(|&part| symbols[part]).collect();
                        grammar.add_rule(symbol, rule).map_err(complain)?;
                    }
                }
            }
        }
        Ok(GrammarInit::Internal(grammar, self.spec))
    }
}
