//! The border of the first candidates that reach a given weight together, found without sorting.

/// The last candidate that is kept, in the order of keys, and of tokens where keys are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Border {
    pub(crate) key: u32,
    pub(crate) token: u32,
}

/// Finds borders. Its memory is reused from token to token.
#[derive(Default)]
pub(crate) struct Borders {
    /// The indices of the candidates that the border is among.
    members: Vec<u32>,
    buckets: Vec<Bucket>,
}

/// At most this many candidates are sorted; more are divided again.
const SORTED: usize = 512;

/// Sums of a bucket. With several, adding a number need not wait for the last sum of the same bucket.
const LANES: usize = 4;

type Bucket = [f64; LANES];

/// Keys are divided by their first 12 bits, the next 10 and the last 10: at most three passes, for any keys.
const FIRST: u32 = 20;
const NEXT: [u32; 2] = [10, 0];

impl Borders {
    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        self.members.capacity() * size_of::<u32>() + self.buckets.capacity() * size_of::<Bucket>()
    }

    /// Returns the border of the shortest beginning that reaches the weight `enough`, or of all candidates
    /// with any weight if they do not reach it. Takes linear time, given that tokens are in order where more
    /// than [`SORTED`] candidates have equal keys: sorting them then finds them sorted.
    pub(crate) fn find(&mut self, keys: &[u32], weights: &[f32], tokens: &[u32], enough: f64) -> Border {
        let mut before = 0.0;
        self.members.clear();
        if keys.len() <= SORTED {
            self.members.extend(0..keys.len() as u32);
        } else {
            let entries = keys.iter().copied().zip(weights.iter().copied());
            let bucket = self.bucket::<{ 1 << 12 }>(FIRST, entries, &mut before, enough);
            self.collect(keys, FIRST, bucket);
            for shift in NEXT {
                if self.members.len() <= SORTED || self.equal(keys) {
                    break;
                }
                let members = std::mem::take(&mut self.members);
                let entries = members.iter().map(|&at| (keys[at as usize], weights[at as usize]));
                let bucket = self.bucket::<{ 1 << 10 }>(shift, entries, &mut before, enough);
                self.members = members;
                self.members.retain(|&at| keys[at as usize] >> shift & 0x3ff == bucket);
            }
        }
        let border = |at: u32| Border { key: keys[at as usize], token: tokens[at as usize] };
        self.members.sort_unstable_by_key(|&at| border(at));
        let mut last = None;
        for &at in &self.members {
            let weight = weights[at as usize];
            before += f64::from(weight);
            if weight > 0.0 || last.is_none() {
                last = Some(at);
            }
            if weight > 0.0 && before >= enough {
                break;
            }
        }
        last.map_or(Border { key: u32::MAX, token: u32::MAX }, border)
    }

    /// Collects the indices of the keys in one bucket.
    fn collect(&mut self, keys: &[u32], shift: u32, bucket: u32) {
        self.members.resize(keys.len(), 0);
        let mut count = 0;
        for (index, block) in keys.chunks(16).enumerate() {
            if !block.iter().fold(false, |any, key| any | (key >> shift == bucket)) {
                continue;
            }
            for (at, key) in (index as u32 * 16..).zip(block) {
                // Membership of the bucket is as good as random, so no branch depends on it.
                self.members[count] = at;
                count += usize::from(key >> shift == bucket);
            }
        }
        self.members.truncate(count);
    }

    /// Returns whether all members have one key.
    fn equal(&self, keys: &[u32]) -> bool {
        let mut members = self.members.iter().map(|&at| keys[at as usize]);
        members.next().is_none_or(|first| members.all(|key| key == first))
    }

    /// Returns the first bucket up to which the weight reaches `enough`, or the last one with any weight.
    /// Adds the weight of the buckets before it to `before`.
    fn bucket<const BUCKETS: usize>(
        &mut self,
        shift: u32,
        entries: impl Iterator<Item = (u32, f32)>,
        before: &mut f64,
        enough: f64,
    ) -> u32 {
        self.buckets.clear();
        self.buckets.resize(BUCKETS, [0.0; LANES]);
        let Some(sums) = self.buckets.first_chunk_mut::<BUCKETS>() else { return 0 };
        for (place, (key, weight)) in entries.enumerate() {
            sums[(key >> shift) as usize % BUCKETS][place % LANES] += f64::from(weight);
        }
        let (mut last, mut until, mut sum) = (0, *before, *before);
        for (bucket, lanes) in self.buckets.iter().enumerate() {
            let weight: f64 = lanes.iter().sum();
            if weight != 0.0 {
                (last, until) = (bucket, sum);
                sum += weight;
                if sum >= enough {
                    break;
                }
            }
        }
        *before = until;
        last as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_where_sorting_would_have_found_it(
            entries in prop::collection::vec((prop_oneof![Just(7), 0u32..50, any::<u32>(), (0f32..20.0).prop_map(f32::to_bits)], 0u8..9), 1..3000),
            enough in 0f64..1.1,
        ) {
            let (keys, weights): (Vec<u32>, Vec<u8>) = entries.into_iter().unzip();
            // Whole weights, of which sums are exact.
            let weights: Vec<f32> = weights.into_iter().map(f32::from).collect();
            let tokens: Vec<u32> = (0..keys.len() as u32).collect();
            let mut sorted = tokens.clone();
            sorted.sort_by_key(|&at| (keys[at as usize], at));
            let enough = (enough * f64::from(weights.iter().sum::<f32>())).floor().max(1.0);
            let mut weight = 0.0;
            let reached = sorted.iter().find(|&&at| {
                weight += f64::from(weights[at as usize]);
                weight >= enough
            });
            let found = Borders::default().find(&keys, &weights, &tokens, enough);
            match reached {
                Some(&at) => prop_assert_eq!(found, Border { key: keys[at as usize], token: at }),
                None => {
                    let behind = |at: &&u32| Border { key: keys[**at as usize], token: **at } > found;
                    prop_assert!(tokens.iter().filter(behind).all(|&at| weights[at as usize] == 0.0));
                }
            }
        }
    }
}
