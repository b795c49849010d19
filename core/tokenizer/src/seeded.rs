//! A hash with a random seed. A model's file determines tokens and merges; with a known hash, it could put
//! all of them in one place of a table, so that reading them would take time quadratic in their number.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers with one common seed.
#[derive(Clone)]
pub(crate) struct Seeded {
    start: u64,
    factor: u64,
}

impl Default for Seeded {
    fn default() -> Self {
        let random = RandomState::new();
        Self { start: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { state: self.start, factor: self.factor }
    }
}

/// Multiplies by a secret factor and adds both halves of the product, word for word, like wyhash. The
/// standard library's hash takes several times as long, and encoding looks up a merge for every pair of
/// symbols.
pub(crate) struct Folding {
    state: u64,
    factor: u64,
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_and_pairs_have_hashes_of_their_own_that_differ_from_run_to_run() {
        let (one, other) = (Seeded::default(), Seeded::default());
        assert_ne!(one.hash_one(b"token".as_slice()), other.hash_one(b"token".as_slice()));
        // In separate sets: the hasher does not distinguish a short token from a pair of its length and its
        // bytes.
        let tokens: HashSet<u64> = (0..100).map(|len| one.hash_one(vec![0u8; len].as_slice())).collect();
        assert_eq!(tokens.len(), 100);
        let pairs: HashSet<u64> = (0..10_000u32).map(|i| one.hash_one((i / 100, i % 100))).collect();
        assert_eq!(pairs.len(), 10_000);
    }
}
