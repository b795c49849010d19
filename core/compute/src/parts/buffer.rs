//! Activations that move to the part that needs them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::member::{AnyBuffer, Member, Part, on};
use crate::{Backend, Error};

/// Activations, `[rows, columns]`: a buffer on each part that has used them; some of these buffers hold the
/// current rows.
pub struct Buffer {
    columns: usize,
    rows: usize,
    copies: Mutex<Copies>,
}

#[derive(Default)]
struct Copies {
    on: Vec<Option<AnyBuffer>>,
    /// Parts whose buffer holds the current rows, one bit each.
    valid: u64,
    /// The part that used the buffer last.
    latest: usize,
}

/// A buffer as one part sees it.
pub(crate) struct Here<'a> {
    copies: MutexGuard<'a, Copies>,
    part: usize,
}

impl Here<'_> {
    pub(crate) fn get(&self) -> Result<&AnyBuffer, Error> {
        self.copies.on.get(self.part).and_then(Option::as_ref).ok_or_else(missing)
    }
}

fn missing() -> Error {
    Error::InvalidArgument("a buffer that nothing was written to".into())
}

impl Buffer {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        Self { columns, rows, copies: Mutex::default() }
    }

    /// Number of rows that hold results.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part that used the buffer last.
    pub(crate) fn latest(&self) -> usize {
        self.copies().latest
    }

    /// Borrows the buffer for reading on a part; copies the rows there unless the part already has them.
    pub(crate) fn at(&self, parts: &[Part], part: usize) -> Result<Here<'_>, Error> {
        let mut copies = self.copies();
        copies.bring(parts, part, [self.rows, self.columns])?;
        Ok(Here { copies, part })
    }

    /// Borrows the buffer for changing in place on a part; the other parts' copies become stale.
    pub(crate) fn own(&mut self, parts: &[Part], part: usize) -> Result<&mut AnyBuffer, Error> {
        let shape = [self.rows, self.columns];
        let copies = self.copies.get_mut().unwrap_or_else(PoisonError::into_inner);
        copies.bring(parts, part, shape)?;
        copies.valid = 1 << part;
        copies.on[part].as_mut().ok_or_else(missing)
    }

    /// Borrows the buffer for filling on a part with `rows` rows, discarding its contents.
    pub(crate) fn fill(&mut self, parts: &[Part], part: usize, rows: usize) -> Result<&mut AnyBuffer, Error> {
        self.rows = rows;
        let columns = self.columns;
        let copies = self.copies.get_mut().unwrap_or_else(PoisonError::into_inner);
        copies.make(parts, part, columns)?;
        (copies.valid, copies.latest) = (1 << part, part);
        copies.on[part].as_mut().ok_or_else(missing)
    }

    /// Fills the buffer on every part with the same `rows` rows.
    pub(crate) fn fill_all(
        &mut self,
        parts: &[Part],
        rows: usize,
        mut each: impl FnMut(usize, &mut AnyBuffer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for part in 0..parts.len() {
            each(part, self.fill(parts, part, rows)?)?;
        }
        self.copies.get_mut().unwrap_or_else(PoisonError::into_inner).valid = !0;
        Ok(())
    }
}

impl Copies {
    fn make(&mut self, parts: &[Part], part: usize, columns: usize) -> Result<(), Error> {
        self.on.resize_with(parts.len().max(self.on.len()), || None);
        if self.on[part].is_none() {
            self.on[part] = Some(parts[part].buffer(0, columns)?);
        }
        Ok(())
    }

    fn bring(&mut self, parts: &[Part], part: usize, [rows, columns]: [usize; 2]) -> Result<(), Error> {
        self.make(parts, part, columns)?;
        let from = std::mem::replace(&mut self.latest, part);
        if self.valid & 1 << part != 0 {
            return Ok(());
        }
        let mut to = self.on[part].take().ok_or_else(missing)?;
        let crossed = match self.on[from].as_ref().filter(|_| self.valid & 1 << from != 0) {
            Some(source) => cross((&parts[from], source), (&parts[part], &mut to)),
            // Nothing has been written yet.
            None => on!(&parts[part], |b| b.write(&vec![0.0; rows * columns], b.buffer_in_mut(&mut to)?)),
        };
        self.on[part] = Some(to);
        crossed?;
        self.valid |= 1 << part;
        Ok(())
    }
}

/// Copies rows from one part to another: directly, where the devices have a way, or through the host.
fn cross(from: (&Part, &AnyBuffer), to: (&Part, &mut AnyBuffer)) -> Result<(), Error> {
    if let Some(done) = to.0.take_rows(to.1, from) {
        return done;
    }
    let mut copy = Vec::new();
    let values = on!(from.0, |b| {
        let x = b.buffer_in(from.1)?;
        match b.host(x) {
            Some(values) => values,
            None => {
                b.read(x, &mut copy)?;
                &copy
            }
        }
    });
    on!(to.0, |b| b.write(values, b.buffer_in_mut(to.1)?))
}
