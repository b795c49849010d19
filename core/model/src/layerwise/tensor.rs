//! Tensors on a backend.

use std::ops::Range;

use realm_compute::Backend;

use crate::Error;

/// A tensor: one buffer for each call that appended rows.
pub(super) struct Tensor<B: Backend> {
    pub(super) width: usize,
    pub(super) parts: Vec<Part<B>>,
}

pub(super) struct Part<B: Backend> {
    pub(super) rows: Range<usize>,
    pub(super) buffer: B::Buffer,
}

impl<B: Backend> Tensor<B> {
    pub(super) fn rows(&self) -> usize {
        self.parts.last().map_or(0, |part| part.rows.end)
    }

    /// Index of the buffer that has a row.
    pub(super) fn part(&self, row: usize) -> Option<usize> {
        let at = self.parts.partition_point(|part| part.rows.end <= row);
        (at < self.parts.len()).then_some(at)
    }

    /// Returns the buffer that has all of these rows, and their range in it.
    fn within(&self, rows: &Range<usize>) -> Option<(&B::Buffer, Range<usize>)> {
        let part = &self.parts[self.part(rows.start)?];
        let (start, end) = (rows.start - part.rows.start, rows.end - part.rows.start);
        (rows.end <= part.rows.end).then_some((&part.buffer, start..end))
    }

    /// Appends rows' values to `out`.
    pub(super) fn read(&self, b: &B, rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), Error> {
        let mut row = rows.start;
        while row < rows.end {
            let part = self.part(row).and_then(|at| self.parts.get(at)).ok_or_else(|| missing("row"))?;
            let end = rows.end.min(part.rows.end);
            let (from, to) = (row - part.rows.start, end - part.rows.start);
            if let Some(host) = b.host(&part.buffer) {
                out.extend_from_slice(&host[from * self.width..to * self.width]);
            } else if to - from == part.rows.len() {
                append(b, &part.buffer, out)?;
            } else {
                let mut some = b.buffer(0, self.width)?;
                b.gather(&part.buffer, &range(from..to), &mut some)?;
                append(b, &some, out)?;
            }
            row = end;
        }
        Ok(())
    }

    /// Copies rows to a buffer of their own.
    pub(super) fn copy(&self, b: &B, rows: Range<usize>, out: &mut B::Buffer) -> Result<(), Error> {
        match self.within(&rows) {
            Some((buffer, rows)) => b.gather(buffer, &range(rows), out)?,
            None => {
                let mut values = Vec::new();
                self.read(b, rows.clone(), &mut values)?;
                *out = b.buffer(rows.len(), self.width)?;
                b.write(&values, out)?;
            }
        }
        Ok(())
    }
}

pub(super) fn missing(what: &str) -> Error {
    Error::InvalidBatch(format!("there is no such {what}"))
}

/// Appends a buffer's values to `out`.
pub(super) fn append<B: Backend>(b: &B, buffer: &B::Buffer, out: &mut Vec<f32>) -> Result<(), Error> {
    if let Some(host) = b.host(buffer) {
        out.extend_from_slice(host);
        return Ok(());
    }
    let mut values = Vec::new();
    b.read(buffer, &mut values)?;
    out.append(&mut values);
    Ok(())
}

fn range(rows: Range<usize>) -> Vec<u32> {
    (rows.start as u32..rows.end as u32).collect()
}
