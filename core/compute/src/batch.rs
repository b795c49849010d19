//! The ragged batch: rows of many sequences in one forward pass, over a paged KV cache.

use std::ops::Range;

/// Tokens in one page of the KV cache.
pub const PAGE_TOKENS: usize = 32;

/// The rows of one forward pass. Rows of one sequence lie side by side; some sequences prefill (many
/// rows), others decode (one row).
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids, `[rows]`.
    pub tokens: Vec<u32>,
    /// Each row's position in its sequence, `[rows]`.
    pub positions: Vec<u32>,
    /// The sequences, in row order; together they cover every row once.
    pub spans: Vec<Span>,
    /// The rows whose logits are wanted, ascending.
    pub outputs: Vec<u32>,
}

/// Consecutive rows of one sequence.
#[derive(Debug, Clone)]
pub struct Span {
    /// Which rows of the batch.
    pub rows: Range<usize>,
    /// The sequence's page table: page `i` holds its tokens `i * PAGE_TOKENS ..`. It must cover the last
    /// row's position; the rows' own keys and values are written through it.
    pub pages: Vec<u32>,
}

impl Batch {
    /// Appends the rows of one sequence: `tokens` at positions `past ..`, its page table, and whether the
    /// logits of `every` row or only of the last one are wanted.
    pub fn push(&mut self, tokens: &[u32], past: usize, pages: &[u32], every: bool) {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((0..tokens.len()).map(|i| (past + i) as u32));
        let rows = first..self.tokens.len();
        let wanted = if every { rows.clone() } else { rows.end.saturating_sub(1).max(first)..rows.end };
        self.outputs.extend(wanted.map(|row| row as u32));
        self.spans.push(Span { rows, pages: pages.to_vec() });
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.spans.clear();
        self.outputs.clear();
    }
}

/// How the KV cache holds a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// 32-bit floats: exact, twice the memory.
    F32,
    /// 16-bit floats.
    #[default]
    F16,
}

/// The KV cache of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerCache {
    /// Key/value heads.
    pub kv_heads: usize,
    /// Numbers in a key and in a value.
    pub head_dim: usize,
}

/// The shape of a paged KV cache: every page holds [`PAGE_TOKENS`] tokens of every layer.
#[derive(Debug, Clone)]
pub struct CacheSpec {
    /// One entry a layer.
    pub layers: Vec<LayerCache>,
    /// Number of pages.
    pub pages: usize,
    /// How numbers are held.
    pub kind: CacheType,
}

impl CacheSpec {
    /// Bytes that one page takes over all layers.
    pub fn page_bytes(&self) -> usize {
        let size = match self.kind {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
        };
        self.layers.iter().map(|l| 2 * l.kv_heads * l.head_dim * PAGE_TOKENS * size).sum()
    }
}
