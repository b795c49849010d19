//! Tencent's dense Hunyuan: norms of queries and keys behind the rotation.

use realm_compute::{NormKind, NormSpan, RopeStyle};

use super::reader::Reader;
use super::shape::Shape;
use crate::Error;
use crate::spec::{QkNormWeights, QkNorms};

pub(super) fn hunyuan_dense(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    let norms = QkNorms {
        kind: NormKind::Rms,
        span: NormSpan::Head,
        after_rope: true,
        weights: QkNormWeights::Required,
    };
    shape.attention(|_, attention| attention.qk_norms = Some(norms));
    Ok(shape)
}
