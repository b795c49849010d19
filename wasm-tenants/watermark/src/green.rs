//! Chooses the green tokens.

use realm_tenant::{Error, Result, Token};

/// A key's green tokens. A hash of the key, the previous token and the token itself decides whether a token
/// is green, so a detector need not know the vocabulary.
pub(crate) struct Green {
    key: u64,
    /// Tokens with a hash below this are green.
    threshold: u64,
    pub(crate) gamma: f64,
}

impl Green {
    /// Creates the set of a key; `gamma` is the fraction of tokens that are green.
    pub(crate) fn new(key: u64, gamma: f64) -> Result<Self> {
        if !(gamma > 0.0 && gamma < 1.0) {
            return Err(Error::invalid(format!("gamma is {gamma}; it must be above 0 and below 1")));
        }
        Ok(Self { key: mix(key), threshold: (gamma * u64::MAX as f64) as u64, gamma })
    }

    /// Returns whether `token` is green after `previous`.
    pub(crate) fn contains(&self, previous: Token, token: Token) -> bool {
        self.is_green(self.seed(previous), token)
    }

    /// Returns all green tokens after `previous`.
    pub(crate) fn after(&self, previous: Token, vocabulary: u32) -> impl Iterator<Item = Token> {
        let seed = self.seed(previous);
        (0..vocabulary).filter(move |&token| self.is_green(seed, token))
    }

    fn seed(&self, previous: Token) -> u64 {
        mix(self.key ^ u64::from(previous))
    }

    fn is_green(&self, seed: u64, token: Token) -> bool {
        mix(seed ^ u64::from(token)) < self.threshold
    }
}

/// One step of SplitMix64 (Steele et al., 2014): every bit of the result depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_tokens_are_green_as_gamma_says_and_others_after_another_token_or_with_another_key() {
        let green = Green::new(7, 0.25).unwrap();
        let list = |previous| green.after(previous, 50_000).collect::<Vec<_>>();
        let (a, b) = (list(1), list(2));
        for list in [&a, &b] {
            assert!((12_000..13_000).contains(&list.len()), "{}", list.len());
        }
        assert!(a.iter().all(|&token| green.contains(1, token)));
        let both = a.iter().filter(|&&token| green.contains(2, token)).count();
        assert!((2_500..3_800).contains(&both), "{both} of {} are green after both", a.len());
        let other = Green::new(8, 0.25).unwrap();
        let both = a.iter().filter(|&&token| other.contains(1, token)).count();
        assert!((2_500..3_800).contains(&both), "{both} of {} are green with both keys", a.len());
    }

    #[test]
    fn a_share_that_is_none_is_refused() {
        for gamma in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(Green::new(1, gamma).is_err());
        }
    }
}
