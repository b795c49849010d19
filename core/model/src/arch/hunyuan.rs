//! Tencent's dense Hunyuan: norms of queries and keys behind the rotation.

use realm_compute::RopeStyle;

use super::reader::Reader;
use super::shape::Shape;
use crate::Error;
use crate::spec::QkNorms;

pub(super) fn hunyuan_dense(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.qk_norms(QkNorms { after_rope: true, ..QkNorms::OF_HEADS });
    Ok(shape)
}
