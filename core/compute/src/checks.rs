//! Checks that every backend makes before it computes.

use realm_gguf::Tensor;

use crate::{Attention, Backend, Batch, CacheLayout, Error, PAGE_TOKENS, Window};

/// The largest `k` of [`Backend::top_k`].
const MOST_BEST: usize = 1024;

/// Refuses a shape that differs from the one an operation needs.
pub(crate) fn expect(what: &str, found: usize, wanted: usize) -> Result<(), Error> {
    if found == wanted {
        Ok(())
    } else {
        Err(Error::InvalidArgument(format!("{what} is {found}, not {wanted}")))
    }
}

/// Refuses a row that a buffer of `rows` does not have.
pub(crate) fn row(row: usize, rows: usize) -> Result<(), Error> {
    if row < rows {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("row {row} of {rows}")))
}

/// Returns the `k` that a caller of [`Backend::top_k`] asks for, from the columns of its output.
pub(crate) fn top_k(columns: usize) -> Result<usize, Error> {
    if columns.is_multiple_of(2) && (2..=2 * MOST_BEST).contains(&columns) {
        return Ok(columns / 2);
    }
    Err(Error::InvalidArgument(format!("{columns} columns, not 2 for each of at most {MOST_BEST} numbers")))
}

/// Refuses a page that a cache of `pages` does not have.
pub(crate) fn page(page: u32, pages: usize) -> Result<(), Error> {
    if (page as usize) < pages {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("page {page} of {pages}")))
}

/// The error for a tensor that cannot be used.
pub(crate) fn bad_tensor(tensor: &Tensor<'_>, why: &str) -> Error {
    Error::InvalidModel(format!("tensor `{}` of shape {:?} {why}", tensor.info.name, tensor.info.shape))
}

/// Returns columns and rows of a matrix tensor, at most `most` each, and the bytes of a row.
pub(crate) fn matrix(tensor: &Tensor<'_>, most: usize) -> Result<(usize, usize, usize), Error> {
    let bad = |why| Err(bad_tensor(tensor, why));
    let (columns, rows) = match tensor.info.shape[..] {
        [columns] => (columns, 1),
        [columns, rows] => (columns, rows),
        _ => return bad("is not a matrix"),
    };
    let within = |len| usize::try_from(len).ok().filter(|&len| len <= most);
    let (Some(columns), Some(rows)) = (within(columns), within(rows)) else {
        return bad("is too large");
    };
    if columns == 0 || rows == 0 {
        return bad("is empty");
    }
    let (row_bytes, ty) = (tensor.data.len() / rows, tensor.info.ty);
    if columns % ty.block_len() != 0 || row_bytes != columns / ty.block_len() * ty.block_bytes() {
        return bad("does not hold whole blocks");
    }
    Ok((columns, rows, row_bytes))
}

/// Checks every number that the attention operations index with, for a cache of this layout and number of
/// pages.
pub(crate) fn attention<B: Backend>(
    spec: &Attention<'_, B>,
    batch: &Batch,
    layout: &CacheLayout,
    pages: usize,
) -> Result<(), Error> {
    let bad = |why: String| Err(Error::InvalidArgument(why));
    if spec.kv_heads == 0 || !spec.heads.is_multiple_of(spec.kv_heads) {
        return bad(format!("{} query heads over {} key/value heads", spec.heads, spec.kv_heads));
    }
    let Some(place) = layout.layers.get(spec.layer) else {
        return bad(format!("the cache has no layer {}", spec.layer));
    };
    if (layout.kv_heads, layout.head_dim) != (spec.kv_heads, spec.head_dim)
        || layout.windows[place.group] != spec.window.map(Window::tokens)
    {
        return bad(format!("the cache does not fit layer {}", spec.layer));
    }
    for span in &batch.spans {
        if span.rows.is_empty() || span.rows.end > batch.rows() || batch.positions.len() != batch.rows() {
            return bad(format!("rows {:?} of a batch of {}", span.rows, batch.rows()));
        }
        let positions = &batch.positions[span.rows.clone()];
        let last = positions.iter().copied().max().unwrap_or(0) as usize;
        let first = positions.iter().copied().min().unwrap_or(0) as usize;
        let table = batch.table(span, place.group);
        let seen = layout.first_page(place.group, first)..last / PAGE_TOKENS + 1;
        let Some(seen) = table.get(seen) else {
            return bad(format!("{} pages do not reach position {last}", table.len()));
        };
        for &seen in seen {
            page(seen, pages)?;
        }
    }
    Ok(())
}
