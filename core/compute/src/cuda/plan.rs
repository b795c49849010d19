//! How a batch's attention is cut into pieces for the GPU.

use crate::{Batch, CacheLayout};

/// Queries of a tile; see `attention.cu`.
pub(crate) const TILE_QUERIES: usize = 16;
/// Widest heads of the kernels for tiles.
pub(crate) const MOST_TILED: usize = 256;
/// Tokens of a span.
const SPAN_TOKENS: usize = 256;
/// Blocks of a span.
pub(crate) const SPAN_BLOCKS: usize = 4;
/// Sequences with more rows than this are cut into tiles, if the batch has tiles enough; the rows of others
/// go each by itself.
const FEW_ROWS: usize = 4;
/// Tiles of all key/value heads that a batch has at least, if there are tiles: each is one warp's, which goes
/// through the whole context. Fewer leave most of a GPU idle, and rows that go each by itself, a block of
/// threads for each 64 tokens, take less time.
const ENOUGH_TILES: usize = 256;

/// The part of a batch that the attention kernels read, the same for all layers: one array, and where its
/// parts begin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Everything, in the order of the fields below; positions come first.
    pub(crate) data: Vec<u32>,
    /// The rows that go each by itself.
    pub(crate) single: usize,
    pub(crate) single_at: usize,
    /// For every group of layers, where each row's page table begins in the pages.
    pub(crate) tables_at: usize,
    /// First row, rows and number of each tile.
    pub(crate) tiles: usize,
    pub(crate) tiles_at: usize,
    /// The page tables, as the batch has them.
    pub(crate) pages_at: usize,
}

impl Plan {
    /// Cuts a batch, in which `group` query heads share a key/value head.
    pub(crate) fn new(batch: &Batch, layout: &CacheLayout, group: usize) -> Self {
        let rows = batch.rows();
        let tiles_of = |rows: usize| if rows > FEW_ROWS { (rows * group).div_ceil(TILE_QUERIES) } else { 0 };
        let tiles: usize = batch.spans.iter().map(|span| tiles_of(span.rows.len())).sum();
        let enough = layout.head_dim <= MOST_TILED && tiles * layout.kv_heads >= ENOUGH_TILES;
        let most = if enough { FEW_ROWS } else { usize::MAX };
        let mut data = batch.positions.clone();
        let single_at = data.len();
        for span in &batch.spans {
            if span.rows.len() <= most {
                data.extend(span.rows.clone().map(|row| row as u32));
            }
        }
        let single = data.len() - single_at;
        let tables_at = data.len();
        data.resize(tables_at + rows * layout.groups(), 0);
        for group in 0..layout.groups() {
            for span in &batch.spans {
                let start = (span.table_start + group * span.table_len) as u32;
                data[tables_at + group * rows..][span.rows.clone()].fill(start);
            }
        }
        let tiles_at = data.len();
        for span in batch.spans.iter().filter(|span| span.rows.len() > most) {
            let tiles = tiles_of(span.rows.len()) as u32;
            // Later rows see more: the longest work first.
            for tile in (0..tiles).rev() {
                data.extend([span.rows.start as u32, span.rows.len() as u32, tile]);
            }
        }
        let tiles = (data.len() - tiles_at) / 3;
        let pages_at = data.len();
        data.extend_from_slice(&batch.pages);
        Self { data, single, single_at, tables_at, tiles, tiles_at, pages_at }
    }

    /// Spans that kernels for single rows are started for, at least as many as any of them sees. Of the
    /// context only the power of two counts, so that few geometries occur.
    pub(crate) fn spans(&self, window: Option<usize>) -> usize {
        let rows = &self.data[self.single_at..][..self.single];
        let all = spans_before(rows.iter().map(|&row| self.data[row as usize]).max());
        // A window may begin and end within a span.
        window.map_or(all, |w| all.min((w.div_ceil(SPAN_TOKENS) + 1).next_power_of_two()))
    }

    /// [`Plan::spans`] of a batch of single rows, without a window.
    pub(crate) fn all_spans(positions: &[u32]) -> usize {
        spans_before(positions.iter().copied().max())
    }
}

fn spans_before(position: Option<u32>) -> usize {
    position.map_or(0, |position| (position as usize / SPAN_TOKENS + 1).next_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Want;

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

    #[test]
    fn every_query_is_in_one_piece_and_finds_its_pages() {
        let layout = CacheLayout::new(2, 64, &[None, Some(64), None, Some(64)]);
        let batch = batch(&layout, 680);
        let plan = Plan::new(&batch, &layout, 3);
        assert_eq!(plan.data[..batch.rows()], batch.positions);
        assert_eq!(plan.data[plan.single_at..][..plan.single], [0, 681, 682]);
        // 680 rows of 3 heads are 2,040 queries.
        assert_eq!(plan.tiles, 128);
        let mut numbers: Vec<u32> =
            plan.data[plan.tiles_at..plan.pages_at].chunks(3).map(|tile| tile[2]).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, Vec::from_iter(0..128));
        let pages = &plan.data[plan.pages_at..];
        for span in &batch.spans {
            for group in 0..layout.groups() {
                for row in span.rows.clone() {
                    let start = plan.data[plan.tables_at + group * batch.rows() + row] as usize;
                    assert_eq!(&pages[start..start + span.table_len], batch.table(span, group));
                }
            }
        }
    }

    #[test]
    fn a_batch_without_tiles_enough_for_a_gpu_has_none() {
        let layout = CacheLayout::new(2, 64, &[None]);
        let plan = Plan::new(&batch(&layout, 40), &layout, 3);
        assert_eq!((plan.single, plan.tiles), (43, 0));
    }

    #[test]
    fn rows_of_wide_heads_go_each_by_itself() {
        let layout = CacheLayout::new(2, 576, &[None]);
        let plan = Plan::new(&batch(&layout, 680), &layout, 64);
        assert_eq!((plan.single, plan.tiles), (683, 0));
    }

    #[test]
    fn spans_cover_the_longest_row_that_goes_by_itself() {
        let layout = CacheLayout::new(2, 64, &[None]);
        let plan = Plan::new(&batch(&layout, 680), &layout, 3);
        assert_eq!(plan.spans(None), 4); // 701 tokens are 3 spans
        assert_eq!(plan.spans(Some(64)), 2);
        assert_eq!(plan.spans(Some(300)), 4);
        assert_eq!(Plan::all_spans(&[0, 255, 3]), 1);
        assert_eq!(Plan::all_spans(&[0, 256]), 2);
    }
}
