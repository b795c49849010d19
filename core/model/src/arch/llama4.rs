//! Llama 4's language part: chunked attention, layers without rope, experts that weight their input.

use realm_compute::{Gating, RopeStyle, Temperature, Window};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;
use crate::spec::{QkNormWeights, QkNorms};

/// Tokens in a chunk, and positions after which the temperature changes: files do not have them.
const CHUNK: usize = 8192;

pub(super) fn llama4(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Interleaved)?;
    shape.attention_scale(r)?;
    let chunk = r.optional_dim("attention.sliding_window")?.unwrap_or(CHUNK);
    let period = r.optional_dim("attention.temperature_length")?.unwrap_or(CHUNK);
    // Maverick, of 128 experts, has no norms of queries and keys.
    let norms = QkNorms { after_rope: true, weights: QkNormWeights::None, ..QkNorms::OF_HEADS };
    let norms = (r.dim("expert_count")? != 128).then_some(norms);
    shape.windows(r, chunk, 4);
    shape.attention(|_, attention| {
        if attention.window.is_some() {
            attention.window = Some(Window::Chunked(chunk));
            attention.qk_norms = norms;
        } else {
            attention.rope = None;
            attention.temperature = Some(Temperature { offset: 1.0, period: period as f32, scale: 0.1 });
        }
    });
    let shared = r.dim("expert_feed_forward_length")?;
    let defaults = Experts { weights_input: true, ..Experts::plain(Gating::Sigmoid) };
    shape.experts(r, &defaults, Some(shared))?;
    Ok(shape)
}
