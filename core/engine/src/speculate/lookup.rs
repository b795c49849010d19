//! Prompt lookup: the tokens that followed an earlier occurrence of the last tokens are likely to follow
//! again (Saxena, 'Prompt Lookup Decoding', 2023).
//!
//! The index maps every sequence of 2, 4 and 8 tokens to the end of its latest occurrence. A token costs
//! three entries of a hash map, and a look-up costs three queries and a comparison of at most [`LONGEST`]
//! tokens.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// Lengths of the indexed sequences, longest first.
const GRAMS: [usize; 3] = [8, 4, 2];

/// The most tokens that are compared between two occurrences.
pub(super) const LONGEST: usize = 32;

/// The most tokens that are indexed between two steps, so that a very long prompt delays no other request.
const INDEXED_AT_ONCE: usize = 4096;

/// An index over the tokens of one sequence, which only grows.
#[derive(Default)]
pub(super) struct Lookup {
    /// For each length, the end of the latest occurrence other than the end of the text itself.
    ends: [HashMap<u64, u32, FxBuildHasher>; GRAMS.len()],
    /// Occurrences up to this end are in the index.
    indexed: usize,
    cursor: Option<Cursor>,
}

/// The passage that the text follows.
#[derive(Clone, Copy)]
struct Cursor {
    /// The index of the token that may come next.
    at: usize,
    /// The length of the text at that time.
    len: usize,
    /// True if the last token differed from the passage's: an edit of one token, perhaps.
    strayed: bool,
}

/// A continuation that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// The index of its first token.
    pub(super) at: usize,
    /// The number of tokens before it that match the end of the text, up to [`LONGEST`].
    pub(super) matched: usize,
}

impl Lookup {
    /// Bytes of memory that the index takes.
    pub(super) fn memory(&self) -> usize {
        self.ends.iter().map(|ends| ends.allocation_size()).sum()
    }

    /// Indexes new tokens, and finds the passage that most likely continues the text.
    pub(super) fn find(&mut self, tokens: &[u32]) -> Option<Found> {
        self.follow(tokens);
        self.index(tokens);
        let cursor = self.cursor.map(|cursor| Found { at: cursor.at, matched: matched(tokens, cursor.at) });
        // The passage that was right so far wins unless another one matches more of the text.
        let found = match (cursor, self.longest(tokens)) {
            (Some(cursor), Some(other)) if other.matched > cursor.matched => Some(other),
            (None, other) => other,
            (cursor, _) => cursor,
        }?;
        if cursor.is_none_or(|cursor| cursor.at != found.at) {
            self.cursor = Some(Cursor { at: found.at, len: tokens.len(), strayed: false });
        }
        Some(found)
    }

    /// Moves the cursor along with the new tokens. It passes over one token that differs, and ends at two in
    /// a row.
    fn follow(&mut self, tokens: &[u32]) {
        let Some(cursor) = &mut self.cursor else { return };
        for &token in &tokens[cursor.len.min(tokens.len())..] {
            let same = tokens[cursor.at] == token;
            if !same && cursor.strayed {
                self.cursor = None;
                return;
            }
            cursor.strayed = !same;
            cursor.at += 1;
        }
        cursor.len = tokens.len();
    }

    fn index(&mut self, tokens: &[u32]) {
        // The end of the text itself is no earlier occurrence.
        let until = tokens.len().saturating_sub(1).min(self.indexed + INDEXED_AT_ONCE);
        for end in self.indexed + 1..=until {
            for (ends, length) in self.ends.iter_mut().zip(GRAMS) {
                if let Some(start) = end.checked_sub(length) {
                    ends.insert(key(&tokens[start..end]), end as u32);
                }
            }
        }
        self.indexed = self.indexed.max(until);
    }

    /// Returns the earlier occurrence with the longest match to the end of the text.
    fn longest(&self, tokens: &[u32]) -> Option<Found> {
        let candidates = self.ends.iter().zip(GRAMS).filter_map(|(ends, length)| {
            let start = tokens.len().checked_sub(length)?;
            let at = *ends.get(&key(&tokens[start..]))? as usize;
            let matched = matched(tokens, at);
            // Two sequences may have one key.
            (matched >= length).then_some(Found { at, matched })
        });
        candidates.reduce(|best, other| if other.matched > best.matched { other } else { best })
    }
}

/// Returns `most` tokens from `at` on. At the end of the text it continues with the tokens taken so far: a
/// text that repeats itself does so again.
pub(super) fn continuation(tokens: &[u32], at: usize, most: usize) -> Vec<u32> {
    let mut taken: Vec<u32> = Vec::with_capacity(most);
    for i in at..at + most {
        taken.push(if i < tokens.len() { tokens[i] } else { taken[i - tokens.len()] });
    }
    taken
}

/// The number of tokens before `at` that match the end.
fn matched(tokens: &[u32], at: usize) -> usize {
    let (there, here) = (tokens[..at].iter().rev(), tokens.iter().rev());
    there.zip(here).take(LONGEST).take_while(|(a, b)| a == b).count()
}

/// Returns a key that is exact for two tokens and a hash for more.
fn key(tokens: &[u32]) -> u64 {
    tokens.iter().fold(0, |key: u64, &token| {
        if tokens.len() <= 2 {
            key << 32 | u64::from(token)
        } else {
            (key.rotate_left(23) ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// For each length the latest earlier occurrence, and of these the one with the longest match.
    fn naive(tokens: &[u32]) -> Option<Found> {
        let n = tokens.len();
        let mut best: Option<Found> = None;
        for length in GRAMS.into_iter().filter(|&length| length <= n) {
            let end = (length..n).rev().find(|&end| tokens[end - length..end] == tokens[n - length..]);
            let Some(at) = end else { continue };
            let matched =
                (0..at.min(LONGEST)).take_while(|&i| tokens[at - 1 - i] == tokens[n - 1 - i]).count();
            if best.is_none_or(|best| matched > best.matched) {
                best = Some(Found { at, matched });
            }
        }
        best
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_search_finds(
            tokens in prop::collection::vec(0u32..4, 1..200), steps in prop::collection::vec(1usize..9, 1..40),
        ) {
            let (mut lookup, mut len) = (Lookup::default(), 0);
            for step in steps {
                len = (len + step).min(tokens.len());
                let text = &tokens[..len];
                let found = lookup.find(text);
                let searched = naive(text);
                prop_assert_eq!(lookup.longest(text), searched);
                // The passage that is followed may be another one with an equally long match, or one after a
                // single difference.
                if let Some(searched) = searched {
                    prop_assert!(found.is_some_and(|found| found.matched >= searched.matched));
                }
                if let Some(found) = found {
                    prop_assert!(found.at < len);
                    prop_assert_eq!(found.matched, matched(text, found.at));
                    let next = continuation(text, found.at, 20);
                    let period = len - found.at;
                    prop_assert!((0..20).all(|i| next[i] == text[found.at + i % period]));
                }
            }
        }
    }

    #[test]
    fn a_copy_with_one_token_changed_is_followed_beyond_the_change() {
        let original: Vec<u32> = (100..140).collect();
        let mut lookup = Lookup::default();
        let mut text = [&original[..], &[1, 2], &original[..10]].concat();
        assert_eq!(lookup.find(&text), Some(Found { at: 10, matched: 10 }));
        text.push(7);
        assert_eq!(lookup.find(&text), Some(Found { at: 11, matched: 0 }));
        text.push(111);
        assert_eq!(lookup.find(&text), Some(Found { at: 12, matched: 1 }));
        // Two changes in a row are a different text.
        text.extend([7, 8]);
        assert_eq!(lookup.find(&text), None);
    }

    #[test]
    fn a_long_prompt_is_indexed_in_parts() {
        let prompt: Vec<u32> = (0..10_000).chain([9_000, 9_001]).collect();
        let mut lookup = Lookup::default();
        assert_eq!(lookup.find(&prompt), None);
        assert_eq!(lookup.find(&prompt), None);
        assert_eq!(lookup.find(&prompt), Some(Found { at: 9_002, matched: 2 }));
    }
}
