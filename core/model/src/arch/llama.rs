//! Llama and what shares its architecture in GGUF files: Mistral, Mixtral, SmolLM2 and many others.

use realm_compute::{Gating, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;

pub(super) fn llama(r: &Reader<'_>) -> Result<Shape, Error> {
    // Files of the llama family have their query and key rows permuted for this style.
    let mut shape = Shape::plain(r, RopeStyle::Interleaved)?;
    shape.attention_scale(r)?;
    if let Some(window) = r.dim_or_none("attention.sliding_window")? {
        shape.windows(r, window, 0);
    }
    if r.dim_or_none("expert_count")?.is_some() {
        shape.experts(r, &Experts { normalize: true, ..Experts::plain(Gating::Softmax) }, None)?;
    }
    Ok(shape)
}
