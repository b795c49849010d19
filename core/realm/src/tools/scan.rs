//! Finds where the body of a call ends, as it comes.

use super::spelling::Body;

/// What is known about a body so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// It goes on.
    More,
    /// It ends before this byte. Whether it is what it looks like is another question.
    End(usize),
    /// It cannot be a body, as this byte shows.
    Broken(usize),
}

/// Bytes that a name and its marks may have before the JSON.
const LONGEST_HEAD: usize = 512;

/// Reads a body once, byte by byte, however it is cut.
#[derive(Debug)]
pub(super) struct Scanner {
    body: Body,
    /// What ends a body that is not JSON.
    closer: &'static str,
    /// The next byte to read.
    at: usize,
    /// Bytes of what stands before the JSON, without white space.
    head: usize,
    /// Objects and lists that are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// Reads from the byte `at`.
    pub(super) fn new(body: Body, closer: &'static str, at: usize) -> Self {
        Self { body, closer, at, head: 0, depth: 0, in_string: false, escaped: false }
    }

    /// Goes on in `text`, which is what it was with more at its end.
    pub(super) fn scan(&mut self, text: &str) -> Scanned {
        if self.body == Body::Gemma {
            return self.find_closer(text);
        }
        while let Some(&byte) = text.as_bytes().get(self.at) {
            if self.depth == 0 {
                if !self.before_json(byte) {
                    return Scanned::Broken(self.at);
                }
                self.at += 1;
                continue;
            }
            self.at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Scanned::End(self.at);
                    }
                }
                _ => {}
            }
        }
        Scanned::More
    }

    /// Takes a byte before or at the beginning of the JSON; says whether one may be there.
    fn before_json(&mut self, byte: u8) -> bool {
        let named = self.body == Body::Mistral;
        match byte {
            b'{' => self.depth = 1,
            b'[' if self.head == 0 => self.depth = 1,
            _ if byte.is_ascii_whitespace() => {}
            _ if named && (byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte)) => self.head += 1,
            _ => return false,
        }
        self.head <= LONGEST_HEAD
    }

    fn find_closer(&mut self, text: &str) -> Scanned {
        if let Some(found) = text[self.at..].find(self.closer) {
            return Scanned::End(self.at + found);
        }
        // The mark may have begun.
        let mut from = text.len().saturating_sub(self.closer.len() - 1).max(self.at);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        self.at = from;
        Scanned::More
    }
}
