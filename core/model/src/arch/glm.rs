//! Z.ai's GLM 4 and 4.5: norms around blocks; experts with a selection bias.

use realm_compute::{Gating, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;
use crate::spec::{NormPlaces, QkNormWeights, QkNorms};

pub(super) fn glm4(r: &Reader<'_>) -> Result<Shape, Error> {
    // Files of models that see images have their rows in the other order.
    let sections = r.metadata().get(&r.key("rope.dimension_sections")).is_some();
    let mut shape = Shape::plain(r, if sections { RopeStyle::Half } else { RopeStyle::Interleaved })?;
    shape.norms(NormPlaces::Around);
    Ok(shape)
}

pub(super) fn glm4moe(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    // GLM 4.5 has them, and GLM 4.5 Air does not.
    shape.qk_norms(QkNorms { weights: QkNormWeights::Optional, ..QkNorms::OF_HEADS });
    shape.experts(r, &Experts::plain(Gating::Sigmoid), r.shared_experts(None)?)?;
    Ok(shape)
}
