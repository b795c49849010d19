//! DeepSeek V2, V3 and R1 and what shares their architecture: a latent state of keys and values.

use realm_compute::{Gating, GroupRank, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;
use crate::rope::{RopeScaling, yarn_magnitude};
use crate::spec::{FeedForwardSpec, LatentSpec};

pub(super) fn deepseek2(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Interleaved)?;
    // Older files have the lengths of heads' keys and values where newer ones have those of the cache.
    let key = r.optional_dim("attention.key_length_mla")?;
    let value = r.optional_dim("attention.value_length_mla")?;
    let key = key.map_or_else(|| r.dim("attention.key_length"), Ok)?;
    let value = value.map_or_else(|| r.dim("attention.value_length"), Ok)?;
    let rotated = r.dim("rope.dimension_count")?;
    let Some(plain) = key.checked_sub(rotated).filter(|&plain| plain > 0) else {
        return Err(Error::InvalidModel(format!("{rotated} rotated numbers in heads of {key}")));
    };
    let latent = LatentSpec {
        query_rank: r.dim_or_none("attention.q_lora_rank")?,
        rank: r.dim("attention.kv_lora_rank")?,
        rotated,
        plain,
        value,
    };
    let rope = &mut shape.ropes[0];
    rope.dim = rotated;
    let mut scale = 1.0 / (key as f32).sqrt();
    let multiplier = r.float_or_none("rope.scaling.yarn_log_multiplier")?;
    if let RopeScaling::Yarn { factor, magnitude, .. } = &mut rope.scaling {
        // The magnitude goes to the scores, because only a part of a key is rotated.
        let multiplier = multiplier.map_or(0.0, |multiplier| 10.0 * multiplier);
        if multiplier != 0.0 {
            *magnitude /= yarn_magnitude(*factor, 1.0);
        }
        scale *= (*magnitude * yarn_magnitude(*factor, multiplier)).powi(2);
    }
    shape.attention(|_, attention| {
        attention.latent = Some(latent);
        attention.kv_heads = 1;
        attention.head_dim = latent.rotated + latent.rank;
        attention.scale = scale;
    });
    let shared = r.shared_experts(None)?;
    if r.dim_or_none("expert_count")?.is_some() {
        shape.experts(r, &Experts::plain(Gating::Softmax), shared)?;
        // Groups compete otherwise in V2 than in V3; files do not say so, but V3 has sigmoids.
        for layer in &mut shape.layers {
            if let FeedForwardSpec::Experts(experts) = &mut layer.feed_forward
                && experts.routing.gating == Gating::Softmax
                && let Some(groups) = &mut experts.routing.groups
            {
                groups.rank = GroupRank::Best;
            }
        }
    }
    Ok(shape)
}
