//! How a batch's attention is cut into pieces for the GPU.
//!
//! A *leaf* is 128 tokens of a context; see `attention.cuh`. A *tile* is some rows of a sequence, of which
//! one block of threads computes all query heads of a key/value head. Tiles of few rows are cut along their
//! context, too, into parts that several blocks compute at once; the parts' leaves are put together
//! afterwards.

use std::ops::Range;

use crate::{Batch, CacheLayout, PAGE_TOKENS};

/// Tokens of a leaf.
pub(crate) const LEAF: usize = 128;
/// Sequences with more rows than this are cut into large tiles, if the batch has enough of those.
const FEW_ROWS: usize = 4;
/// Most bytes of the results of leaves that wait to be put together; rows beyond have no parts.
const MOST_BYTES: usize = 512 << 20;
/// Stands in an item's base for a tile without parts.
const WHOLE: u32 = u32::MAX;
/// Numbers of an item; see `Item` of `attention.cuh`.
pub(crate) const ITEM: usize = 8;

/// What the cutting depends on, apart from the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Query heads that share a key/value head.
    pub(crate) group: usize,
    /// Queries of a small tile, and of a large one.
    pub(crate) few: usize,
    pub(crate) most: usize,
    /// Large tiles of all key/value heads that a batch has at least, if it has any: each is one block's,
    /// which goes through the whole context. Fewer leave so much of a GPU idle that small tiles, cut along
    /// their contexts, take less time.
    pub(crate) enough: usize,
    /// Blocks with small tiles that the GPU runs at once.
    pub(crate) wave: usize,
    /// Bytes of a leaf's results of a row, of all key/value heads.
    pub(crate) leaf_bytes: usize,
}

impl Fit {
    /// The fit for all layers of a pass of single rows, given those of two layers. Groups may differ, but for
    /// single rows only the bytes of a leaf matter.
    pub(crate) fn with(self, other: Self) -> Self {
        Self { leaf_bytes: self.leaf_bytes.max(other.leaf_bytes), ..self }
    }
}

/// The tiles of one size.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tiles {
    /// Where the items of the first group of layers begin; those of the others follow.
    pub(crate) at: usize,
    /// Items of a group, including some that have nothing to do. Then come the first items of each tile.
    pub(crate) items: usize,
    pub(crate) tiles: usize,
    /// Rows of the largest tile.
    pub(crate) rows: usize,
    /// Leaves of the longest context, as the power of two that counts.
    pub(crate) longest: usize,
    /// Leaves that may have to be put together, for every group.
    pub(crate) slots: Vec<usize>,
}

impl Tiles {
    /// Where the items of a group begin, and the first items of each tile.
    pub(crate) fn of_group(&self, group: usize) -> [usize; 2] {
        let at = self.at + group * (self.items + self.tiles) * ITEM;
        [at, at + self.items * ITEM]
    }
}

/// The part of a batch that the attention kernels read, the same for all layers: one array, and where its
/// parts begin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Everything, in the order of the fields below; positions come first.
    pub(crate) data: Vec<u32>,
    /// For every group of layers, where each row's page table begins in the pages.
    pub(crate) tables_at: usize,
    pub(crate) small: Tiles,
    pub(crate) large: Tiles,
    /// The page tables, as the batch has them.
    pub(crate) pages_at: usize,
}

/// Rows of a sequence that are computed together.
struct Tile {
    rows: Range<usize>,
    /// Of the first row.
    position: usize,
    /// Of the first row of the span.
    fresh: usize,
    /// The first group's page table.
    table: usize,
    /// From a group's table to the next one's.
    table_len: usize,
}

impl Tile {
    /// Leaves that its rows attend to in layers with a window.
    fn leaves(&self, window: Option<usize>) -> usize {
        let first = window.map_or(0, |w| (self.position + 1).saturating_sub(w)) / LEAF;
        (self.position + self.rows.len() - 1) / LEAF - first + 1
    }

    fn item(&self, group: usize, part: usize, parts: usize, base: u32) -> [u32; ITEM] {
        let table = self.table + group * self.table_len;
        let [first, rows, position] = [self.rows.start, self.rows.len(), self.position].map(|n| n as u32);
        [first, rows, part as u32, parts as u32, base, position, table as u32, self.fresh as u32]
    }
}

impl Plan {
    /// Cuts a batch.
    pub(crate) fn new(batch: &Batch, layout: &CacheLayout, fit: Fit) -> Self {
        let rows = batch.rows();
        let most = |queries: usize| (queries / fit.group).max(1);
        let large_of = |rows: usize| if rows > FEW_ROWS { rows.div_ceil(most(fit.most)) } else { 0 };
        let blocks = layout.kv_heads * fit.group.div_ceil(fit.most);
        let enough = batch.spans.iter().map(|span| large_of(span.rows.len())).sum::<usize>() * blocks;
        let few = if enough >= fit.enough { FEW_ROWS } else { usize::MAX };
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for span in &batch.spans {
            let position = batch.positions[span.rows.start] as usize;
            let (to, step) = if span.rows.len() <= few {
                (&mut small, most(fit.few))
            } else {
                (&mut large, most(fit.most))
            };
            for first in span.rows.clone().step_by(step) {
                to.push(Tile {
                    rows: first..span.rows.end.min(first + step),
                    position: position + first - span.rows.start,
                    fresh: position,
                    table: span.table_start,
                    table_len: span.table_len,
                });
            }
        }
        // Later rows see more: the longest work first.
        large.sort_by_key(|tile| std::cmp::Reverse(tile.position));

        let mut data = batch.positions.clone();
        let tables_at = data.len();
        data.resize(tables_at + rows * layout.groups(), 0);
        for group in 0..layout.groups() {
            for span in &batch.spans {
                let start = (span.table_start + group * span.table_len) as u32;
                data[tables_at + group * rows..][span.rows.clone()].fill(start);
            }
        }
        // Items are read 16 bytes at a time.
        data.resize(data.len().next_multiple_of(4), 0);
        let small = cut(&mut data, &small, layout, fit);
        let large_at = data.len();
        for group in 0..layout.groups() {
            // As items and as first items.
            for _ in 0..2 {
                data.extend(large.iter().flat_map(|tile| tile.item(group, 0, 1, WHOLE)));
            }
        }
        let rows = large.iter().map(|tile| tile.rows.len()).max().unwrap_or(0);
        let slots = vec![0; layout.groups()];
        let large = Tiles { at: large_at, items: large.len(), tiles: large.len(), rows, longest: 0, slots };
        let pages_at = data.len();
        data.extend_from_slice(&batch.pages);
        Self { data, tables_at, small, large, pages_at }
    }

    /// Leaves of the longest context of a batch of single rows, as the power of two that counts: only by that
    /// do the launches of such batches differ.
    pub(crate) fn most_leaves(positions: &[u32]) -> usize {
        positions.iter().max().map_or(0, |&position| (position as usize / LEAF + 1).next_power_of_two())
    }
}

/// Cuts small tiles along their contexts, so that all blocks have about the same number of leaves and the GPU
/// runs them at once, and appends the items of every group of layers to `data`.
fn cut(data: &mut Vec<u32>, tiles: &[Tile], layout: &CacheLayout, fit: Fit) -> Tiles {
    let at = data.len();
    let blocks = (fit.wave / layout.kv_heads).max(1);
    // How many items there are depends on how many tiles there are, so that recorded launches fit.
    let items = if tiles.is_empty() { 0 } else { blocks + tiles.len() };
    let longest = tiles.iter().map(|tile| tile.leaves(None)).max().unwrap_or(0).next_power_of_two();
    let rows = tiles.iter().map(|tile| tile.rows.len()).max().unwrap_or(0);
    let most_slots = MOST_BYTES / (fit.leaf_bytes * rows.max(1));
    let mut slots = Vec::new();
    for (group, &window) in layout.windows.iter().enumerate() {
        let leaves: Vec<usize> = tiles.iter().map(|tile| tile.leaves(window)).collect();
        // A window begins within a leaf, and a tile's rows begin theirs one after the other.
        let longest = window.map_or(longest, |w| longest.min((w + fit.few).div_ceil(LEAF) + 1));
        let room = if longest > 1 { (tiles.len() * longest).min(most_slots) } else { 0 };
        let mut each = leaves.iter().sum::<usize>().div_ceil(blocks).max(1);
        let in_parts = |each: usize| leaves.iter().filter(move |&&n| n > each).sum::<usize>();
        while in_parts(each) > room {
            each *= 2;
        }
        let start = data.len();
        let (mut base, mut firsts) = (0, Vec::new());
        for (tile, &leaves) in tiles.iter().zip(&leaves) {
            let parts = leaves.div_ceil(each);
            let at = if parts > 1 { base } else { WHOLE };
            data.extend((0..parts).flat_map(|part| tile.item(group, part, parts, at)));
            firsts.extend(tile.item(group, 0, parts, at));
            if parts > 1 {
                base += leaves as u32;
            }
        }
        debug_assert!(data.len() - start <= items * ITEM);
        data.resize(start + items * ITEM, 0);
        data.extend(firsts);
        slots.push(room);
    }
    Tiles { at, items, tiles: tiles.len(), rows, longest, slots }
}

// The tokens of a leaf are whole pages.
const _: () = assert!(LEAF.is_multiple_of(PAGE_TOKENS));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Want;

    const FIT: Fit = Fit { group: 3, few: 16, most: 64, enough: 64, wave: 528, leaf_bytes: 1 << 14 };

    fn batch(layout: &CacheLayout, prompt: usize) -> Batch {
        let mut batch = Batch::default();
        let tables = |first: u32, len: u32| -> Vec<Vec<u32>> {
            (0..layout.groups() as u32).map(|g| (first + g * len..first + (g + 1) * len).collect()).collect()
        };
        batch.push(&[1], 700, &tables(0, 22), Want::LastLogits);
        batch.push(&vec![2; prompt], 0, &tables(100, 90), Want::LastLogits);
        batch.push(&[3, 4], 9, &tables(200, 1), Want::Logits);
        batch
    }

    /// The items of a group that have something to do.
    fn items<'a>(plan: &'a Plan, tiles: &Tiles, group: usize) -> Vec<&'a [u32]> {
        let [from, to] = tiles.of_group(group);
        let all = plan.data[from..to].chunks(ITEM).filter(|item| item[2] < item[3]);
        let firsts = plan.data[to..][..tiles.tiles * ITEM].chunks(ITEM);
        assert!(all.clone().filter(|item| item[2] == 0).eq(firsts));
        all.collect()
    }

    #[test]
    fn every_row_is_in_one_tile_and_finds_its_pages() {
        let layout = CacheLayout::new(2, 64, &[None, Some(64), None, Some(64)]);
        for prompt in [5, 40, 680] {
            let batch = batch(&layout, prompt);
            let plan = Plan::new(&batch, &layout, FIT);
            assert_eq!(plan.data[..batch.rows()], batch.positions);
            // 680 rows, 21 of them in a tile of 64 queries.
            assert_eq!(plan.large.items, if prompt == 680 { 33 } else { 0 });
            for group in 0..layout.groups() {
                let mut times = vec![0; batch.rows()];
                for tiles in [&plan.small, &plan.large] {
                    for item in items(&plan, tiles, group) {
                        let rows = item[0] as usize..(item[0] + item[1]) as usize;
                        assert!(rows.len() * 3 <= 64 && rows.len() <= tiles.rows);
                        let span = batch.spans.iter().find(|span| span.rows.contains(&rows.start)).unwrap();
                        assert_eq!(item[5], batch.positions[rows.start]);
                        assert_eq!(item[7], batch.positions[span.rows.start]);
                        let pages = &plan.data[plan.pages_at + item[6] as usize..][..span.table_len];
                        assert_eq!(pages, batch.table(span, group));
                        rows.for_each(|row| times[row] += (item[2] == 0) as usize);
                    }
                }
                assert!(times.iter().all(|&n| n == 1), "group {group}: {times:?}");
                for span in &batch.spans {
                    for row in span.rows.clone() {
                        let start = plan.data[plan.tables_at + group * batch.rows() + row] as usize;
                        let pages = &plan.data[plan.pages_at + start..][..span.table_len];
                        assert_eq!(pages, batch.table(span, group));
                    }
                }
            }
        }
    }

    /// A batch of single rows with contexts of these lengths.
    fn decoding(layout: &CacheLayout, contexts: &[usize]) -> Batch {
        let mut batch = Batch::default();
        for &tokens in contexts {
            let table: Vec<u32> = (0..tokens.div_ceil(PAGE_TOKENS) as u32).collect();
            batch.push(&[1], tokens - 1, &vec![table; layout.groups()], Want::LastLogits);
        }
        batch
    }

    #[test]
    fn contexts_of_any_length_keep_the_whole_gpu_busy_and_their_leaves_have_room() {
        for windows in [&[None][..], &[Some(4096)], &[None, Some(300)]] {
            for kv_heads in [1, 2, 4, 8] {
                let layout = CacheLayout::new(kv_heads, 128, windows);
                for contexts in [
                    vec![1],
                    vec![128],
                    vec![129],
                    vec![4096],
                    vec![131_072],
                    vec![16_384; 16],
                    vec![1_000_000; 2],
                    vec![4096; 64],
                    (1..200).map(|i| i * i).collect(),
                    [&[131_072][..], &[16; 255]].concat(),
                ] {
                    let batch = decoding(&layout, &contexts);
                    let plan = Plan::new(&batch, &layout, Fit { leaf_bytes: 2080 * kv_heads, ..FIT });
                    assert_eq!(plan.large.items, 0);
                    for (group, &window) in layout.windows.iter().enumerate() {
                        let items = items(&plan, &plan.small, group);
                        let leaves = |tokens: usize| {
                            let first = window.map_or(0, |w| tokens.saturating_sub(w)) / LEAF;
                            (tokens - 1) / LEAF + 1 - first
                        };
                        let all: usize = contexts.iter().map(|&tokens| leaves(tokens)).sum();
                        let most = items
                            .iter()
                            .map(|item| leaves(item[5] as usize + 1).div_ceil(item[3] as usize))
                            .max();
                        let ideal = (all * kv_heads).div_ceil(528);
                        assert!(
                            most.unwrap() <= ideal + 1,
                            "{contexts:?}, {kv_heads}: {most:?}, not {ideal}"
                        );
                        // Leaves of tiles with parts lie one tile after the other, and have room.
                        let mut base = 0;
                        for item in items.iter().filter(|item| item[2] == 0) {
                            assert_eq!(item[4] == WHOLE, item[3] == 1);
                            if item[3] > 1 {
                                assert_eq!(item[4], base);
                                base += leaves(item[5] as usize + 1) as u32;
                            }
                        }
                        assert!(base as usize <= plan.small.slots[group]);
                    }
                }
            }
        }
    }

    /// Recorded launches depend on the number of rows and [`Plan::most_leaves`] alone.
    #[test]
    fn batches_of_one_shape_have_the_same_launches() {
        let layout = CacheLayout::new(8, 128, &[None, Some(1000)]);
        let plan = |contexts: &[usize]| Plan::new(&decoding(&layout, contexts), &layout, FIT);
        let same = |a: &Plan, b: &Plan| {
            (a.small.at, a.small.longest, &a.small.slots, a.small.items, a.pages_at, a.tables_at)
                == (b.small.at, b.small.longest, &b.small.slots, b.small.items, b.pages_at, b.tables_at)
        };
        assert_eq!(
            (Plan::most_leaves(&[0, 127]), Plan::most_leaves(&[128]), Plan::most_leaves(&[5, 256])),
            (1, 2, 4)
        );
        assert!(same(&plan(&[1, 1]), &plan(&[128, 3])));
        assert!(same(&plan(&[129, 1]), &plan(&[1, 256])));
        assert!(!same(&plan(&[129, 1]), &plan(&[1, 257])));
        assert!(same(&plan(&[65_537, 70_000]), &plan(&[131_072, 1])));
        assert_eq!(plan(&[128, 128]).small.slots, [0, 0]);
    }

    #[test]
    fn results_of_leaves_take_a_bounded_amount_of_memory() {
        let layout = CacheLayout::new(1, 576, &[None]);
        let fit = Fit { group: 128, few: 16, most: 32, enough: 64, wave: 264, leaf_bytes: 8 * 16 * 578 * 4 };
        let plan = Plan::new(&decoding(&layout, &[500_000; 40]), &layout, fit);
        assert!(plan.small.slots[0] * fit.leaf_bytes <= MOST_BYTES);
        let parts: u32 = items(&plan, &plan.small, 0).iter().map(|item| item[3]).max().unwrap();
        assert_eq!(parts, 1);
    }
    /// Tiles of several rows have results of all of them.
    #[test]
    fn drafted_rows_count_in_the_memory_of_leaves() {
        let layout = CacheLayout::new(1, 128, &[None]);
        let fit = Fit { group: 4, few: 16, most: 64, enough: 10_000, wave: 528, leaf_bytes: 4 * 130 * 4 };
        let mut batch = Batch::default();
        (0..300).for_each(|_| batch.push(&[1; 4], 100_000, &[vec![0; 3126]], Want::LastLogits));
        let plan = Plan::new(&batch, &layout, fit);
        assert_eq!(plan.small.rows, 4);
        let bytes = plan.small.slots[0] * 4 * fit.leaf_bytes;
        assert!(bytes <= MOST_BYTES && bytes > MOST_BYTES / 2);
    }
}
