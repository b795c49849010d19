//! The tokens that may come next: those that a grammar allows, minus those that the request bans.

/// A set of token ids, one bit each. Ids from [`len`](Self::len) on are never in it, so the padding at the
/// end of a model's logits stays out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
    len: usize,
}

impl TokenMask {
    /// Creates the empty set over a vocabulary of `len` tokens.
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(32)], len }
    }

    /// Creates a set from bits: token `i` is in the set if bit `i % 32` of word `i / 32` is 1. Bits from
    /// `len` on are ignored.
    pub(crate) fn from_words(mut words: Vec<u32>, len: usize) -> Self {
        words.resize(len.div_ceil(32), 0);
        if !len.is_multiple_of(32)
            && let Some(last) = words.last_mut()
        {
            *last &= (1 << (len % 32)) - 1;
        }
        Self { words, len }
    }

    /// Adds a token. A token outside the vocabulary changes nothing.
    pub fn allow(&mut self, token: u32) {
        if (token as usize) < self.len {
            self.words[token as usize / 32] |= 1 << (token % 32);
        }
    }

    /// Returns whether a token is in the set.
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// The number of tokens in the vocabulary.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The number of tokens in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Returns the only token in the set; `None` if there are none or several.
    pub fn only(&self) -> Option<u32> {
        let at = self.words.iter().position(|&word| word != 0)?;
        let word = self.words[at];
        let alone = word.is_power_of_two() && self.words[at + 1..].iter().all(|&word| word == 0);
        alone.then(|| at as u32 * 32 + word.trailing_zeros())
    }
}

/// The number of tokens whose bits are in one word.
pub(super) const BLOCK: usize = 32;

/// The tokens that one choice is made from.
#[derive(Clone, Copy)]
pub(crate) struct Allowed<'a> {
    /// `None` allows every token, including padding.
    pub(crate) mask: Option<&'a TokenMask>,
    pub(crate) banned: Option<&'a TokenMask>,
}

impl Allowed<'_> {
    pub(crate) fn everything(&self) -> bool {
        self.mask.is_none() && self.banned.is_none()
    }

    pub(crate) fn allows(&self, token: u32) -> bool {
        self.word(token as usize / BLOCK) >> (token as usize % BLOCK) & 1 == 1
    }

    /// Returns which tokens of the [`BLOCK`] at `index` are allowed, a bit each.
    pub(super) fn word(&self, index: usize) -> u32 {
        let mask = self.mask.map_or(!0, |mask| mask.words.get(index).copied().unwrap_or(0));
        mask & !self.banned.and_then(|banned| banned.words.get(index).copied()).unwrap_or(0)
    }

    /// Calls `each` with every allowed token and its logit, in order of ids.
    pub(crate) fn for_each(&self, logits: &[f32], mut each: impl FnMut(u32, f32)) {
        for (index, block) in logits.chunks(BLOCK).enumerate() {
            self.for_each_of_block(index, block, &mut each);
        }
    }

    /// Calls `each` with the allowed tokens of the [`BLOCK`] at `index`. Masks mostly allow a few tokens or
    /// nearly all, so words of zeros or of ones are handled without a look at their bits.
    pub(crate) fn for_each_of_block(&self, index: usize, block: &[f32], mut each: impl FnMut(u32, f32)) {
        let mut word = self.word(index);
        let first = (index * BLOCK) as u32;
        if word == !0 {
            for (token, &logit) in (first..).zip(block) {
                each(token, logit);
            }
            return;
        }
        while word != 0 {
            let bit = word.trailing_zeros();
            word &= word - 1;
            if let Some(&logit) = block.get(bit as usize) {
                each(first + bit, logit);
            }
        }
    }

    /// Returns the lowest id among the likeliest allowed tokens; `None` if none is allowed. NaN counts as
    /// -infinity.
    pub(crate) fn argmax(&self, logits: &[f32]) -> Option<u32> {
        let mut best: Option<(u32, f32)> = None;
        self.for_each(logits, |token, logit| match best {
            Some((_, largest)) if logit <= largest || logit.is_nan() => {}
            _ => best = Some((token, if logit.is_nan() { f32::NEG_INFINITY } else { logit })),
        });
        best.map(|(token, _)| token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_is_the_set_that_was_put_in(
            len in 1usize..200, tokens in prop::collection::btree_set(0u32..220, 0..40), banned in prop::collection::btree_set(0u32..220, 0..40), extra in 0usize..40,
        ) {
            let set = |tokens: &std::collections::BTreeSet<u32>| {
                let mut mask = TokenMask::none(len);
                tokens.iter().for_each(|&t| mask.allow(t));
                mask
            };
            let inside: Vec<u32> = tokens.iter().copied().filter(|&t| (t as usize) < len).collect();
            let mask = set(&tokens);
            prop_assert_eq!(mask.count(), inside.len());
            prop_assert_eq!(mask.is_empty(), inside.is_empty());
            prop_assert_eq!(mask.only(), (inside.len() == 1).then(|| inside[0]));
            prop_assert!((0..300).all(|t| mask.allows(t) == inside.contains(&t)));
            prop_assert_eq!(&TokenMask::from_words(mask.words.iter().copied().chain([!0]).collect(), len), &mask);
            let banned = set(&banned);
            let allowed = Allowed { mask: Some(&mask), banned: Some(&banned) };
            let mut seen = Vec::new();
            let logits = vec![0.0; len + extra];
            allowed.for_each(&logits, |token, _| seen.push(token));
            let wanted: Vec<u32> = inside.iter().copied().filter(|&t| !banned.allows(t)).collect();
            prop_assert_eq!(allowed.argmax(&logits), wanted.first().copied());
            prop_assert_eq!(seen, wanted);
        }
    }
}
