//! Mistral Small 3 and Ministral 3: Llama's layers, with a temperature by position.

use realm_compute::Temperature;

use super::llama::llama;
use super::reader::Reader;
use super::shape::Shape;
use crate::Error;
use crate::rope::{RopeScaling, yarn_magnitude};

pub(super) fn mistral3(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = llama(r)?;
    let mut original = shape.context_length;
    if let RopeScaling::Yarn { factor, original_context, magnitude, .. } = &mut shape.ropes[0].scaling {
        original = *original_context;
        if let Some(multiplier) = r.float_or_none("rope.scaling.yarn_log_multiplier")? {
            *magnitude /= yarn_magnitude(*factor, multiplier);
        }
    }
    if let Some(scale) = r.float_or_none("attention.temperature_scale")? {
        let temperature = Temperature { offset: 0.0, period: original as f32, scale };
        shape.attention(|_, attention| attention.temperature = Some(temperature));
    }
    Ok(shape)
}
