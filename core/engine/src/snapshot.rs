//! A sequence as bytes: its tokens, and the keys and values that were computed for them.
//!
//! Layout, little-endian: the magic `RLMSEQ01`; a fingerprint of the model and its cache (u64); the number of tokens (u32),
//! of cached tokens (u32), of page entries (u32) and bytes in a page (u32); the tokens (u32 each); for every page
//! entry a byte that says whether its contents follow, and the contents.

use std::hash::{DefaultHasher, Hash, Hasher};

use realm_compute::{CacheType, NO_PAGE, PAGE_TOKENS};
use realm_model::{Forward, Weights};

use crate::Error;
use crate::task::Task;

const MAGIC: &[u8; 8] = b"RLMSEQ01";
const HEADER: usize = MAGIC.len() + 8 + 4 * 4;

/// A sequence outside the cache.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) tokens: Vec<u32>,
    pub(crate) cached: usize,
    /// One group's pages after the other's; `None` where a window has passed.
    pub(crate) pages: Vec<Option<Vec<u8>>>,
}

/// What has to be the same where a sequence is restored. Two files of one shape and name are taken for the same model.
pub(crate) fn fingerprint(weights: &dyn Weights, kind: CacheType) -> u64 {
    let model = weights.config();
    let mut hasher = DefaultHasher::new();
    (&model.name, model.architecture.name(), model.parameters, model.layers, model.vocab).hash(&mut hasher);
    (model.kv_heads, model.head_dim, model.rope_freq_base.to_bits()).hash(&mut hasher);
    // Pages are in the order of the device that wrote them.
    (format!("{kind:?}"), weights.device().split(' ').next(), PAGE_TOKENS).hash(&mut hasher);
    hasher.finish()
}

impl Snapshot {
    /// Copies what a task holds. Keys and values that an adapter took part in are left out and computed again.
    pub(crate) fn take(task: &Task, runner: &dyn Forward) -> Result<Self, Error> {
        let tokens = task.tokens.clone();
        if task.adapter.is_some() || task.cached == 0 {
            return Ok(Self { tokens, cached: 0, pages: Vec::new() });
        }
        let whole = task.cached.div_ceil(PAGE_TOKENS);
        let mut pages = Vec::new();
        for &page in task.pages.groups().iter().flat_map(|table| &table[..whole]) {
            let mut bytes = Vec::new();
            if page != NO_PAGE {
                runner.export_page(page, &mut bytes).map_err(|e| Error::Model(e.to_string()))?;
            }
            pages.push((page != NO_PAGE).then_some(bytes));
        }
        Ok(Self { tokens, cached: task.cached, pages })
    }

    pub(crate) fn to_bytes(&self, fingerprint: u64) -> Vec<u8> {
        let page_bytes = self.pages.iter().flatten().next().map_or(0, Vec::len);
        let mut out =
            Vec::with_capacity(HEADER + 4 * self.tokens.len() + self.pages.len() * (1 + page_bytes));
        out.extend(MAGIC);
        out.extend(fingerprint.to_le_bytes());
        for number in [self.tokens.len(), self.cached, self.pages.len(), page_bytes] {
            out.extend((number as u32).to_le_bytes());
        }
        out.extend(self.tokens.iter().flat_map(|token| token.to_le_bytes()));
        for page in &self.pages {
            out.push(page.is_some().into());
            out.extend(page.iter().flatten());
        }
        out
    }

    /// Reads what [`Snapshot::to_bytes`] wrote, for a model with so many groups of layers and tokens in its vocabulary.
    pub(crate) fn from_bytes(
        bytes: &[u8],
        fingerprint: u64,
        groups: usize,
        vocabulary: usize,
    ) -> Result<Self, Error> {
        let bad =
            |why: &str| Error::InvalidArgument(format!("this is no saved sequence of this model: {why}"));
        let (header, mut rest) = bytes.split_at_checked(HEADER).ok_or_else(|| bad("it is too short"))?;
        if &header[..8] != MAGIC {
            return Err(bad("it does not begin with RLMSEQ01"));
        }
        if header[8..16] != fingerprint.to_le_bytes() {
            return Err(bad("it was made with another model, device or cache type"));
        }
        let number = |i: usize| -> usize {
            let at = 16 + 4 * i;
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize
        };
        let [len, cached, entries, page_bytes] = [0, 1, 2, 3].map(number);
        if cached > len || entries != groups * cached.div_ceil(PAGE_TOKENS) {
            return Err(bad("its numbers of tokens and pages do not go together"));
        }
        let mut take = |n: usize| -> Result<&[u8], Error> {
            let (now, later) = rest.split_at_checked(n).ok_or_else(|| bad("it ends too early"))?;
            rest = later;
            Ok(now)
        };
        let (tokens, _) = take(4 * len)?.as_chunks();
        let tokens: Vec<u32> = tokens.iter().map(|&token| u32::from_le_bytes(token)).collect();
        if tokens.iter().any(|&token| token as usize >= vocabulary) {
            return Err(bad("a token is not in the vocabulary"));
        }
        let mut pages = Vec::new();
        for _ in 0..entries {
            let present = take(1)? == [1];
            pages.push(if present { Some(take(page_bytes)?.to_vec()) } else { None });
        }
        if rest.is_empty() {
            Ok(Self { tokens, cached, pages })
        } else {
            Err(bad("it goes on after its end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Snapshot {
        let pages = vec![Some(vec![7; 12]), None, Some(vec![9; 12]), Some(vec![1; 12])];
        Snapshot { tokens: (0..50).collect(), cached: 40, pages }
    }

    #[test]
    fn what_was_saved_is_restored() {
        let bytes = sample().to_bytes(5);
        assert_eq!(Snapshot::from_bytes(&bytes, 5, 2, 50).unwrap(), sample());
        assert!(Snapshot::from_bytes(&bytes, 6, 2, 50).is_err());
        assert!(Snapshot::from_bytes(&bytes, 5, 3, 50).is_err());
        assert!(Snapshot::from_bytes(&bytes, 5, 2, 49).is_err());
        for len in 0..bytes.len() {
            assert!(Snapshot::from_bytes(&bytes[..len], 5, 2, 50).is_err());
        }
    }

    proptest! {
        #[test]
        fn damage_never_crashes(at in 0usize..400, value: u8) {
            let mut bytes = sample().to_bytes(5);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Snapshot::from_bytes(&bytes, 5, 2, 50);
        }
    }
}
