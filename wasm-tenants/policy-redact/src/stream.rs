//! Replaces matches in text that arrives piece by piece.

use realm_tenant::{Error, Result};
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Anchored, Input, MatchKind};

/// Most bytes that are held back. A longer text that may still become a match is replaced, to be safe.
const MOST_HELD: usize = 4096;

/// Most bytes of the automaton's states, which are built when they are first reached.
const MOST_STATES: usize = 512 << 10;

pub(crate) struct Redactor {
    automaton: DFA,
    cache: Cache,
    replacement: String,
    /// The held text, and the character before it, which `^` and `\b` look at.
    text: String,
    /// Where the held text begins.
    held: usize,
    /// The automaton's state if a match was too long to be held and continues.
    within: Option<LazyStateID>,
}

/// The knowledge about a match that would begin at some place.
enum Known {
    No,
    /// The match ends at this byte.
    Match(usize),
    /// More text will decide.
    Open,
}

impl Redactor {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// `invalid-argument` for a pattern that is invalid, too large, or matches the empty text or the
    /// replacement.
    pub(crate) fn new(pattern: &str, replacement: String) -> Result<Self> {
        let config = DFA::config().match_kind(MatchKind::All).cache_capacity(MOST_STATES);
        let build = DFA::builder().configure(config).build(pattern);
        let automaton = build.map_err(|error| Error::invalid(format!("the pattern is refused: {error}")))?;
        let cache = automaton.create_cache();
        let (text, held) = (String::new(), 0);
        let mut new = Self { automaton, cache, replacement, text, held, within: None };
        if let Known::Match(_) = new.look("", 0, true)? {
            return Err(Error::invalid("the pattern matches the empty text, so that no text is without it"));
        }
        let replacement = new.replacement.clone();
        for at in replacement.char_indices().map(|(at, _)| at) {
            if let Known::Match(_) = new.look(&replacement, at, true)? {
                return Err(Error::invalid("the pattern matches the replacement"));
            }
        }
        Ok(new)
    }

    /// Adds text; returns the text that may be sent.
    pub(crate) fn push(&mut self, text: &str) -> Result<String> {
        self.text += text;
        self.advance(false)
    }

    /// Ends the stream; returns the text that was held back.
    pub(crate) fn finish(&mut self) -> Result<String> {
        self.advance(true)
    }

    fn advance(&mut self, end: bool) -> Result<String> {
        let text = std::mem::take(&mut self.text);
        let mut out = String::new();
        let mut at = self.held;
        if let Some(state) = self.within.take() {
            at = self.leave(&text, at, state, end)?;
        }
        while at < text.len() && self.within.is_none() {
            match self.look(&text, at, end)? {
                Known::No => {
                    let next = at + text[at..].chars().next().map_or(1, char::len_utf8);
                    out += &text[at..next];
                    at = next;
                }
                Known::Match(to) => {
                    out += &self.replacement;
                    at = to;
                }
                Known::Open if text.len() - at > MOST_HELD => {
                    out += &self.replacement;
                    let state = self.start(&text, at)?;
                    at = self.leave(&text, at, state, end)?;
                }
                Known::Open => break,
            }
        }
        let before = text[..at].chars().next_back().map_or(0, char::len_utf8);
        self.text = text[at - before..].to_owned();
        self.held = before;
        Ok(out)
    }

    /// Returns whether a match begins at `at`, and where the longest one ends. With `end`, no more text
    /// follows.
    fn look(&mut self, text: &str, at: usize, end: bool) -> Result<Known> {
        let mut state = self.start(text, at)?;
        let mut found = Known::No;
        for (i, &byte) in text.as_bytes().iter().enumerate().skip(at) {
            state = self.next(state, byte)?;
            // The automaton reports a match one byte late, because that byte may matter to the end of the
            // pattern.
            if state.is_match() && i > at {
                found = Known::Match(i);
            }
            if state.is_dead() {
                return Ok(found);
            }
        }
        if !end {
            return Ok(Known::Open);
        }
        let state = self.automaton.next_eoi_state(&mut self.cache, state).map_err(too_complex)?;
        if state.is_match() {
            found = Known::Match(text.len());
        }
        Ok(found)
    }

    /// Follows a match that has already been replaced, to its end or the text's.
    fn leave(&mut self, text: &str, at: usize, mut state: LazyStateID, end: bool) -> Result<usize> {
        let mut ended = None;
        for (i, &byte) in text.as_bytes().iter().enumerate().skip(at) {
            let next = self.next(state, byte)?;
            if next.is_match() {
                if i + 1 == text.len() && !end {
                    // The next byte decides whether the match continues, so this state is used again with it.
                    self.within = Some(state);
                    return Ok(i);
                }
                ended = Some(i);
            }
            if next.is_dead() {
                let to = ended.unwrap_or(i);
                return Ok((to..text.len()).find(|&to| text.is_char_boundary(to)).unwrap_or(text.len()));
            }
            state = next;
        }
        self.within = Some(state);
        Ok(text.len())
    }

    fn start(&mut self, text: &str, at: usize) -> Result<LazyStateID> {
        let input = Input::new(text).range(at..).anchored(Anchored::Yes);
        self.automaton.start_state_forward(&mut self.cache, &input).map_err(too_complex)
    }

    fn next(&mut self, state: LazyStateID, byte: u8) -> Result<LazyStateID> {
        let state = self.automaton.next_state(&mut self.cache, state, byte).map_err(too_complex)?;
        if state.is_quit() {
            return Err(Error::invalid("the pattern looks at what this text's letters are; use `(?-u:\\b)`"));
        }
        Ok(state)
    }
}

fn too_complex(error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the pattern is too complex: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the output if `text` arrives in pieces of `size` bytes.
    fn redacted(pattern: &str, text: &str, size: usize) -> String {
        let mut redactor = Redactor::new(pattern, "#".to_owned()).unwrap();
        let mut out = String::new();
        for piece in text.as_bytes().chunks(size) {
            out += &redactor.push(std::str::from_utf8(piece).unwrap()).unwrap();
        }
        out + &redactor.finish().unwrap()
    }

    #[test]
    fn matches_are_replaced_in_whatever_pieces_they_come() {
        for size in [1, 2, 3, 7, 100] {
            let mail = redacted(r"[a-z.]+@[a-z]+\.[a-z]+", "Write to jo.doe@example.org, or not.", size);
            assert_eq!(mail, "Write to #, or not.");
            assert_eq!(redacted("[0-9]{3}", "12 123 12345 1", size), "12 # #45 1");
            assert_eq!(redacted("abcd|bc", "abcx abcd ab", size), "a#x # ab");
            assert_eq!(redacted(r"(?-u:\b)cat(?-u:\b)", "cat concat cats cat", size), "# concat cats #");
            assert_eq!(redacted("^a|b$", "aab ab", size), "#ab a#");
        }
    }

    #[test]
    fn text_goes_out_as_soon_as_it_cannot_become_a_match() {
        let mut redactor = Redactor::new("secret", "#".to_owned()).unwrap();
        assert_eq!(redactor.push("The sec").unwrap(), "The ");
        assert_eq!(redactor.push("ond sec").unwrap(), "second ");
        assert_eq!(redactor.push("ret it").unwrap(), "# it");
        assert_eq!(redactor.push(" secre").unwrap(), " ");
        assert_eq!(redactor.finish().unwrap(), "secre");
    }

    #[test]
    fn a_match_that_is_longer_than_what_is_held_is_replaced_as_a_whole() {
        let text = format!("before {} after", "7".repeat(3 * MOST_HELD));
        assert_eq!(redacted("[0-9]+", &text, 100), "before # after");
        assert_eq!(redacted("(?s)7.*", &text, 100), "before #");
    }

    #[test]
    fn letters_beyond_ascii_stay_whole() {
        let mut redactor = Redactor::new("é+x", "#".to_owned()).unwrap();
        let out: Vec<_> = ["aé", "éé", "xß", "é"].iter().map(|piece| redactor.push(piece).unwrap()).collect();
        assert_eq!(out, ["a", "", "#ß", ""]);
        assert_eq!(redactor.finish().unwrap(), "é");
    }

    #[test]
    fn patterns_that_cannot_be_kept_out_are_refused() {
        for pattern in ["a*", "(", "#", r"\bword\b", "[^x]"] {
            assert!(Redactor::new(pattern, "#".to_owned()).is_err(), "{pattern}");
        }
    }
}
