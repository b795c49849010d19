//! The choice of a row's experts, and the groups of rows by expert.

use std::ops::Range;

use super::super::Isa;
use super::super::activations::tiles as count_of_tiles;
use super::super::elementwise;
use super::super::lanes::{F32x8, LANES, versions};
use crate::{Activation, Gating, GroupRank, Groups, Routing};

/// An expert of a row, and its weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Choice {
    pub(super) expert: u32,
    pub(super) weight: f32,
}

#[inline(always)]
fn softmax_body(x: &mut [f32]) {
    let most = x.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
    let mut sums = F32x8::ZERO;
    let mut chunks = x.chunks_exact_mut(LANES);
    for x in &mut chunks {
        let e = F32x8::load(x).sub(F32x8::splat(most)).exp();
        e.store(x);
        sums = sums.add(e);
    }
    let mut sum = sums.sum();
    for x in chunks.into_remainder() {
        *x = F32x8::splat(*x - most).exp().0[0];
        sum += *x;
    }
    for x in x {
        *x /= sum;
    }
}
versions! {
    /// `x = softmax(x)`.
    fn softmax(x: &mut [f32]) = softmax_body
}

/// Chooses a row's experts by their scores, and fills `chosen` in the order of their numbers. `scores` is
/// overwritten; `ranks` has room for a number for each group.
pub(super) fn choose(
    isa: Isa,
    routing: &Routing,
    scores: &mut [f32],
    bias: Option<&[f32]>,
    ranks: &mut [f32],
    chosen: &mut [Choice],
) {
    match routing.gating {
        Gating::Softmax => softmax(isa, scores),
        Gating::Sigmoid => elementwise::activation(isa, Activation::Sigmoid, scores),
        Gating::SoftmaxOfChosen => {}
    }
    let key = |expert: usize| {
        let key = scores[expert] + bias.map_or(0.0, |bias| bias[expert]);
        if key.is_nan() { f32::NEG_INFINITY } else { key }
    };
    let mut best = Best { list: chosen, len: 0 };
    match routing.groups {
        None => (0..scores.len()).for_each(|expert| best.offer(expert, key(expert))),
        Some(Groups { count, used, rank: by }) => {
            let size = scores.len() / count;
            for (group, rank) in ranks.iter_mut().enumerate() {
                let mut two = [f32::NEG_INFINITY; 2];
                for key in (group * size..(group + 1) * size).map(key) {
                    if key > two[0] {
                        two = [key, two[0]];
                    } else if key > two[1] {
                        two[1] = key;
                    }
                }
                *rank = if size > 1 && by == GroupRank::BestTwo { two[0] + two[1] } else { two[0] };
            }
            for group in 0..count {
                let better = |&other: &usize| {
                    ranks[other] > ranks[group] || (ranks[other] == ranks[group] && other < group)
                };
                if (0..count).filter(better).count() < used {
                    (group * size..(group + 1) * size).for_each(|expert| best.offer(expert, key(expert)));
                }
            }
        }
    }
    chosen.sort_unstable_by_key(|choice| choice.expert);
    weigh(isa, routing, scores, chosen);
}

/// Gives the chosen experts their weights.
fn weigh(isa: Isa, routing: &Routing, probabilities: &[f32], chosen: &mut [Choice]) {
    if routing.gating == Gating::SoftmaxOfChosen {
        let most = chosen.iter().map(|c| probabilities[c.expert as usize]).fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for choice in &mut *chosen {
            let mut e = [probabilities[choice.expert as usize] - most];
            exponential(isa, &mut e);
            choice.weight = e[0];
            sum += e[0];
        }
        chosen.iter_mut().for_each(|choice| choice.weight /= sum);
    } else {
        for choice in &mut *chosen {
            choice.weight = probabilities[choice.expert as usize];
        }
    }
    if routing.normalize {
        let sum: f32 = chosen.iter().map(|choice| choice.weight).sum();
        chosen.iter_mut().for_each(|choice| choice.weight /= sum.max(f32::MIN_POSITIVE));
    }
    chosen.iter_mut().for_each(|choice| choice.weight *= routing.scale);
}

#[inline(always)]
fn exponential_body(x: &mut [f32; 1]) {
    x[0] = F32x8::splat(x[0]).exp().0[0];
}
versions! {
    /// `x = e^x` of one number.
    fn exponential(x: &mut [f32; 1]) = exponential_body
}

/// The highest keys so far, the highest first, as weights.
struct Best<'a> {
    list: &'a mut [Choice],
    len: usize,
}

impl Best<'_> {
    /// Keeps an expert if its key is among the highest. Experts come in the order of their numbers; of equal
    /// keys the first one is kept.
    #[inline]
    fn offer(&mut self, expert: usize, key: f32) {
        if self.len == self.list.len() {
            if key <= self.list[self.len - 1].weight {
                return;
            }
        } else {
            self.len += 1;
        }
        let mut at = self.len - 1;
        while at > 0 && self.list[at - 1].weight < key {
            self.list[at] = self.list[at - 1];
            at -= 1;
        }
        self.list[at] = Choice { expert: expert as u32, weight: key };
    }
}

/// A row of an expert's group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pair {
    pub(super) row: u32,
    pub(super) weight: f32,
}

/// The rows of one expert.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) expert: usize,
    /// The group's pairs among those of all groups.
    pub(super) pairs: Range<usize>,
    /// The group's first row in the quantized input.
    pub(super) input: usize,
}

/// All rows by expert.
#[derive(Default)]
pub(super) struct Grouped {
    /// By expert, and for an expert by row.
    pub(super) pairs: Vec<Pair>,
    /// Experts that have rows, in the order of their numbers.
    pub(super) groups: Vec<Group>,
    /// The index of each choice's pair, `[rows][used]`, and that of its group.
    pub(super) places: Vec<[u32; 2]>,
    /// The tiles of all groups' rows: a group's index, and the number of its tile.
    pub(super) tiles: Vec<[u32; 2]>,
    /// Indices of groups, the one with the most rows first.
    pub(super) largest_first: Vec<u32>,
    starts: Vec<u32>,
}

impl Grouped {
    /// Groups the choices of rows, `[rows][used]`. Groups of one row use the row's own quantized input;
    /// the inputs of the others follow those of all rows. Returns the number of rows of the quantized input.
    pub(super) fn fill(&mut self, experts: usize, used: usize, chosen: &[Choice]) -> usize {
        let Self { pairs, groups, places, tiles, largest_first, starts } = self;
        starts.clear();
        starts.resize(experts + 1, 0);
        for choice in chosen {
            starts[choice.expert as usize + 1] += 1;
        }
        groups.clear();
        // Index of each expert's group, once the group exists.
        let mut end = 0;
        for expert in 0..experts {
            let rows = starts[expert + 1] as usize;
            starts[expert] = end as u32;
            if rows > 0 {
                groups.push(Group { expert, pairs: end..end + rows, input: 0 });
                end += rows;
            }
        }
        pairs.clear();
        pairs.resize(chosen.len(), Pair::default());
        places.clear();
        for (i, choice) in chosen.iter().enumerate() {
            let at = starts[choice.expert as usize];
            starts[choice.expert as usize] += 1;
            pairs[at as usize] = Pair { row: (i / used) as u32, weight: choice.weight };
            places.push([at, 0]);
        }
        let mut inputs = chosen.len() / used;
        tiles.clear();
        for (index, group) in groups.iter_mut().enumerate() {
            // Used up as positions, the starts now serve as the experts' groups.
            starts[group.expert] = index as u32;
            let count = count_of_tiles(group.pairs.len()) as u32;
            tiles.extend((0..count).map(|tile| [index as u32, tile]));
            if group.pairs.len() == 1 {
                group.input = pairs[group.pairs.start].row as usize;
            } else {
                group.input = inputs;
                inputs += group.pairs.len();
            }
        }
        for (place, choice) in places.iter_mut().zip(chosen) {
            place[1] = starts[choice.expert as usize];
        }
        largest_first.clear();
        largest_first.extend(0..groups.len() as u32);
        largest_first.sort_unstable_by_key(|&i| (std::cmp::Reverse(groups[i as usize].pairs.len()), i));
        inputs
    }
}
