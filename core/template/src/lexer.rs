//! Splits template source into tokens: text, tags and their contents.

use crate::error::{Error, Result};
use crate::literal;
use crate::unicode::{is_space, is_word};

/// A token of a template's source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// Text between tags, stripped as the signs of the tags demand.
    Data(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    /// An operator or bracket.
    Op(&'static str),
    End,
}

impl Token {
    /// Returns the token as an error message shows it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Data(_) => "text".into(),
            Self::VariableBegin => "`{{`".into(),
            Self::VariableEnd => "`}}`".into(),
            Self::BlockBegin => "`{%`".into(),
            Self::BlockEnd => "`%}`".into(),
            Self::Name(name) => format!("`{name}`"),
            Self::Str(_) => "a string".into(),
            Self::Int(n) => format!("`{n}`"),
            Self::Float(n) => format!("`{n}`"),
            Self::Op(op) => format!("`{op}`"),
            Self::End => "the end of the template".into(),
        }
    }
}

/// Operators, longer ones first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// Returns the tokens of a source with their lines. Line breaks have to be `\n`.
pub(crate) fn tokens(source: &str) -> Result<Vec<(Token, u32)>> {
    let mut lexer = Lexer { source, at: 0, line: 1, counted: 0, line_starting: true, tokens: Vec::new() };
    lexer.root()?;
    let line = lexer.line();
    lexer.tokens.push((Token::End, line));
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    /// The position up to which line breaks have been counted.
    counted: usize,
    /// Set if the previous token ended with a line break.
    line_starting: bool,
    tokens: Vec<(Token, u32)>,
}

/// The kind of a tag, by its beginning.
#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Variable,
    Block,
    Comment,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    /// Returns the line of the current position.
    fn line(&mut self) -> u32 {
        let new = &self.source.as_bytes()[self.counted..self.at];
        self.line += new.iter().filter(|&&b| b == b'\n').count() as u32;
        self.counted = self.at;
        self.line
    }

    fn fail<T>(&mut self, message: impl Into<String>) -> Result<T> {
        Err(Error::Syntax { line: self.line(), message: message.into() })
    }

    fn push(&mut self, token: Token) {
        let line = self.line();
        self.tokens.push((token, line));
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.line_starting = self.source[..self.at].ends_with('\n');
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start_matches(is_space).len());
    }

    fn root(&mut self) -> Result<()> {
        while !self.rest().is_empty() {
            let Some((before, tag)) = self.next_tag() else {
                let text = self.rest();
                self.data(text);
                self.at = self.source.len();
                return Ok(());
            };
            let sign = self.source.as_bytes().get(before + 2).copied();
            let text = &self.source[self.at..before];
            let text = self.stripped(text, sign, tag != Tag::Variable);
            self.data(text);
            self.at = before;
            if tag == Tag::Block && self.raw_begin() {
                self.raw()?;
                continue;
            }
            let line = self.line();
            let signed = usize::from(matches!(sign, Some(b'-' | b'+')));
            self.advance(2 + signed);
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Variable => {
                    self.tokens.push((Token::VariableBegin, line));
                    self.inside(Tag::Variable)?;
                }
                Tag::Block => {
                    self.tokens.push((Token::BlockBegin, line));
                    self.inside(Tag::Block)?;
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Token::Data(text.to_owned()));
        }
    }

    fn next_tag(&self) -> Option<(usize, Tag)> {
        let bytes = self.rest().as_bytes();
        let at = bytes.windows(2).position(|w| w[0] == b'{' && matches!(w[1], b'{' | b'%' | b'#'))?;
        let tag = match bytes[at + 1] {
            b'{' => Tag::Variable,
            b'%' => Tag::Block,
            _ => Tag::Comment,
        };
        Some((self.at + at, tag))
    }

    /// Strips the text before a tag by the tag's sign: `-` strips all white space, `+` none; without a sign,
    /// a block's or comment's indentation is stripped (`lstrip_blocks`).
    fn stripped<'t>(&self, text: &'t str, sign: Option<u8>, lstrip: bool) -> &'t str {
        if sign == Some(b'-') {
            return text.trim_end_matches(is_space);
        }
        if sign != Some(b'+') && lstrip {
            let line = text.rfind('\n').map_or(0, |at| at + 1);
            if (line > 0 || self.line_starting) && text[line..].chars().all(is_space) {
                return &text[..line];
            }
        }
        text
    }

    /// Reads `{% raw %}` if it is at the current position.
    fn raw_begin(&mut self) -> bool {
        let rest = &self.rest()[2..];
        let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        let Some(rest) = rest.trim_start_matches(is_space).strip_prefix("raw") else { return false };
        let rest = rest.trim_start_matches(is_space);
        let rest = if let Some(rest) = rest.strip_prefix("-%}") {
            rest.trim_start_matches(is_space)
        } else if let Some(rest) = rest.strip_prefix("%}") {
            rest
        } else {
            return false;
        };
        let bytes = self.rest().len() - rest.len();
        self.advance(bytes);
        true
    }

    /// Reads the text up to `{% endraw %}`.
    fn raw(&mut self) -> Result<()> {
        if self.rest().is_empty() {
            return Ok(());
        }
        let mut from = 0;
        loop {
            let rest = self.rest();
            let Some(at) = rest[from..].find("{%").map(|at| at + from) else {
                return self.fail("`raw` has no end; add `{% endraw %}`");
            };
            from = at + 2;
            let after = &rest[from..];
            let sign = after.as_bytes().first().copied().filter(|b| matches!(b, b'-' | b'+'));
            let after = after.strip_prefix(['-', '+']).unwrap_or(after);
            let Some(after) = after.trim_start_matches(is_space).strip_prefix("endraw") else { continue };
            let Some(after) = block_end(after.trim_start_matches(is_space)) else { continue };
            let text = self.stripped(&rest[..at], sign, true);
            self.data(text);
            self.advance(rest.len() - after.len());
            return Ok(());
        }
    }

    fn comment(&mut self) -> Result<()> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else { return self.fail("a comment has no end; add `#}`") };
        let after = &rest[end + 2..];
        let after = match rest.as_bytes()[..end].last() {
            Some(b'-') => after.trim_start_matches(is_space),
            Some(b'+') => after,
            _ => after.strip_prefix('\n').unwrap_or(after),
        };
        self.advance(rest.len() - after.len());
        Ok(())
    }

    /// Reads the tokens of a tag up to its end.
    fn inside(&mut self, tag: Tag) -> Result<()> {
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            self.skip_space();
            let rest = self.rest();
            if rest.is_empty() {
                let end = if tag == Tag::Block { "%}" } else { "}}" };
                return self.fail(format!("a tag has no end; add `{end}`"));
            }
            if open.is_empty() {
                let after = if tag == Tag::Block { block_end(rest) } else { variable_end(rest) };
                if let Some(after) = after {
                    self.push(if tag == Tag::Block { Token::BlockEnd } else { Token::VariableEnd });
                    self.advance(rest.len() - after.len());
                    return Ok(());
                }
            }
            self.token(&mut open)?;
        }
    }

    fn token(&mut self, open: &mut Vec<&'static str>) -> Result<()> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(()) };
        if first.is_ascii_digit() {
            let after_dot = self.source[..self.at].ends_with('.');
            return match literal::number(rest, after_dot) {
                Ok((token, len)) => {
                    self.push(token);
                    self.advance(len);
                    Ok(())
                }
                Err(message) => self.fail(message),
            };
        }
        if is_word(first) {
            let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            if crate::unicode::is_numeric(first) {
                return self.fail(format!("`{}` is no name; a name begins with a letter", &rest[..len]));
            }
            self.push(Token::Name(rest[..len].to_owned()));
            self.advance(len);
            return Ok(());
        }
        if first == '"' || first == '\'' {
            let Some(len) = literal::string_len(rest) else {
                return self.fail(format!("a string has no end; add `{first}`"));
            };
            return match literal::string(&rest[1..len - 1]) {
                Ok(text) => {
                    self.push(Token::Str(text));
                    self.advance(len);
                    Ok(())
                }
                Err(message) => self.fail(message),
            };
        }
        let Some(op) = OPERATORS.into_iter().find(|op| rest.starts_with(op)) else {
            return self.fail(format!("`{}` has no meaning here", first.escape_debug()));
        };
        match op {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            ")" | "]" | "}" => match open.pop() {
                Some(expected) if expected == op => {}
                Some(expected) => return self.fail(format!("`{op}` where `{expected}` is needed")),
                None => return self.fail(format!("`{op}` closes nothing")),
            },
            _ => {}
        }
        self.push(Token::Op(op));
        self.advance(op.len());
        Ok(())
    }
}

/// Returns the rest behind `%}` and one line break (`trim_blocks`).
fn block_end(rest: &str) -> Option<&str> {
    if let Some(after) = rest.strip_prefix("+%}") {
        return Some(after);
    }
    if let Some(after) = rest.strip_prefix("-%}") {
        return Some(after.trim_start_matches(is_space));
    }
    let after = rest.strip_prefix("%}")?;
    Some(after.strip_prefix('\n').unwrap_or(after))
}

fn variable_end(rest: &str) -> Option<&str> {
    if let Some(after) = rest.strip_prefix("-}}") {
        return Some(after.trim_start_matches(is_space));
    }
    rest.strip_prefix("}}")
}
