//! Checks that every backend makes before it computes.

use realm_gguf::Tensor;

use crate::{
    Activation, Attention, Backend, Batch, CacheLayout, Columns, Error, Lora, MatMul, Mixture, Norm,
    NormSpan, PAGE_TOKENS, Window,
};

/// The sizes of a backend's parameters, for the checks of its operations.
pub(crate) trait Sizes: Backend {
    /// Numbers in a vector.
    fn vector_len(vector: &Self::Vector) -> usize;

    /// Outputs and inputs of a matrix.
    fn matrix_shape(matrix: &Self::Matrix) -> [usize; 2];

    /// Number, outputs and inputs of expert matrices.
    fn experts_shape(experts: &Self::Experts) -> [usize; 3];

    /// Number, outputs and inputs of the matrices that a low-rank change is for.
    fn low_rank_shape(pair: &Self::LowRank) -> [usize; 3];
}

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

/// Returns the number of rows of `columns` numbers that `values` numbers are.
pub(crate) fn whole_rows(values: usize, columns: usize) -> Result<usize, Error> {
    if columns > 0 && values.is_multiple_of(columns) {
        return Ok(values / columns);
    }
    Err(Error::InvalidArgument(format!("{values} numbers are no rows of {columns}")))
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
    if tensor.info.shape.len() > 2 {
        return Err(bad_tensor(tensor, "is not a matrix"));
    }
    let ([columns, rows, _], row_bytes) = matrices(tensor, most)?;
    Ok((columns, rows, row_bytes))
}

/// Returns columns and rows of a tensor's matrices and their number, at most `most` each, and the bytes of a
/// row.
pub(crate) fn matrices(tensor: &Tensor<'_>, most: usize) -> Result<([usize; 3], usize), Error> {
    let bad = |why| Err(bad_tensor(tensor, why));
    let shape = match tensor.info.shape[..] {
        [columns] => [columns, 1, 1],
        [columns, rows] => [columns, rows, 1],
        [columns, rows, count] => [columns, rows, count],
        _ => return bad("is not of matrices"),
    };
    let sizes = shape.map(|len| usize::try_from(len).ok().filter(|&len| len <= most));
    let [Some(columns), Some(rows), Some(count)] = sizes else {
        return bad("is too large");
    };
    if columns == 0 || rows == 0 || count == 0 {
        return bad("is empty");
    }
    let ty = tensor.info.ty;
    let row_bytes = columns / ty.block_len() * ty.block_bytes();
    let bytes = rows.checked_mul(count).and_then(|rows| rows.checked_mul(row_bytes));
    if columns % ty.block_len() != 0 || bytes != Some(tensor.data.len()) {
        return bad("does not hold whole blocks");
    }
    Ok(([columns, rows, count], row_bytes))
}

/// Checks a norm of rows of `columns`.
pub(crate) fn norm<B: Sizes>(norm: &Norm<'_, B>, columns: usize) -> Result<(), Error> {
    for (what, parameters) in [("weight", norm.weight), ("bias", norm.bias)] {
        if let Some(parameters) = parameters {
            expect(&format!("the length of a norm's {what}"), B::vector_len(parameters), columns)?;
        }
    }
    Ok(())
}

/// Checks that `x` has the shape of `other`, for example of `the gate`.
pub(crate) fn same<B: Backend>(b: &B, what: &str, x: &B::Buffer, other: &B::Buffer) -> Result<(), Error> {
    expect(&format!("the width of {what}"), b.columns(x), b.columns(other))?;
    expect(&format!("the rows of {what}"), b.rows(x), b.rows(other))
}

/// Refuses an activation that needs a gate.
pub(crate) fn ungated(activation: Activation) -> Result<(), Error> {
    match activation {
        Activation::ClampedSwiglu { .. } => {
            Err(Error::InvalidArgument("a clamped SwiGLU without a gate".into()))
        }
        _ => Ok(()),
    }
}

/// Checks the pieces of [`Backend::copy_columns`] against the widths of input and output.
pub(crate) fn columns(columns: &Columns, from: usize, to: usize) -> Result<(), Error> {
    let Columns { count, width, .. } = *columns;
    let end = |first: usize, step: usize| {
        let last = step.checked_mul(count.saturating_sub(1))?.checked_add(first)?;
        last.checked_add(width)
    };
    for (what, end, most) in [
        ("input", end(columns.from, columns.from_step), from),
        ("output", end(columns.to, columns.to_step), to),
    ] {
        if count > 0 && end.is_none_or(|end| end > most) {
            return Err(Error::InvalidArgument(format!("{columns:?} of an {what} of {most} columns")));
        }
    }
    Ok(())
}

/// Checks the adapters of a product of `rows` rows with matrices of the shape `[count, outputs, inputs]`.
fn lora<B: Sizes>(all: &[Lora<'_, B>], wanted: [usize; 3], rows: usize) -> Result<(), Error> {
    for lora in all {
        let found = B::low_rank_shape(lora.pair);
        if found != wanted {
            let why = format!("an adapter for matrices of the shape {found:?}, not {wanted:?}");
            return Err(Error::InvalidArgument(why));
        }
        lora.rows.iter().try_for_each(|lora| row(lora.row as usize, rows))?;
    }
    Ok(())
}

/// Checks a product of the input `x`.
pub(crate) fn product<B: Sizes>(b: &B, x: &B::Buffer, job: &MatMul<'_, B>) -> Result<(), Error> {
    let [outputs, inputs] = B::matrix_shape(job.weight);
    expect("the width of a product's input", b.columns(x), inputs)?;
    expect("the width of a product's output", b.columns(job.out), outputs)?;
    if let Some(bias) = job.bias {
        expect("the length of a bias", B::vector_len(bias), outputs)?;
    }
    if job.accumulate {
        expect("the rows to add to", b.rows(job.out), b.rows(x))?;
    }
    lora(job.lora, [1, outputs, inputs], b.rows(x))
}

/// Checks a mixture for an input of `hidden` columns and `rows` rows. The output has `out_rows` rows.
pub(crate) fn mixture<B: Sizes>(
    b: &B,
    x: &B::Buffer,
    spec: &Mixture<'_, B>,
    out: &B::Buffer,
) -> Result<(), Error> {
    let bad = |why: String| Err(Error::InvalidArgument(why));
    let hidden = b.columns(x);
    let [experts, inner, inputs] = B::experts_shape(spec.up);
    expect("the width of a mixture's input", hidden, inputs)?;
    expect("the width of a mixture's output", b.columns(out), hidden)?;
    if spec.accumulate {
        expect("the rows to add to", b.rows(out), b.rows(x))?;
    }
    let shapes =
        [Some((spec.down, [experts, hidden, inner])), spec.gate.map(|g| (g, [experts, inner, hidden]))];
    for (matrices, wanted) in shapes.into_iter().flatten() {
        let found = B::experts_shape(matrices);
        if found != wanted {
            return bad(format!("experts of the shape {found:?}, not {wanted:?}"));
        }
    }
    let found = B::matrix_shape(spec.router);
    if found != [experts, hidden] {
        return bad(format!("a router of the shape {found:?}, not {:?}", [experts, hidden]));
    }
    for (what, vector, wanted) in [
        ("router bias", spec.router_bias, experts),
        ("selection bias", spec.selection_bias, experts),
        ("gate bias", spec.gate_bias, experts * inner),
        ("up bias", spec.up_bias, experts * inner),
        ("down bias", spec.down_bias, experts * hidden),
    ] {
        if let Some(vector) = vector {
            expect(&format!("the length of a {what}"), B::vector_len(vector), wanted)?;
        }
    }
    if spec.gate.is_none() {
        ungated(spec.activation)?;
        if spec.gate_bias.is_some() || !spec.gate_lora.is_empty() {
            return bad("a bias or an adapter of a gate without a gate".into());
        }
    }
    let rows = b.rows(x);
    lora(spec.gate_lora, [experts, inner, hidden], rows)?;
    lora(spec.up_lora, [experts, inner, hidden], rows)?;
    lora(spec.down_lora, [experts, hidden, inner], rows)?;
    let used = spec.routing.used;
    if used == 0 || used > experts {
        return bad(format!("{used} experts for a row of {experts}"));
    }
    if let Some(groups) = spec.routing.groups {
        if groups.count == 0 || !experts.is_multiple_of(groups.count) {
            return bad(format!("{} groups of {experts} experts", groups.count));
        }
        if groups.used > groups.count || groups.used * (experts / groups.count) < used {
            return bad(format!("{used} experts from {} of {} groups", groups.used, groups.count));
        }
    }
    Ok(())
}

/// Checks the product of each head with its matrix.
pub(crate) fn each_head<B: Sizes>(
    b: &B,
    x: &B::Buffer,
    w: &B::Experts,
    out: &B::Buffer,
) -> Result<(), Error> {
    let [heads, outputs, inputs] = B::experts_shape(w);
    expect("the width of the heads", b.columns(x), heads * inputs)?;
    expect("the width of the heads' output", b.columns(out), heads * outputs)
}

/// Checks all operands of [`Backend::rope_store`] but for the batch and the cache.
pub(crate) fn rope_store<B: Sizes>(
    b: &B,
    spec: &Attention<'_, B>,
    rows: usize,
    [q, k, v]: [&B::Buffer; 3],
) -> Result<(), Error> {
    for (what, buffer, heads) in
        [("queries", q, spec.heads), ("keys", k, spec.kv_heads), ("values", v, spec.kv_heads)]
    {
        expect(&format!("the width of the {what}"), b.columns(buffer), heads * spec.head_dim)?;
        expect(&format!("the rows of the {what}"), b.rows(buffer), rows)?;
    }
    for (norm, heads) in [(&spec.q_norm, spec.heads), (&spec.k_norm, spec.kv_heads)] {
        let Some(norm) = norm else { continue };
        let whole = heads * spec.head_dim;
        let of_all = norm.weight.or(norm.bias).is_none_or(|parameters| B::vector_len(parameters) == whole);
        let columns = if of_all || spec.norm_span == NormSpan::Row { whole } else { spec.head_dim };
        self::norm(norm, columns)?;
    }
    if let Some(rotations) = spec.rotations {
        if b.columns(rotations) > spec.head_dim {
            expect("the rotated width of a head", b.columns(rotations), spec.head_dim)?;
        }
        expect("the rows of the rotations", b.rows(rotations), rows)?;
    }
    Ok(())
}

/// Checks all operands of [`Backend::attention`] but for the batch and the cache.
pub(crate) fn attend<B: Sizes>(
    b: &B,
    spec: &Attention<'_, B>,
    rows: usize,
    [q, out]: [&B::Buffer; 2],
) -> Result<(), Error> {
    expect("the width of the queries", b.columns(q), spec.heads * spec.head_dim)?;
    expect("the rows of the queries", b.rows(q), rows)?;
    if let Some(sinks) = spec.sinks {
        expect("the number of sinks", B::vector_len(sinks), spec.heads)?;
    }
    expect("the width of the attention's output", b.columns(out), b.columns(q))
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
    // A layer may have fewer heads than its slot has room for.
    if layout.kv_heads < spec.kv_heads
        || layout.head_dim != spec.head_dim
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
