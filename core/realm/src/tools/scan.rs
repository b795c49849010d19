//! Finds the end of a call's body in text as it arrives.

use super::spelling::{Body, Mark};

/// The state of a body after the text so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The body is unfinished.
    More,
    /// The body's value begins at [`Scanner::value`]; the text after that byte has not been read.
    Value,
    /// The body ends before this byte. Its content has not been parsed.
    End(usize),
    /// The text cannot be a body, as this byte shows.
    Broken(usize),
}

/// The most bytes of a name and its marks before the arguments.
const LONGEST_HEAD: usize = 512;

/// The language names of fences around calls.
const LANGUAGES: [&str; 8] = ["", "json", "JSON", "jsonc", "tool_call", "tool_calls", "tool_code", "tools"];

/// Reads a body once, byte by byte, however the text is cut into pieces.
#[derive(Debug)]
pub(super) struct Scanner {
    mark: &'static Mark,
    /// The next byte to read.
    pub at: usize,
    /// The first byte of the value: the object, the list, the tag or the name before one of them.
    pub value: usize,
    phase: Phase,
    /// The number of bytes before the value, without white space.
    head: usize,
    /// True if a name has ended.
    named: bool,
    /// The number of back quotes of a fence.
    ticks: usize,
    /// The first byte of the fence's language, until the language has ended.
    language: Option<usize>,
    /// True if a tag has been read.
    tagged: bool,
    /// The number of open objects and lists.
    depth: usize,
    quote: Option<u8>,
    escaped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    /// Inside objects, lists and calls.
    Brackets,
    /// Inside tags, or inside the text of the tag that this closes.
    Tags(Option<&'static str>),
    /// Searching for the mark that ends the body.
    Closer,
}

/// Tags whose text may hold anything.
const TAGS: [(&str, &str); 3] =
    [("<parameter=", "</parameter>"), ("<arg_key>", "</arg_key>"), ("<arg_value>", "</arg_value>")];
const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";

impl Scanner {
    /// Reads the text after `mark`, from the byte `at`.
    pub(super) fn new(mark: &'static Mark, at: usize) -> Self {
        let fence = mark.opener == "```";
        Self {
            mark,
            at,
            value: at,
            phase: if matches!(mark.body, Body::Gemma(_)) { Phase::Closer } else { Phase::Head },
            head: 0,
            named: false,
            ticks: if fence { 3 } else { 0 },
            language: fence.then_some(at),
            tagged: false,
            depth: 0,
            quote: None,
            escaped: false,
        }
    }

    /// Returns whether a fence was opened.
    pub(super) fn fenced(&self) -> bool {
        self.ticks > 0
    }

    /// Returns whether the text could end here if its open brackets or tags were closed.
    pub(super) fn is_nearly_done(&self) -> bool {
        match self.phase {
            Phase::Head => false,
            Phase::Brackets => self.quote.is_none(),
            Phase::Tags(inside) => inside.is_none(),
            Phase::Closer => true,
        }
    }

    /// Moves all positions by `bytes`, the number of bytes that the text lost at its beginning.
    pub(super) fn shift(&mut self, bytes: usize) {
        self.at -= bytes;
        self.value -= bytes;
        self.language = self.language.map(|at| at.saturating_sub(bytes));
    }

    /// Continues in `text`, which is the earlier text with more at its end.
    pub(super) fn scan(&mut self, text: &str) -> Scanned {
        match self.phase {
            Phase::Head => self.head(text),
            Phase::Brackets => self.brackets(text),
            Phase::Tags(_) => self.tags(text),
            Phase::Closer => self.closer(text),
        }
    }

    /// Reads the text before the value.
    fn head(&mut self, text: &str) -> Scanned {
        while let Some(&byte) = text.as_bytes().get(self.at) {
            let body = self.mark.body;
            let starts = match byte {
                b'{' => Some(Phase::Brackets),
                b'[' if self.head == 0 => Some(Phase::Brackets),
                b'(' if matches!(body, Body::Python | Body::Code) && self.head > 0 => Some(Phase::Brackets),
                b'<' if body == Body::Tagged => Some(Phase::Tags(None)),
                _ => None,
            };
            if self.language.is_some_and(|at| !self.is_language(&text[at..self.at], starts.is_some(), byte)) {
                return Scanned::Broken(self.at);
            }
            if let Some(phase) = starts {
                self.phase = phase;
                if self.head == 0 {
                    self.value = self.at;
                }
                return Scanned::Value;
            }
            // A head in other letters is broken at the first byte of such a letter.
            if !self.may_precede(byte) && text.is_char_boundary(self.at) {
                return Scanned::Broken(self.at);
            }
            self.at += 1;
        }
        Scanned::More
    }

    /// Returns whether the text after the back quotes may be the language of a fence, or its beginning.
    fn is_language(&mut self, language: &str, ends: bool, next: u8) -> bool {
        if ends || next.is_ascii_whitespace() {
            self.language = None;
            return LANGUAGES.contains(&language);
        }
        let goes_on = |known: &&str| {
            known.as_bytes().starts_with(language.as_bytes())
                && known.as_bytes().get(language.len()) == Some(&next)
        };
        LANGUAGES.iter().any(goes_on)
    }

    /// Reads a byte before the value; returns whether it may stand there.
    fn may_precede(&mut self, byte: u8) -> bool {
        let body = self.mark.body;
        if self.language.is_some() {
            return true;
        }
        match byte {
            _ if byte.is_ascii_whitespace() => self.named |= self.head > 0,
            b'`' if self.ticks < 3 && !matches!(body, Body::Named | Body::Mistral) => {
                self.ticks += 1;
                self.named |= self.head > 0;
                if self.ticks == 3 {
                    self.language = Some(self.at + 1);
                }
            }
            _ if body == Body::Named => {
                self.ticks += usize::from(byte == b'`');
                self.named_from();
            }
            _ if body == Body::Mistral && (byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte)) => {
                self.named_from();
            }
            _ if matches!(body, Body::Tagged | Body::Python | Body::Code)
                && !self.named
                && (byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) =>
            {
                self.named_from();
            }
            _ => return false,
        }
        self.head <= LONGEST_HEAD
    }

    fn named_from(&mut self) {
        if self.head == 0 {
            self.value = self.at;
        }
        self.head += 1;
    }

    fn brackets(&mut self, text: &str) -> Scanned {
        while let Some(&byte) = text.as_bytes().get(self.at) {
            if self.quote.is_none()
                && self.mark.closer.as_bytes().first() == Some(&byte)
                && let Some(scanned) = self.at_mark(text, self.mark.closer)
            {
                return scanned;
            }
            self.at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.quote.is_some() => self.escaped = true,
                b'"' | b'\'' => match self.quote {
                    Some(quote) if quote == byte => self.quote = None,
                    None => self.quote = Some(byte),
                    _ => {}
                },
                _ if self.quote.is_some() => {}
                b'{' | b'[' | b'(' => self.depth += 1,
                b'}' | b']' | b')' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Scanned::End(self.at);
                    }
                }
                _ => {}
            }
        }
        Scanned::More
    }

    /// Returns the body's end if `mark` stands here, `More` if it may, `None` if not.
    fn at_mark(&self, text: &str, mark: &str) -> Option<Scanned> {
        let rest = &text.as_bytes()[self.at..];
        if rest.starts_with(mark.as_bytes()) {
            return Some(Scanned::End(self.at));
        }
        mark.as_bytes().starts_with(rest).then_some(Scanned::More)
    }

    fn tags(&mut self, text: &str) -> Scanned {
        loop {
            if let Phase::Tags(Some(end)) = self.phase {
                let Some(found) = self.find(text, end) else { return Scanned::More };
                self.at = found + end.len();
                self.phase = Phase::Tags(None);
            }
            let Some(found) = text[self.at..].find('<') else {
                self.at = text.len();
                return Scanned::More;
            };
            self.at += found;
            let rest = &text[self.at..];
            let closers = [FUNCTION_END, self.mark.closer];
            let marks = TAGS.iter().map(|(tag, _)| *tag).chain(closers);
            if marks
                .filter(|mark| !mark.is_empty())
                .any(|mark| mark.len() > rest.len() && mark.starts_with(rest))
            {
                return Scanned::More;
            }
            if rest.starts_with(FUNCTION_END) {
                return Scanned::End(self.at + FUNCTION_END.len());
            }
            if !self.mark.closer.is_empty() && rest.starts_with(self.mark.closer) {
                return Scanned::End(self.at);
            }
            match TAGS.iter().find(|(tag, _)| rest.starts_with(tag)) {
                Some((tag, end)) => {
                    self.at += tag.len();
                    self.tagged = true;
                    self.phase = Phase::Tags(Some(end));
                }
                None if self.tagged => self.at += 1,
                // A name may stand before every tag except that of a function.
                None if self.head > 0 => return Scanned::Broken(self.at),
                None if rest.starts_with(FUNCTION) => {
                    self.at += FUNCTION.len();
                    self.tagged = true;
                }
                None if FUNCTION.starts_with(rest) => return Scanned::More,
                None => return Scanned::Broken(self.at),
            }
        }
    }

    fn closer(&mut self, text: &str) -> Scanned {
        self.find(text, self.mark.closer).map_or(Scanned::More, Scanned::End)
    }

    /// Finds a mark from here on; text that cannot be its beginning is not read again.
    fn find(&mut self, text: &str, mark: &str) -> Option<usize> {
        if let Some(found) = text[self.at..].find(mark) {
            return Some(self.at + found);
        }
        let mut from = text.len().saturating_sub(mark.len() - 1).max(self.at);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        self.at = from;
        None
    }
}
