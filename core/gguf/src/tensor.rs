//! The tensor index.

use std::collections::HashSet;

use crate::reader::{Reader, error_at};
use crate::{Error, TensorType};

/// The index entry of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// The name, for example `blk.0.attn_q.weight`.
    pub name: String,
    /// The shape in GGUF order: the innermost dimension (a row's length) first.
    pub shape: Vec<u64>,
    /// The storage type of the numbers.
    pub ty: TensorType,
    /// The part of a split file that holds the tensor, from 0.
    pub(crate) part: usize,
    /// Byte offset in the part.
    pub(crate) offset: usize,
    /// Size in bytes.
    pub(crate) bytes: usize,
}

impl TensorInfo {
    /// Makes an entry for numbers that are not in a file, for tests and tools. `None` if the shape is empty,
    /// its rows are not whole blocks, or its size overflows.
    pub fn new(name: impl Into<String>, shape: Vec<u64>, ty: TensorType) -> Option<Self> {
        let bytes = size(&shape, ty).ok()?;
        Some(Self { name: name.into(), shape, ty, part: 0, offset: 0, bytes })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The part of a split file that holds the tensor, from 0.
    pub fn part(&self) -> usize {
        self.part
    }

    /// Byte offset in the part.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.bytes / self.ty.block_bytes() * self.ty.block_len()
    }

    /// Returns whether there are no weights.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// A tensor: its index entry and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Name, shape and type.
    pub info: &'a TensorInfo,
    /// The blocks, row after row.
    pub data: &'a [u8],
}

impl Tensor<'_> {
    /// Returns the entry and the bytes of rows `rows` of a matrix, for fused tensors that hold several
    /// matrices one after the other. `None` if the tensor is not a matrix or has fewer rows.
    pub fn rows(&self, rows: std::ops::Range<u64>) -> Option<(TensorInfo, &[u8])> {
        let &[columns, all] = &self.info.shape[..] else { return None };
        if rows.start >= rows.end || rows.end > all {
            return None;
        }
        let row_bytes = self.info.bytes as u64 / all;
        let data = &self.data[(rows.start * row_bytes) as usize..(rows.end * row_bytes) as usize];
        let name = format!("{}[{}..{}]", self.info.name, rows.start, rows.end);
        Some((TensorInfo::new(name, vec![columns, rows.end - rows.start], self.info.ty)?, data))
    }
}

/// Returns the bytes of a tensor, or the reason why such a tensor cannot exist.
fn size(shape: &[u64], ty: TensorType) -> Result<usize, String> {
    let row = shape.first().copied().unwrap_or(0);
    if row == 0 || shape.len() > 4 {
        return Err(format!("shape {shape:?}: 1 to 4 dimensions that are not 0 are possible"));
    }
    let block = ty.block_len() as u64;
    if row % block != 0 {
        return Err(format!("shape {shape:?}: a row is not a multiple of {ty}'s {block} numbers"));
    }
    // The number of weights has to fit too: types with less than a byte per weight have more weights than
    // bytes.
    let weights =
        shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim)).filter(|&n| n > 0 && n <= i64::MAX as u64);
    weights
        .and_then(|n| (n / block).checked_mul(ty.block_bytes() as u64))
        .and_then(|bytes| isize::try_from(bytes).ok())
        .map(isize::cast_unsigned)
        .ok_or_else(|| format!("shape {shape:?}: its size overflows or is 0"))
}

/// Reads the index of one part. Offsets are still relative to the data section.
pub(crate) fn read_index(
    r: &mut Reader<'_>,
    count: usize,
    part: usize,
) -> Result<Vec<(TensorInfo, usize)>, Error> {
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for i in 0..count {
        let start = r.offset();
        let name = r.string(&format!("name of tensor {i}"))?;
        let field = || format!("tensor `{}`", short(name));
        if name.is_empty() || name.len() > 1024 {
            return Err(error_at(start, field(), "a name has 1 to 1024 bytes"));
        }
        if !names.insert(name) {
            return Err(error_at(start, field(), "is there twice"));
        }
        let at = r.offset();
        let dims = r.u32(&field())?;
        if dims == 0 || dims > 4 {
            return Err(error_at(at, field(), format!("{dims} dimensions; 1 to 4 are possible")));
        }
        let shape = (0..dims).map(|_| r.u64(&field())).collect::<Result<Vec<_>, _>>()?;
        let at = r.offset();
        let ty = TensorType::from_id(r.u32(&field())?).map_err(|why| error_at(at, field(), why))?;
        let bytes = size(&shape, ty).map_err(|why| error_at(start, field(), why))?;
        let at = r.offset();
        let offset = r.u64(&field())?;
        let offset =
            usize::try_from(offset).map_err(|_| error_at(at, field(), format!("offset {offset}")))?;
        tensors.push((TensorInfo { name: name.to_owned(), shape, ty, part, offset, bytes }, at));
    }
    Ok(tensors)
}

/// Makes offsets absolute and checks that every tensor lies within the file, which has `len` bytes, and that
/// no two overlap.
pub(crate) fn place(
    tensors: Vec<(TensorInfo, usize)>,
    data_start: usize,
    alignment: usize,
    len: u64,
) -> Result<Vec<TensorInfo>, Error> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let unfinished = whole_file(&tensors, data_start, alignment).map(|end| end as u64);
    let mut placed: Vec<(TensorInfo, usize)> = tensors
        .into_iter()
        .map(|(mut t, at)| {
            let error = |why: String| error_at(at, format!("tensor `{}`", short(&t.name)), why);
            if t.offset % alignment != 0 {
                return Err(error(format!(
                    "offset {} is not a multiple of the alignment {alignment}",
                    t.offset
                )));
            }
            let end = data_start.checked_add(t.offset).and_then(|s| s.checked_add(t.bytes));
            if end.is_none_or(|end| end > len) {
                if let Some(needed) = unfinished {
                    return Err(Error::Incomplete { len: len as u64, needed });
                }
                let (offset, bytes) = (t.offset, t.bytes);
                let left = len.saturating_sub(data_start);
                return Err(error(format!("{bytes} bytes at offset {offset} of {left} bytes of data")));
            }
            t.offset += data_start;
            Ok((t, at))
        })
        .collect::<Result<_, _>>()?;
    let mut order: Vec<usize> = (0..placed.len()).collect();
    order.sort_by_key(|&i| placed[i].0.offset);
    for pair in order.windows(2) {
        let ((a, _), (b, at)) = (&placed[pair[0]], &placed[pair[1]]);
        if a.offset + a.bytes > b.offset {
            let why = format!("overlaps tensor `{}`", short(&a.name));
            return Err(error_at(*at, format!("tensor `{}`", short(&b.name)), why));
        }
    }
    Ok(placed.drain(..).map(|(t, _)| t).collect())
}

/// Returns the bytes that the complete file has, if the index is one that a writer makes: tensors side by
/// side, with at most the alignment between them. An index with gaps is malformed, and its file's expected
/// length is unknown.
fn whole_file(tensors: &[(TensorInfo, usize)], data_start: usize, alignment: usize) -> Option<usize> {
    let (mut end, mut packed) = (0usize, 0usize);
    for (tensor, _) in tensors {
        end = end.max(tensor.offset.checked_add(tensor.bytes)?);
        packed = packed.checked_add(tensor.bytes.checked_next_multiple_of(alignment)?)?;
    }
    data_start.checked_add(end).filter(|_| end <= packed)
}

/// Makes a name safe to print.
pub(crate) fn short(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}
