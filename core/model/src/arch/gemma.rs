//! Gemma 2 and 3.

use realm_compute::{Activation, RopeStyle};

use super::reader::Reader;
use super::shape::Shape;
use crate::Error;
use crate::spec::{NormPlaces, QkNorms};

/// Reads what both generations have in common. The largest model of each, of `largest` layers, scales
/// attention scores by the hidden size per head instead of the head's own size.
fn gemma(r: &Reader<'_>, largest: usize) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.norms(NormPlaces::Around);
    shape.dense(true, Activation::GeluTanh);
    shape.embedding_scale = (shape.hidden as f32).sqrt();
    if shape.layers.len() == largest {
        let hidden = shape.hidden as f32;
        shape.attention(|_, attention| attention.scale = 1.0 / (hidden / attention.heads as f32).sqrt());
    }
    shape.attention_scale(r)?;
    Ok(shape)
}

pub(super) fn gemma2(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = gemma(r, 46)?;
    // The first files lack the window and the caps.
    let window = r.dim_or_none("attention.sliding_window")?.unwrap_or(4096);
    shape.windows(r, window, 2);
    let cap = r.optional_float("attn_logit_softcapping")?.unwrap_or(50.0);
    shape.attention(|_, attention| attention.soft_cap = Some(cap));
    shape.final_soft_cap = Some(r.optional_float("final_logit_softcapping")?.unwrap_or(30.0));
    Ok(shape)
}

pub(super) fn gemma3(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = gemma(r, 62)?;
    shape.qk_norms(QkNorms::OF_HEADS);
    let cap = r.optional_float("attn_logit_softcapping")?;
    shape.attention(|_, attention| attention.soft_cap = cap);
    shape.final_soft_cap = r.optional_float("final_logit_softcapping")?;
    let Some(window) = r.dim_or_none("attention.sliding_window")? else { return Ok(shape) };
    shape.windows(r, window, 6);
    shape.rope_in_windows(r)?;
    if r.optional_float("rope.freq_base_swa")?.is_none() {
        shape.ropes[1].base = 10_000.0;
    }
    Ok(shape)
}
