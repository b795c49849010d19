//! Text that records which of its bytes came from a conversation.

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;

use crate::budget::{Budget, Charge};
use crate::error::{Error, Result};

/// The origins of a text's bytes.
#[derive(Debug)]
enum Runs {
    /// All from the template.
    Template,
    /// All from foreign values.
    Foreign,
    /// These ranges, sorted, disjoint and not adjacent, are from foreign values; the rest is from the
    /// template.
    Mixed(Box<[Range<usize>]>),
}

#[derive(Debug)]
struct Inner {
    text: String,
    runs: Runs,
    ascii: bool,
    /// The number of characters, once it has been computed.
    chars: OnceCell<usize>,
    _charge: Option<Charge>,
}

/// An immutable text with the origin of its bytes. Cloning is cheap. Comparisons ignore the origin.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    inner: Rc<Inner>,
    /// Set for safe HTML (`markupsafe.Markup`): texts joined to it are escaped.
    markup: bool,
}

impl Text {
    fn of(text: String, runs: Runs, charge: Option<Charge>) -> Self {
        let ascii = text.is_ascii();
        Self {
            inner: Rc::new(Inner { text, runs, ascii, chars: OnceCell::new(), _charge: charge }),
            markup: false,
        }
    }

    /// Makes a short text that is from the template.
    pub(crate) fn template(text: &str) -> Self {
        Self::of(text.to_owned(), Runs::Template, None)
    }

    /// Makes a text that is from the input. It is not charged, because the caller holds the input anyway.
    pub(crate) fn foreign(text: &str) -> Self {
        Self::of(text.to_owned(), Runs::Foreign, None)
    }

    /// Makes a short text of either origin.
    pub(crate) fn new(text: &str, foreign: bool) -> Self {
        if foreign { Self::foreign(text) } else { Self::template(text) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.inner.text
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.text.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.text.is_empty()
    }

    pub(crate) fn is_ascii(&self) -> bool {
        self.inner.ascii
    }

    pub(crate) fn is_markup(&self) -> bool {
        self.markup
    }

    pub(crate) fn as_markup(&self, markup: bool) -> Self {
        Self { inner: Rc::clone(&self.inner), markup }
    }

    pub(crate) fn same_object(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// Returns a number that is unique to this object.
    pub(crate) fn object(&self) -> usize {
        Rc::as_ptr(&self.inner).addr()
    }

    /// The number of characters.
    pub(crate) fn chars(&self) -> usize {
        if self.inner.ascii {
            return self.len();
        }
        *self.inner.chars.get_or_init(|| self.inner.text.chars().count())
    }

    /// Returns the byte at which the character of an index begins; the length for an index behind the end.
    pub(crate) fn byte_of(&self, index: usize) -> usize {
        if self.inner.ascii {
            return index.min(self.len());
        }
        self.inner.text.char_indices().nth(index).map_or(self.len(), |(at, _)| at)
    }

    /// Returns whether any byte is foreign.
    pub(crate) fn any_foreign(&self) -> bool {
        !matches!(self.inner.runs, Runs::Template) && !self.is_empty()
    }

    /// Returns whether a byte is foreign.
    pub(crate) fn is_foreign(&self, at: usize) -> bool {
        match &self.inner.runs {
            Runs::Template => false,
            Runs::Foreign => true,
            Runs::Mixed(runs) => {
                let next = runs.partition_point(|run| run.end <= at);
                runs.get(next).is_some_and(|run| run.start <= at)
            }
        }
    }

    /// Splits a range into parts of one origin each, in order; the flag is set for foreign ones.
    pub(crate) fn parts(&self, range: Range<usize>) -> Vec<(Range<usize>, bool)> {
        if range.is_empty() {
            return Vec::new();
        }
        let runs = match &self.inner.runs {
            Runs::Template => return vec![(range, false)],
            Runs::Foreign => return vec![(range, true)],
            Runs::Mixed(runs) => runs,
        };
        let mut parts = Vec::new();
        let mut at = range.start;
        let first = runs.partition_point(|run| run.end <= at);
        for run in &runs[first..] {
            if run.start >= range.end {
                break;
            }
            if run.start > at {
                parts.push((at..run.start, false));
                at = run.start;
            }
            let end = run.end.min(range.end);
            parts.push((at..end, true));
            at = end;
        }
        if at < range.end {
            parts.push((at..range.end, false));
        }
        parts
    }

    /// Returns a range of bytes that begins and ends between characters.
    pub(crate) fn slice(&self, budget: &Rc<Budget>, range: Range<usize>) -> Result<Self> {
        if range == (0..self.len()) {
            return Ok(self.clone());
        }
        let mut out = Builder::new(budget);
        out.push_slice(self, range)?;
        Ok(out.finish().as_markup(self.markup))
    }

    /// Returns the text with every character replaced by what `map` writes for it.
    pub(crate) fn map_chars(
        &self,
        budget: &Rc<Budget>,
        mut map: impl FnMut(usize, char, &mut String),
    ) -> Result<Self> {
        // A character takes longer than a copied byte.
        budget.read(self.len().saturating_mul(8))?;
        let mut out = Builder::new(budget);
        let mut piece = String::new();
        for (part, foreign) in self.parts(0..self.len()) {
            for (at, c) in self.as_str()[part.clone()].char_indices() {
                map(part.start + at, c, &mut piece);
                if piece.len() > 1024 {
                    out.push_as(&piece, foreign)?;
                    piece.clear();
                }
            }
            out.push_as(&piece, foreign)?;
            piece.clear();
        }
        Ok(out.finish())
    }

    /// Returns the text and its foreign ranges.
    pub(crate) fn into_parts(self) -> (String, Vec<Range<usize>>) {
        let len = self.len();
        let runs = match &self.inner.runs {
            Runs::Template => Vec::new(),
            Runs::Foreign if len == 0 => Vec::new(),
            Runs::Foreign => std::iter::once(0..len).collect(),
            Runs::Mixed(runs) => runs.to_vec(),
        };
        let text = match Rc::try_unwrap(self.inner) {
            Ok(inner) => inner.text,
            Err(shared) => shared.text.clone(),
        };
        (text, runs)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// A text under construction.
#[derive(Debug)]
pub(crate) struct Builder {
    text: String,
    runs: Vec<Range<usize>>,
    budget: Rc<Budget>,
    charge: Option<Charge>,
}

impl Builder {
    pub(crate) fn new(budget: &Rc<Budget>) -> Self {
        Self { text: String::new(), runs: Vec::new(), budget: Rc::clone(budget), charge: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Takes the bytes that will be written from the budget.
    fn grow(&mut self, bytes: usize) -> Result<()> {
        match &mut self.charge {
            Some(charge) => charge.grow(bytes),
            None => {
                self.charge = Some(self.budget.charge(bytes + size_of::<Inner>())?);
                Ok(())
            }
        }
    }

    /// Appends text of one origin.
    pub(crate) fn push_as(&mut self, text: &str, foreign: bool) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.grow(text.len())?;
        let start = self.text.len();
        self.text.push_str(text);
        if foreign {
            match self.runs.last_mut() {
                Some(run) if run.end == start => run.end = self.text.len(),
                _ => {
                    self.grow(size_of::<Range<usize>>())?;
                    self.runs.push(start..self.text.len());
                }
            }
        }
        Ok(())
    }

    /// Appends text that is from the template.
    pub(crate) fn push_str(&mut self, text: &str) -> Result<()> {
        self.push_as(text, false)
    }

    pub(crate) fn push_char(&mut self, c: char, foreign: bool) -> Result<()> {
        self.push_as(c.encode_utf8(&mut [0; 4]), foreign)
    }

    /// Appends a text with the origin of its bytes.
    pub(crate) fn push(&mut self, text: &Text) -> Result<()> {
        self.push_slice(text, 0..text.len())
    }

    /// Appends a range of a text.
    pub(crate) fn push_slice(&mut self, text: &Text, range: Range<usize>) -> Result<()> {
        match &text.inner.runs {
            Runs::Template => self.push_as(&text.as_str()[range], false),
            Runs::Foreign => self.push_as(&text.as_str()[range], true),
            Runs::Mixed(_) => {
                for (part, foreign) in text.parts(range) {
                    self.push_as(&text.as_str()[part], foreign)?;
                }
                Ok(())
            }
        }
    }

    /// Appends a text several times.
    pub(crate) fn repeat(&mut self, text: &Text, times: usize) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let bytes = text.len().checked_mul(times).ok_or(Error::TooManyBytes)?;
        // Refuse at once if the result would exceed the budget.
        drop(self.budget.charge(bytes)?);
        let foreign = match text.inner.runs {
            Runs::Template => false,
            Runs::Foreign => true,
            Runs::Mixed(_) => return (0..times).try_for_each(|_| self.push(text)),
        };
        // Write short texts in pieces of about a kilobyte.
        let together = (1024 / text.len()).clamp(1, times.max(1));
        let piece = text.as_str().repeat(together);
        for _ in 0..times / together {
            self.push_as(&piece, foreign)?;
        }
        self.push_as(&piece[..times % together * text.len()], foreign)
    }

    pub(crate) fn finish(self) -> Text {
        let runs = match self.runs.as_slice() {
            [] => Runs::Template,
            [run] if *run == (0..self.text.len()) => Runs::Foreign,
            _ => Runs::Mixed(self.runs.into_boxed_slice()),
        };
        Text::of(self.text, runs, self.charge)
    }
}
