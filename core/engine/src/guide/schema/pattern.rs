//! Regular expressions of `pattern`, `patternProperties` and `format`.

use llguidance::derivre::{Regex, RegexAst, RegexBuilder};
use llguidance::regex_to_lark;

use super::Result;

/// The most work for finding out whether an expression matches anything, in llguidance's units.
const FUEL: u64 = 200_000;

/// Any text.
pub(super) fn any() -> RegexAst {
    RegexAst::Regex("(?s:.*)".into())
}

/// All texts that `expression` does not match.
pub(super) fn not(expression: RegexAst) -> RegexAst {
    RegexAst::And(vec![any(), RegexAst::Not(Box::new(expression))])
}

/// The texts that all of `forms` match.
pub(super) fn all(forms: &[RegexAst]) -> RegexAst {
    match forms {
        [] => any(),
        [one] => one.clone(),
        _ => RegexAst::And(forms.to_vec()),
    }
}

/// Returns the texts in which `pattern` is found. Look-ahead is supported at the beginning of an alternative,
/// where pydantic writes it. `\d` and `\w` are ASCII, as in JSON schema.
///
/// # Errors
/// The fault in the pattern.
pub(super) fn search(pattern: &str) -> Result<RegexAst> {
    let mut alternatives = Vec::new();
    for alternative in split(pattern) {
        let mut rest = alternative;
        let mut forms = Vec::new();
        let anchored = rest.starts_with('^');
        while let Some((negative, ahead, after)) = look_ahead(rest) {
            if !anchored {
                return Err("a look-ahead is supported only behind a `^` at the beginning".into());
            }
            let options: Vec<String> =
                split(ahead).into_iter().map(|a| format!("^{}", a.strip_prefix('^').unwrap_or(a))).collect();
            let seen = RegexAst::Or(options.iter().map(|a| simple(a)).collect::<Result<_>>()?);
            forms.push(if negative { not(seen) } else { seen });
            rest = after;
        }
        // The anchor went with the first look-ahead.
        let body = if forms.is_empty() { rest.to_owned() } else { format!("^{rest}") };
        forms.push(simple(&body)?);
        alternatives.push(all(&forms));
    }
    let search = if alternatives.len() == 1 { alternatives.remove(0) } else { RegexAst::Or(alternatives) };
    builder(&search)?;
    Ok(search)
}

fn simple(pattern: &str) -> Result<RegexAst> {
    let ast = RegexAst::SearchRegex(regex_to_lark(pattern, "dw"));
    builder(&ast)?;
    Ok(ast)
}

/// Splits off a look-ahead at the beginning of `pattern`, after its `^`: returns whether it is negative, its
/// content, and the rest.
fn look_ahead(pattern: &str) -> Option<(bool, &str, &str)> {
    let text = pattern.strip_prefix('^').unwrap_or(pattern);
    let (negative, inside) = match text.strip_prefix("(?!") {
        Some(inside) => (true, inside),
        None => (false, text.strip_prefix("(?=")?),
    };
    let end = Scan::new(inside).find(|&(_, depth, byte)| depth == -1 && byte == b')')?.0;
    Some((negative, &inside[..end], &inside[end + 1..]))
}

/// Returns the alternatives of a pattern, if it has more than one outside of groups.
fn split(pattern: &str) -> Vec<&str> {
    let bars = Scan::new(pattern).filter(|&(_, depth, byte)| depth == 0 && byte == b'|').map(|(at, ..)| at);
    let mut start = 0;
    let mut parts = Vec::new();
    for bar in bars {
        parts.push(&pattern[start..bar]);
        start = bar + 1;
    }
    parts.push(&pattern[start..]);
    parts
}

/// Iterates over the bytes of a pattern outside of classes and not after a backslash, with their position and
/// the number of groups around them.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: i32,
}

impl<'a> Scan<'a> {
    fn new(pattern: &'a str) -> Self {
        Self { bytes: pattern.as_bytes(), at: 0, depth: 0 }
    }

    /// Returns the position after the class that begins at `at`.
    fn class(&self, mut at: usize) -> usize {
        at += 1;
        if self.bytes.get(at) == Some(&b'^') {
            at += 1;
        }
        // A bracket that comes first is a member.
        if self.bytes.get(at) == Some(&b']') {
            at += 1;
        }
        while let Some(&byte) = self.bytes.get(at) {
            match byte {
                b']' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        at
    }
}

impl Iterator for Scan<'_> {
    type Item = (usize, i32, u8);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let at = self.at;
            let byte = *self.bytes.get(at)?;
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'[' => self.at = self.class(at),
                b'(' => {
                    self.depth += 1;
                    return Some((at, self.depth, byte));
                }
                b')' => {
                    self.depth -= 1;
                    return Some((at, self.depth, byte));
                }
                _ => return Some((at, self.depth, byte)),
            }
        }
    }
}

fn builder(ast: &RegexAst) -> Result<(RegexBuilder, llguidance::derivre::ExprRef)> {
    let mut builder = RegexBuilder::new();
    let expression = builder.mk(ast).map_err(|why| super::super::cache::brief(&why))?;
    Ok((builder, expression))
}

/// Compiles an expression for matching texts.
///
/// # Errors
/// Fails for an expression that takes too much work.
pub(super) fn compiled(ast: &RegexAst) -> Result<Regex> {
    let (builder, expression) = builder(ast)?;
    let regex = builder.into_regex_limited(expression, FUEL);
    regex.map_err(|_| "an expression takes too much time or memory".into())
}

/// Returns whether `ast` matches nothing.
///
/// # Errors
/// Fails if that takes too long to find out.
pub(super) fn is_empty(ast: &RegexAst) -> Result<bool> {
    let (builder, expression) = builder(ast)?;
    if builder.exprset().is_positive(expression) {
        return Ok(false);
    }
    match builder.into_regex_limited(expression, FUEL) {
        Ok(mut regex) => Ok(regex.always_empty()),
        Err(_) => Err("it takes too much time to find out whether anything is what it asks for".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_what_other_engines_find() {
        for (pattern, found, not_found) in [
            ("b+", &["abbc", "b"][..], &["", "ac"][..]),
            ("^a$|^b", &["a", "bc"], &["ab", "ca"]),
            (r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", &["1", "+1.5", "0", ".5"], &["", "-", "+.", "x"]),
            (r"^(?=.*\d)(?=.*[a-z]).{3,5}$", &["a1b", "12a"], &["abc", "123", "a1", "abcde1"]),
            (r"^(?!con$|nul$)[a-z]+$", &["conx", "abc"], &["con", "nul", "x1"]),
            (r"^[|)(\]]+$", &["|)("], &["a"]),
            (r"a\|b|c\(", &["xa|b", "c("], &["a", "b"]),
            (r"^\w+$", &["a_1"], &["é", ""]),
        ] {
            let mut regex = compiled(&search(pattern).unwrap()).unwrap();
            assert!(found.iter().all(|text| regex.is_match(text)), "{pattern}");
            assert!(!not_found.iter().any(|text| regex.is_match(text)), "{pattern}");
        }
        for pattern in ["(", "a(?=b)", "(?=a)b", "(?<=a)b", r"(a)\1"] {
            assert!(search(pattern).is_err(), "{pattern}");
        }
    }
}
