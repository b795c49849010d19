//! Activations on the GPU, and the forms in which the kernels of products read them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::driver::{Device, Memory};
use super::graph;
use super::matrix::{CHUNK, Form, QUARTER};
use crate::Error;

/// Activations on the GPU, `[rows, columns]`.
pub struct Buffer {
    device: Arc<Device>,
    data: Memory,
    /// Shared with recordings, which set it when they run.
    rows: Arc<AtomicUsize>,
    pub(crate) columns: usize,
    forms: Mutex<FormSet>,
}

/// A buffer's rows in the forms that products read, beside the floats. Remembers which forms products asked
/// for, so that the operations that fill the buffer make them in the same pass.
#[derive(Default)]
pub(crate) struct FormSet {
    /// Memory of each [`Form`].
    memory: [Option<Memory>; FORMS.len()],
    /// Rows that fit into the memory of each form.
    room: [usize; FORMS.len()],
    /// The forms that hold the current rows, as bits.
    valid: u32,
    /// The forms that were asked for, by bracket of rows: kernels for many rows read other forms.
    wanted: [u32; 4],
}

/// Index into [`FormSet::wanted`] for a number of rows.
fn bracket(rows: usize) -> usize {
    [8, 16, 32].into_iter().filter(|&most| rows > most).count()
}

/// The struct `Forms` of `activations.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Forms {
    q256: u64,
    sums16: u64,
    d256: u64,
    q32: u64,
    d32: u64,
    s32: u64,
    f16: u64,
    scale16: u64,
    t256: u64,
    tsums: u64,
    td256: u64,
    t16: u64,
    tscale16: u64,
    t32: u64,
    td32: u64,
    padded: i32,
    chunks: i32,
    room256: i32,
    room16: i32,
    room32: i32,
}

impl Forms {
    /// Returns the forms from row `row` on. Only for the forms whose rows lie one after the other.
    pub(crate) fn skip_rows(mut self, row: usize) -> Self {
        let (row, padded, chunks) = (row as u64, self.padded as u64, self.chunks as u64);
        for (address, bytes) in [
            (&mut self.q256, padded),
            (&mut self.sums16, padded / 8),
            (&mut self.d256, 4 * chunks),
            (&mut self.q32, padded),
            (&mut self.d32, padded / 8),
            (&mut self.s32, padded / 8),
            (&mut self.f16, 2 * padded),
            (&mut self.scale16, 4 * chunks),
        ] {
            if *address != 0 {
                *address += row * bytes;
            }
        }
        self
    }
}

const FORMS: [Form; 6] = [Form::Q256, Form::Q32, Form::F16, Form::T256, Form::T16, Form::T32];

/// Least rows for which the last three forms have room: the rows that a block of `hopper.cu` reads.
const LEAST_ROOM: usize = 128;

/// Bytes per row of codes, and of the two arrays that follow them.
fn form_bytes(form: Form, padded: usize, chunks: usize) -> [usize; 3] {
    match form {
        Form::Q256 => [padded, padded / 8, 4 * chunks],
        Form::Q32 => [padded, padded / 8, padded / 8],
        Form::F16 | Form::T16 => [2 * padded, 4 * chunks, 0],
        Form::T256 => [2 * padded, 32 * chunks, 4 * chunks],
        Form::T32 => [2 * padded, padded / 8, 0],
    }
}

impl Buffer {
    pub(crate) fn new(device: &Arc<Device>, rows: usize, columns: usize) -> Result<Self, Error> {
        let data = Memory::new(device, 0, "activations")?;
        let forms = Mutex::default();
        let mut buffer = Self { device: Arc::clone(device), data, rows: Arc::default(), columns, forms };
        buffer.set_rows(rows)?;
        Ok(buffer)
    }

    /// Number of rows that hold results.
    pub fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    /// Numbers in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn data(&self) -> &Memory {
        &self.data
    }

    pub(crate) fn data_mut(&mut self) -> &mut Memory {
        &mut self.data
    }

    /// Address of the floats.
    pub(crate) fn pointer(&self) -> u64 {
        self.data.pointer()
    }

    /// Makes room for `rows` rows; their contents are unspecified.
    pub(crate) fn set_rows(&mut self, rows: usize) -> Result<(), Error> {
        let bytes = rows * self.columns * 4;
        if self.data.bytes() < bytes {
            // Round up to a power of two: batches grow and shrink, memory only grows.
            let room = rows.next_power_of_two() * self.columns * 4;
            self.data = Memory::new(&self.device, 0, "activations")?;
            self.data = Memory::new(&self.device, room, "activations")?;
        }
        self.rows.store(rows, Ordering::Relaxed);
        graph::note_rows(&self.rows, rows);
        self.changed();
        Ok(())
    }

    /// The floats are about to change: the forms no longer hold them.
    pub(crate) fn changed(&mut self) {
        self.forms.get_mut().unwrap_or_else(|e| e.into_inner()).valid = 0;
    }

    pub(crate) fn forms(&self) -> MutexGuard<'_, FormSet> {
        self.forms.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Returns the addresses at which the operation that fills this buffer must also write the forms that
    /// products will want, and marks those forms valid.
    pub(crate) fn fill(&mut self) -> Result<Forms, Error> {
        let (rows, columns) = (self.rows(), self.columns);
        let forms = self.forms.get_mut().unwrap_or_else(|e| e.into_inner());
        let wanted = forms.wanted[bracket(rows)];
        forms.room_for(&self.device, rows, columns, wanted)?;
        forms.valid = wanted;
        Ok(forms.describe(columns, wanted))
    }
}

impl FormSet {
    /// Returns the forms in `needed` that are missing, and marks them valid, because the caller makes them.
    pub(crate) fn claim(&mut self, needed: u32, rows: usize) -> u32 {
        let missing = needed & !self.valid;
        self.wanted[bracket(rows)] |= needed;
        self.valid |= needed;
        missing
    }

    /// Returns whether these forms hold the current rows.
    pub(crate) fn has(&self, needed: u32) -> bool {
        needed & !self.valid == 0
    }

    /// The floats were changed, and no form with them.
    pub(crate) fn forget(&mut self) {
        self.valid = 0;
    }

    /// Allocates memory for `rows` rows of each form in `which`.
    pub(crate) fn room_for(
        &mut self,
        device: &Arc<Device>,
        rows: usize,
        columns: usize,
        which: u32,
    ) -> Result<(), Error> {
        for (i, form) in FORMS.into_iter().enumerate() {
            if which & form as u32 == 0 || self.room[i] >= rows {
                continue;
            }
            let (padded, chunks) = (columns.next_multiple_of(QUARTER), columns.div_ceil(CHUNK));
            let least = if matches!(form, Form::T256 | Form::T16 | Form::T32) { LEAST_ROOM } else { 1 };
            let room = rows.next_power_of_two().max(least);
            self.memory[i] = None;
            let bytes = room * form_bytes(form, padded, chunks).iter().sum::<usize>();
            self.memory[i] = Some(Memory::new(device, bytes, "activations")?);
            self.room[i] = room;
        }
        Ok(())
    }

    /// Returns addresses for the kernels; null for forms that are not in `which`.
    pub(crate) fn describe(&self, columns: usize, which: u32) -> Forms {
        let (padded, chunks) = (columns.next_multiple_of(QUARTER), columns.div_ceil(CHUNK));
        let at = |i: usize| -> [u64; 3] {
            match &self.memory[i] {
                Some(memory) if which & FORMS[i] as u32 != 0 => {
                    let [a, b, _] = form_bytes(FORMS[i], padded, chunks).map(|n| (n * self.room[i]) as u64);
                    [memory.pointer(), memory.pointer() + a, memory.pointer() + a + b]
                }
                _ => [0; 3],
            }
        };
        let ([q256, sums16, d256], [q32, d32, s32], [f16, scale16, _]) = (at(0), at(1), at(2));
        let ([t256, tsums, td256], [t16, tscale16, _], [t32, td32, _]) = (at(3), at(4), at(5));
        let (padded, chunks) = (padded as i32, chunks as i32);
        let [room256, room16, room32] = [3, 4, 5].map(|i: usize| self.room[i] as i32);
        #[rustfmt::skip]
        let forms = Forms {
            q256, sums16, d256, q32, d32, s32, f16, scale16, t256, tsums, td256, t16, tscale16, t32, td32, padded, chunks,
            room256, room16, room32,
        };
        forms
    }
}
