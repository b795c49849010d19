//! Adapters of experts: the rows that an adapter and an expert have in common.

use std::ops::Range;

use super::super::CpuBackend;
use super::super::aligned::Aligned;
use super::super::isa::Isa;
use super::super::lora::{Change, Plan};
use super::super::pool::{Parts, Pool};
use super::route::Grouped;
use crate::{Lora, LoraRow};

/// The adapters of the matrices of all experts, by expert.
#[derive(Default)]
pub(super) struct ByExpert {
    /// In the order of groups.
    uses: Vec<Use>,
    /// The first use of each group, and the end.
    first: Vec<usize>,
    from: Vec<LoraRow>,
    to: Vec<LoraRow>,
}

/// An adapter in an expert's group.
struct Use {
    /// Its index in the operation's list.
    adapter: usize,
    expert: usize,
    /// Its rows in both lists.
    rows: Range<usize>,
}

/// The rows of a product's input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Those of the batch.
    Rows,
    /// A row for each pair.
    Pairs,
}

/// A row of an adapter at one of its experts.
struct Entry {
    group: u32,
    adapter: u32,
    pair: u32,
    scale: f32,
}

impl ByExpert {
    /// Sorts the rows of adapters by the experts that they chose, `used` each.
    pub(super) fn new(loras: &[Lora<'_, CpuBackend>], grouped: &Grouped, used: usize, input: Input) -> Self {
        let mut entries = Vec::new();
        for (adapter, lora) in loras.iter().enumerate() {
            for &LoraRow { row, scale } in lora.rows {
                for &[pair, group] in &grouped.places[row as usize * used..][..used] {
                    entries.push(Entry { group, adapter: adapter as u32, pair, scale });
                }
            }
        }
        entries.sort_unstable_by_key(|entry| (entry.group, entry.adapter, entry.pair));
        let mut all = Self::default();
        for same in entries.chunk_by(|a, b| (a.group, a.adapter) == (b.group, b.adapter)) {
            let group = &grouped.groups[same[0].group as usize];
            all.first.resize(same[0].group as usize + 1, all.uses.len());
            let begin = all.from.len();
            for &Entry { pair, scale, .. } in same {
                let row = match input {
                    Input::Rows => grouped.pairs[pair as usize].row,
                    Input::Pairs => pair,
                };
                all.from.push(LoraRow { row, scale });
                all.to.push(LoraRow { row: pair - group.pairs.start as u32, scale });
            }
            let rows = begin..all.from.len();
            all.uses.push(Use { adapter: same[0].adapter as usize, expert: group.expert, rows });
        }
        all.first.resize(grouped.groups.len() + 1, all.uses.len());
        all
    }

    /// Returns the changes of every group's product, `loras` being the adapters of [`Self::new`].
    pub(super) fn changes<'a>(
        &'a self,
        loras: &'a [Lora<'a, CpuBackend>],
    ) -> impl Iterator<Item = impl Iterator<Item = Change<'a>>> {
        self.first.windows(2).map(move |ends| {
            self.uses[ends[0]..ends[1]].iter().map(move |u| Change {
                pair: loras[u.adapter].pair,
                expert: u.expert,
                scale: loras[u.adapter].scale,
                from: &self.from[u.rows.clone()],
                to: &self.to[u.rows.clone()],
            })
        })
    }
}

/// The changes of products, computed as far as they do not depend on the outputs.
pub(super) struct Changes<'a> {
    plan: Plan<'a>,
    hidden: &'a [f32],
}

impl<'a> Changes<'a> {
    /// Multiplies the input `x`, rows of `columns` numbers, with the adapters' first matrices.
    pub(super) fn new(
        (isa, pool): (Isa, &Pool),
        plan: Option<Plan<'a>>,
        (x, columns): (&[f32], usize),
        hidden: &'a mut Aligned<f32>,
    ) -> Option<Self> {
        let plan = plan?;
        hidden.reserve(plan.numbers());
        let (parts, share) = (Parts::new(hidden), plan.share());
        pool.run(&|_| {
            while let Some(pieces) = share.next() {
                for piece in pieces {
                    // SAFETY: each piece is handed out once, and there is room for all.
                    unsafe { plan.piece(isa, piece, (x, columns), &parts) };
                }
            }
        });
        Some(Self { plan, hidden })
    }

    /// Adds the changes of product `product` to a panel's sums.
    pub(super) fn add(&self, isa: Isa, product: usize, panel: usize, sums: &mut [super::mixture::Block]) {
        self.plan.add(isa, product, panel, self.hidden, sums);
    }
}
