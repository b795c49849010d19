//! Grammars in GBNF, the notation of llama.cpp.
//!
//! GBNF has no tokens: every rule is about characters. llguidance reads a text in lexemes, each as long as
//! possible, which is much faster and not always the same: `[a-z]* "!"` works, but in `[a-z]* "end"` the
//! first lexeme takes the characters that the second one needs. So a part of the grammar that does not call
//! itself becomes one lexeme if its follower can't extend it and the first character tells which part comes
//! (`lexemes`). If this does not hold everywhere, every character is a lexeme of its own, which is always
//! right. A grammar in which no rule calls itself is one regular expression.

mod chars;
mod emit;
mod read;
#[cfg(test)]
mod tests;

use llguidance::api::{GrammarInit, ParserLimits};

use chars::Chars;

type Result<T> = std::result::Result<T, String>;

/// Returns whether `source` is GBNF and not Lark: GBNF defines rules by `::=`.
pub(super) fn is_gbnf(source: &str) -> bool {
    source.lines().any(|line| {
        let name = line.trim_start();
        let end = name.find(|c: char| !read::in_name(c)).unwrap_or(name.len());
        end > 0 && name[end..].trim_start().starts_with("::=")
    })
}

/// Compiles the texts of the rule `root`.
///
/// # Errors
/// The fault in the grammar, with its line.
pub(super) fn compile(source: &str, limits: &ParserLimits) -> Result<GrammarInit> {
    let rules = read::read(source)?;
    emit::emit(&rules, limits)
}

/// The definition of a rule, or a part of it.
#[derive(Debug, Clone)]
enum Node {
    /// One of these characters.
    Chars(Chars),
    /// Another rule, by its number.
    Rule(usize),
    /// All of these in order.
    Sequence(Vec<Node>),
    /// One of these.
    Choice(Vec<Node>),
    /// A repetition with its least and its most count.
    Repeat(Box<Node>, u32, Option<u32>),
}
