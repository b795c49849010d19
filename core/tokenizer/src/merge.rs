//! Joins neighbors, best pair first, until no pair joins: the loop that byte-pair encoding and SentencePiece
//! share.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A piece of text that may still be joined. Pieces form a list; an absorbed piece has `len` 0.
#[derive(Clone, Copy)]
pub(crate) struct Symbol {
    /// The piece's token, or [`NONE`] if no token spells it.
    pub(crate) id: u32,
    /// Where the piece starts in the text, in bytes.
    pub(crate) start: u32,
    /// Length in bytes.
    pub(crate) len: u32,
    previous: u32,
    next: u32,
}

/// No symbol, or no token.
pub(crate) const NONE: u32 = u32::MAX;

/// A pair that could be joined.
#[derive(PartialEq, Eq)]
struct Candidate {
    /// The lowest rank is joined first.
    rank: u32,
    left: u32,
    /// Length of the pair in bytes when it was found: the candidate is stale if the length has changed.
    len: u32,
    id: u32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        // `BinaryHeap` yields the greatest, which is the lowest rank, then the leftmost.
        (other.rank, other.left).cmp(&(self.rank, self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Work memory, kept from word to word.
#[derive(Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Candidate>,
}

impl Merger {
    /// Starts a new text.
    pub(crate) fn clear(&mut self) {
        self.symbols.clear();
        self.heap.clear();
    }

    /// Appends a symbol.
    pub(crate) fn push(&mut self, id: u32, start: usize, len: usize) {
        let at = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let previous = at.wrapping_sub(1);
        self.symbols.push(Symbol { id, start: start as u32, len: len as u32, previous, next: NONE });
    }

    /// Joins pairs, lowest rank first and leftmost among equals, as long as `join(left, right)` returns a
    /// rank and the joined token. Takes O(n log n) for n symbols.
    pub(crate) fn run(&mut self, mut join: impl FnMut(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let mut found = std::mem::take(&mut self.heap).into_vec();
        for (i, pair) in self.symbols.windows(2).enumerate() {
            if let Some((rank, id)) = join(&pair[0], &pair[1]) {
                found.push(Candidate { rank, left: i as u32, len: pair[0].len + pair[1].len, id });
            }
        }
        self.heap = BinaryHeap::from(found);
        while let Some(best) = self.heap.pop() {
            let left = self.symbols[best.left as usize];
            if left.len == 0 || left.next == NONE {
                continue;
            }
            let right = self.symbols[left.next as usize];
            if left.len + right.len != best.len {
                continue;
            }
            self.symbols[left.next as usize].len = 0;
            let joined = Symbol { id: best.id, len: best.len, next: right.next, ..left };
            self.symbols[best.left as usize] = joined;
            if let Some(after) = self.symbols.get_mut(right.next as usize) {
                after.previous = best.left;
                let after = *after;
                self.consider(best.left, joined, after, &mut join);
            }
            if joined.previous != NONE {
                self.consider(joined.previous, self.symbols[joined.previous as usize], joined, &mut join);
            }
        }
    }

    fn consider(
        &mut self,
        at: u32,
        left: Symbol,
        right: Symbol,
        join: &mut impl FnMut(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) {
        if let Some((rank, id)) = join(&left, &right) {
            self.heap.push(Candidate { rank, left: at, len: left.len + right.len, id });
        }
    }

    /// The remaining symbols, in order.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|s| s.len > 0)
    }
}
