//! Sets of characters.

/// Ranges of code points, in order and apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chars(Vec<(u32, u32)>);

const LAST: u32 = char::MAX as u32;

impl Chars {
    pub(super) fn one(c: char) -> Self {
        Self(vec![(c as u32, c as u32)])
    }

    pub(super) fn all() -> Self {
        Self(vec![(0, LAST)])
    }

    pub(super) fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    pub(super) fn not(&self) -> Self {
        let mut next = 0;
        let mut ranges = Vec::new();
        for &(from, to) in &self.0 {
            if from > next {
                ranges.push((next, from - 1));
            }
            next = to + 1;
        }
        if next <= LAST {
            ranges.push((next, LAST));
        }
        Self(ranges)
    }

    pub(super) fn add(&mut self, other: &Self) -> bool {
        let both = Self::from_ranges([&self.0[..], &other.0[..]].concat());
        let grown = both != *self;
        *self = both;
        grown
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            if x.0 <= y.1 && y.0 <= x.1 {
                return true;
            }
            if x.1 < y.1 {
                a.next()
            } else {
                b.next()
            };
        }
        false
    }

    /// Returns a class of a regular expression, without surrogates, which are no characters.
    pub(super) fn regex(&self) -> String {
        let mut class = String::from("[");
        for &(from, to) in &self.0 {
            for (from, to) in [(from, to.min(0xd7ff)), (from.max(0xe000), to)] {
                if from <= to {
                    class += &format!("\\x{{{from:x}}}-\\x{{{to:x}}}");
                }
            }
        }
        class + "]"
    }
}
