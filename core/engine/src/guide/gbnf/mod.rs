//! Grammars in GBNF, the notation of llama.cpp.
//!
//! GBNF knows no tokens: every rule is about characters. llguidance reads a text in lexemes, each as long as can be, which is
//! much faster and not always the same: in `[a-z]* "!"`, fine, in `[a-z]* "end"`, the first lexeme takes what the second one
//! needs. So a part of the grammar that does not call itself becomes one lexeme where what follows it can't go on with it,
//! and where the first character says which part comes (`lexemes`). If this does not hold everywhere, every character
//! is a lexeme of its own, which is always right. A grammar none of whose rules calls itself is one regular expression.

mod chars;
mod emit;
mod read;
#[cfg(test)]
mod tests;

use llguidance::api::{GrammarInit, ParserLimits};

use chars::Chars;

type Result<T> = std::result::Result<T, String>;

/// Whether `source` is GBNF and not Lark: it defines rules by `::=`.
pub(super) fn is_gbnf(source: &str) -> bool {
    source.lines().any(|line| {
        let name = line.trim_start();
        let end = name.find(|c: char| !read::in_name(c)).unwrap_or(name.len());
        end > 0 && name[end..].trim_start().starts_with("::=")
    })
}

/// The texts of the rule `root`.
///
/// # Errors
/// What is wrong, with its line.
pub(super) fn compile(source: &str, limits: &ParserLimits) -> Result<GrammarInit> {
    let rules = read::read(source)?;
    emit::emit(&rules, limits)
}

/// What a rule stands for, or a part of it.
#[derive(Debug, Clone)]
enum Node {
    /// One character of these.
    Chars(Chars),
    /// Another rule, by its number.
    Rule(usize),
    /// One after the other.
    Sequence(Vec<Node>),
    /// One of these.
    Choice(Vec<Node>),
    /// From so many to so many times.
    Repeat(Box<Node>, u32, Option<u32>),
}
