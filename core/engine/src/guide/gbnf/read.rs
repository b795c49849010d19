//! Parses GBNF.

use std::collections::HashMap;

use super::chars::Chars;
use super::{Node, Result};

/// The deepest nesting of groups.
const MAX_DEPTH: usize = 100;

/// The most repetitions of a part that a count may give.
const MAX_REPEAT: u32 = 2000;

pub(super) fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Parses all rules, `root` first.
///
/// # Errors
/// The fault in the grammar, with its line.
pub(super) fn read(source: &str) -> Result<Vec<Node>> {
    let mut reader =
        Reader { text: source, at: 0, rules: Vec::new(), numbers: HashMap::new(), lines: Vec::new() };
    reader.number("root", 0);
    loop {
        reader.space(true);
        if reader.rest().is_empty() {
            break;
        }
        reader.rule()?;
    }
    let lines = reader.lines;
    let mut rules = Vec::new();
    for ((name, body), line) in reader.rules.into_iter().zip(lines) {
        let body = body.ok_or_else(|| match line {
            0 => format!("GBNF starts with the rule `{name}`, which there is not"),
            line => format!("line {line}: there is no rule `{name}`"),
        })?;
        rules.push(body);
    }
    Ok(rules)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    rules: Vec<(String, Option<Node>)>,
    numbers: HashMap<String, usize>,
    /// The line where each rule was first named.
    lines: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn line(&self) -> usize {
        1 + self.text[..self.at].matches('\n').count()
    }

    fn wrong<T>(&self, what: &str) -> Result<T> {
        let found: String = self.rest().chars().take_while(|c| *c != '\n').take(20).collect();
        Err(format!("line {}: {what}, not {found:?}", self.line()))
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.rest().starts_with(word);
        if there {
            self.at += word.len();
        }
        there
    }

    /// Skips white space and comments, and line ends if `lines`.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if lines => self.at += 1,
                '\r' => self.at += 1,
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn number(&mut self, name: &str, line: usize) -> usize {
        let next = self.rules.len();
        let number = *self.numbers.entry(name.to_owned()).or_insert(next);
        if number == next {
            self.rules.push((name.to_owned(), None));
            self.lines.push(line);
        }
        number
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }

    fn rule(&mut self) -> Result<()> {
        let line = self.line();
        let Some(name) = self.name() else { return self.wrong("a rule begins with its name") };
        self.space(true);
        if !self.take("::=") {
            return self.wrong(&format!("`::=` follows the name `{name}`"));
        }
        self.space(true);
        let body = self.choice(0)?;
        let number = self.number(name, line);
        if self.rules[number].1.replace(body).is_some() {
            return Err(format!("line {line}: there are two rules `{name}`"));
        }
        self.space(false);
        match self.peek() {
            None | Some('\n') => Ok(()),
            _ => self.wrong("a rule ends with its line"),
        }
    }

    fn choice(&mut self, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(format!("line {}: groups are nested more than {MAX_DEPTH} deep", self.line()));
        }
        let mut options = vec![self.sequence(depth)?];
        loop {
            // The next option may be on the next line.
            let before = self.at;
            self.space(true);
            if !self.take("|") {
                self.at = before;
                break;
            }
            self.space(true);
            options.push(self.sequence(depth)?);
        }
        Ok(if options.len() == 1 { options.remove(0) } else { Node::Choice(options) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node> {
        let mut parts = Vec::new();
        loop {
            self.space(depth > 0);
            let part = match self.peek() {
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.at += 1;
                    Node::Chars(Chars::all())
                }
                Some('(') => {
                    self.at += 1;
                    self.space(true);
                    let inner = self.choice(depth + 1)?;
                    self.space(true);
                    if !self.take(")") {
                        return self.wrong("`)` ends a group");
                    }
                    inner
                }
                Some('<' | '!') => {
                    return self.wrong("tokens by name or number are not supported in GBNF (Lark has them)");
                }
                Some(c) if in_name(c) => {
                    let line = self.line();
                    let name = self.name().unwrap_or_default();
                    Node::Rule(self.number(name, line))
                }
                _ => break,
            };
            parts.push(self.repeated(part)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Sequence(parts) })
    }

    fn repeated(&mut self, mut part: Node) -> Result<Node> {
        loop {
            // White space may separate a count from its part.
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    self.at += 1;
                    let counts = self.counts()?;
                    part = Node::Repeat(Box::new(part), counts.0, counts.1);
                    continue;
                }
                _ => return Ok(part),
            };
            self.at += 1;
            part = Node::Repeat(Box::new(part), min, max);
        }
    }

    fn counts(&mut self) -> Result<(u32, Option<u32>)> {
        let Some(end) = self.rest().find('}') else { return self.wrong("`}` ends a count") };
        let text = &self.rest()[..end];
        let count = |text: &str| text.trim().parse::<u32>().ok().filter(|&count| count <= MAX_REPEAT);
        let counts = match text.split_once(',') {
            None => count(text).map(|count| (count, Some(count))),
            Some((min, max)) => {
                let min = if min.trim().is_empty() { Some(0) } else { count(min) };
                let max = if max.trim().is_empty() { Some(None) } else { count(max).map(Some) };
                min.zip(max)
            }
        };
        match counts {
            Some((min, max)) if max.is_none_or(|max| max >= min) => {
                self.at += end + 1;
                Ok((min, max))
            }
            _ => self.wrong(&format!("a count is `{{m}}`, `{{m,}}` or `{{m,n}}`, of at most {MAX_REPEAT}")),
        }
    }

    fn literal(&mut self) -> Result<Node> {
        self.at += 1;
        let mut parts = Vec::new();
        while !self.take("\"") {
            parts.push(Node::Chars(Chars::one(self.character("`\"` ends a text")?)));
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Sequence(parts) })
    }

    fn class(&mut self) -> Result<Node> {
        self.at += 1;
        let negated = self.take("^");
        let mut ranges = Vec::new();
        while !self.take("]") {
            let from = self.character("`]` ends a class")?;
            let range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let to = if range {
                self.at += 1;
                self.character("`]` ends a class")?
            } else {
                from
            };
            if to < from {
                return Err(format!("line {}: the range {from:?} to {to:?} runs backwards", self.line()));
            }
            ranges.push((from as u32, to as u32));
        }
        let class = Chars::from_ranges(ranges);
        Ok(Node::Chars(if negated { class.not() } else { class }))
    }

    /// Reads one character of a text or a class, possibly after a backslash.
    fn character(&mut self, or_else: &str) -> Result<char> {
        let Some(c) = self.peek().filter(|c| *c != '\n') else { return self.wrong(or_else) };
        self.at += c.len_utf8();
        if c != '\\' {
            return Ok(c);
        }
        let Some(c) = self.peek() else { return self.wrong("a character follows a backslash") };
        let digits = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => {
                let plain = match c {
                    't' => '\t',
                    'r' => '\r',
                    'n' => '\n',
                    '\\' | '"' | '[' | ']' | '-' | '^' | '/' | '\'' | '.' => c,
                    _ => {
                        return self.wrong(
                            "a backslash stands before one of trn\\\"[] or before x, u or U and digits",
                        );
                    }
                };
                self.at += c.len_utf8();
                return Ok(plain);
            }
        };
        let code = self
            .rest()
            .get(1..=digits)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .and_then(char::from_u32);
        let Some(found) = code else {
            return self.wrong(&format!("{digits} hexadecimal digits of a character follow"));
        };
        self.at += 1 + digits;
        Ok(found)
    }
}
