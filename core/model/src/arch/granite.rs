//! IBM's Granite 3 and 4, dense and with experts: multipliers on embeddings, residual stream and logits.

use realm_compute::{Gating, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;

pub(super) fn granite(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Interleaved)?;
    shape.attention_scale(r)?;
    shape.embedding_scale = r.float_or_none("embedding_scale")?.unwrap_or(1.0);
    shape.residual_scale = r.float_or_none("residual_scale")?.unwrap_or(1.0);
    shape.logit_scale = 1.0 / r.float_or_none("logit_scale")?.unwrap_or(1.0);
    if r.flag("rope.scaling.finetuned") == Some(false) {
        shape.no_rope(|_, _| true);
    }
    if r.dim_or_none("expert_count")?.is_some() {
        let shared = r.dim_or_none("expert_shared_feed_forward_length")?;
        shape.experts(r, &Experts { normalize: true, ..Experts::plain(Gating::Softmax) }, shared)?;
    }
    Ok(shape)
}
