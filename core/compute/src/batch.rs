//! The ragged batch: rows of many sequences in one forward pass, over a paged KV cache.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::Error;

/// Tokens in one page of the KV cache.
pub const PAGE_TOKENS: usize = 32;

/// Stands in a page table for a page that was given back because no layer of the group attends to its tokens
/// any more.
pub const NO_PAGE: u32 = u32::MAX;

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
    /// Rows whose logits are wanted, ascending.
    pub outputs: Vec<u32>,
    /// Rows whose last hidden state (after the output norm) is wanted, ascending.
    pub hidden: Vec<u32>,
    /// The highest logits of every row (top k) are enough for now: a GPU copies only those to the host and
    /// keeps the rest until a caller asks for it.
    pub top_k: bool,
    /// Keeps those rows of logits beyond the next pass, for callers that may ask for them later.
    pub keep: bool,
    /// The page tables of all spans; see [`Batch::table`].
    pub pages: Vec<u32>,
}

/// Consecutive rows of one sequence.
#[derive(Debug, Clone)]
pub struct Span {
    /// The span's rows in the batch.
    pub rows: Range<usize>,
    /// Where the sequence's page tables begin in [`Batch::pages`]: one table of `table_len` entries for every
    /// group of layers, one after the other.
    pub table_start: usize,
    /// Entries of one page table.
    pub table_len: usize,
    /// The LoRA adapter that these rows use.
    pub adapter: Option<AdapterUse>,
}

/// A LoRA adapter and its strength, for a span of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdapterUse {
    /// The adapter's id.
    pub id: u32,
    /// Factor on the adapter's change.
    pub scale: f32,
}

/// The results that a sequence wants of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Only the keys and values in the cache.
    Nothing,
    /// The logits of the last row.
    LastLogits,
    /// The logits of every row.
    Logits,
    /// The last hidden state of every row.
    Hidden,
}

impl Batch {
    /// Appends the rows of one sequence: `tokens` at positions `past ..`, its page table for every group of
    /// layers, all of one length, and the results wanted. Entry `i` of a page table is the page of tokens
    /// `i * PAGE_TOKENS ..`. The table must cover the last row's position, because the keys and values of the
    /// rows themselves are written through it.
    pub fn push<T: AsRef<[u32]>>(&mut self, tokens: &[u32], past: usize, tables: &[T], want: Want) {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((0..tokens.len()).map(|i| (past + i) as u32));
        let rows = first..self.tokens.len();
        let all = rows.start as u32..rows.end as u32;
        match want {
            Want::Nothing => {}
            Want::LastLogits => self.outputs.extend(all.last()),
            Want::Logits => self.outputs.extend(all),
            Want::Hidden => self.hidden.extend(all),
        }
        let table_start = self.pages.len();
        let table_len = tables.first().map_or(0, |t| t.as_ref().len());
        for table in tables {
            debug_assert_eq!(table.as_ref().len(), table_len);
            self.pages.extend_from_slice(table.as_ref());
        }
        self.spans.push(Span { rows, table_start, table_len, adapter: None });
    }

    /// Returns the page table of a span for one group of layers; empty if there is none.
    pub fn table(&self, span: &Span, group: usize) -> &[u32] {
        let start = span.table_start + group * span.table_len;
        self.pages.get(start..start + span.table_len).unwrap_or_default()
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
        self.hidden.clear();
        self.top_k = false;
        self.keep = false;
        self.pages.clear();
    }
}

/// The format of numbers in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CacheType {
    /// 32-bit floats: exact, twice the memory of 16-bit ones.
    F32,
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit integers with a 16-bit scale for every 32 numbers of a head; keys are stored as differences from
    /// the page's first key.
    Q8_0,
}

impl CacheType {
    /// All cache types, the most exact first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8_0];
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        })
    }
}

impl FromStr for CacheType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let why = || Error::InvalidArgument(format!("cache type `{name}`; it can be f32, f16 or q8_0"));
        Self::ALL.into_iter().find(|kind| kind.to_string() == name).ok_or_else(why)
    }
}

/// The place of a layer's keys and values in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPlace {
    /// The group whose page tables the layer uses.
    pub group: usize,
    /// The layer's slot within a page.
    pub slot: usize,
}

/// The layout of a model's KV cache: which layers share a page.
///
/// Layers of the same attention window form groups, all with the same number of slots. A page holds
/// [`PAGE_TOKENS`] tokens of one group, and every group of a sequence has a page table of its own, so layers
/// with a sliding window give their pages back when the window has passed, while the others keep theirs.
/// Pages of all groups are of one size and come from one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLayout {
    /// Most key/value heads of a layer: room for as many is in every slot.
    pub kv_heads: usize,
    /// Numbers in a key and in a value.
    pub head_dim: usize,
    /// Layers per page.
    pub slots: usize,
    /// Each layer's group and slot.
    pub layers: Vec<LayerPlace>,
    /// Each group's window in tokens; `None` if its layers attend to every position.
    pub windows: Vec<Option<usize>>,
}

impl CacheLayout {
    /// Groups layers by their windows, `[layers]`.
    pub fn new(kv_heads: usize, head_dim: usize, windows: &[Option<usize>]) -> Self {
        let mut kinds: Vec<(Option<usize>, Vec<usize>)> = Vec::new();
        for (layer, &window) in windows.iter().enumerate() {
            match kinds.iter_mut().find(|(w, _)| *w == window) {
                Some((_, layers)) => layers.push(layer),
                None => kinds.push((window, vec![layer])),
            }
        }
        // Large groups mean few page tables; slots that stay empty may cost at most a tenth of the cache.
        let most = kinds.iter().map(|(_, layers)| layers.len()).min().unwrap_or(1);
        let empty = |slots: usize| -> usize {
            kinds.iter().map(|(_, layers)| layers.len().next_multiple_of(slots) - layers.len()).sum()
        };
        let slots = (1..=most).rev().find(|&slots| 10 * empty(slots) <= windows.len()).unwrap_or(1);
        let mut layers = vec![LayerPlace { group: 0, slot: 0 }; windows.len()];
        let mut groups = Vec::new();
        for (window, members) in &kinds {
            for members in members.chunks(slots) {
                for (slot, &layer) in members.iter().enumerate() {
                    layers[layer] = LayerPlace { group: groups.len(), slot };
                }
                groups.push(*window);
            }
        }
        Self { kv_heads, head_dim, slots, layers, windows: groups }
    }

    /// Number of groups, and so of page tables per sequence.
    pub fn groups(&self) -> usize {
        self.windows.len()
    }

    /// Index of the first page in a group's table that a row at `position` still attends to.
    pub fn first_page(&self, group: usize, position: usize) -> usize {
        let window = self.windows.get(group).copied().flatten();
        window.map_or(0, |w| (position + 1).saturating_sub(w)) / PAGE_TOKENS
    }
}

/// The layout, size and number format of a paged KV cache.
#[derive(Debug, Clone)]
pub struct CacheSpec {
    /// The layout of a page.
    pub layout: CacheLayout,
    /// Number of pages.
    pub pages: usize,
    /// The format of numbers.
    pub kind: CacheType,
}

impl CacheSpec {
    /// Bytes per page. The width of a value is padded to a multiple of 32 numbers.
    pub fn page_bytes(&self) -> usize {
        let CacheLayout { kv_heads, head_dim, slots, .. } = self.layout;
        let padded = head_dim.next_multiple_of(32);
        let head = match self.kind {
            CacheType::F32 => 4 * (head_dim + padded),
            CacheType::F16 => 2 * (head_dim + padded),
            CacheType::Q8_0 => head_dim + padded + 2 * 2 * (padded / 32) + 2 * padded / PAGE_TOKENS,
        };
        head * kv_heads * PAGE_TOKENS * slots
    }
}
