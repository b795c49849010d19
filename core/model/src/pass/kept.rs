//! Rows of logits that stay on a device beyond their pass. Most readers want only some of their numbers, and
//! those are on the host already.
//!
//! After a pass its rows are copied on the device, to a buffer that no other operation writes to. There are
//! at most [`MOST`] such buffers. If all are taken, the held rows of the oldest go to the host, and its
//! buffer is used again. So holding a row costs other requests at most a copy of that row.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use realm_compute::Backend;

use crate::Error;

/// A row of logits that is still on its device.
pub trait KeptRow: Send + Sync {
    /// Copies the row to the host, `[vocab]`, replacing the contents of `out`. Any thread may call this at
    /// any time.
    ///
    /// # Errors
    /// The device could not be read.
    fn read(&self, out: &mut Vec<f32>) -> Result<(), Error>;
}

/// Most buffers, and so most passes whose rows are on the device.
const MOST: usize = 4;
/// Least rows that a buffer has room for: growing memory would invalidate recorded passes.
const LEAST_ROWS: usize = 16;

/// The pool of buffers for rows.
pub(crate) struct Shelf<B: Backend> {
    backend: Arc<B>,
    columns: usize,
    inner: Mutex<Inner<B>>,
}

struct Inner<B: Backend> {
    free: Vec<B::Buffer>,
    made: usize,
    /// Rows that are in use, the oldest first.
    out: VecDeque<Weak<KeptRows<B>>>,
}

/// The rows of one pass.
pub(crate) struct KeptRows<B: Backend> {
    shelf: Arc<Shelf<B>>,
    place: Mutex<Place<B>>,
    /// Set for each row that has a holder.
    held: Box<[AtomicBool]>,
}

enum Place<B: Backend> {
    Device(B::Buffer),
    /// Rows that were held when the buffer was taken back.
    Host(Vec<Option<Vec<f32>>>),
}

/// A held row.
struct Row<B: Backend> {
    rows: Arc<KeptRows<B>>,
    index: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Backend> Shelf<B> {
    pub(crate) fn new(backend: Arc<B>, columns: usize) -> Arc<Self> {
        let inner = Mutex::new(Inner { free: Vec::new(), made: 0, out: VecDeque::new() });
        Arc::new(Self { backend, columns, inner })
    }

    /// Copies the rows of `logits` on the device.
    pub(crate) fn keep(self: &Arc<Self>, logits: &B::Buffer) -> Result<Arc<KeptRows<B>>, Error> {
        let count = self.backend.rows(logits);
        let mut buffer = self.buffer(count)?;
        let all: Vec<u32> = (0..count as u32).collect();
        self.backend.gather(logits, &all, &mut buffer)?;
        let held = (0..count).map(|_| AtomicBool::new(false)).collect();
        let place = Mutex::new(Place::Device(buffer));
        let rows = Arc::new(KeptRows { shelf: Arc::clone(self), place, held });
        lock(&self.inner).out.push_back(Arc::downgrade(&rows));
        Ok(rows)
    }

    /// Returns a free buffer; takes back the oldest one in use if there is none.
    fn buffer(&self, rows: usize) -> Result<B::Buffer, Error> {
        loop {
            let oldest = {
                let mut inner = lock(&self.inner);
                inner.out.retain(|rows| rows.strong_count() > 0);
                if let Some(buffer) = inner.free.pop() {
                    return Ok(buffer);
                }
                if inner.made < MOST {
                    let buffer = self.backend.buffer(rows.max(LEAST_ROWS), self.columns)?;
                    inner.made += 1;
                    return Ok(buffer);
                }
                inner.out.pop_front()
            };
            // Outside the lock, because dropping the last holder of rows returns their buffer, which takes
            // the lock.
            if let Some(rows) = oldest.and_then(|rows| rows.upgrade()) {
                rows.leave()?;
            }
        }
    }
}

impl<B: Backend> KeptRows<B> {
    /// Gives the buffer back; held rows are copied to the host.
    fn leave(&self) -> Result<(), Error> {
        let mut place = lock(&self.place);
        let Place::Device(buffer) = &*place else { return Ok(()) };
        let mut copies = Vec::with_capacity(self.held.len());
        for (index, held) in self.held.iter().enumerate() {
            let mut copy = None;
            if held.load(Ordering::Acquire) {
                self.shelf.backend.read_row(buffer, index, copy.insert(Vec::new()))?;
            }
            copies.push(copy);
        }
        if let Place::Device(buffer) = std::mem::replace(&mut *place, Place::Host(copies)) {
            lock(&self.shelf.inner).free.push(buffer);
        }
        Ok(())
    }

    /// Returns a handle that holds row `index`. Must be called before the next pass starts.
    pub(crate) fn row(self: &Arc<Self>, index: usize) -> Option<Box<dyn KeptRow>> {
        self.held.get(index)?.store(true, Ordering::Release);
        Some(Box::new(Row { rows: Arc::clone(self), index }))
    }
}

impl<B: Backend> Drop for KeptRows<B> {
    fn drop(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Place::Device(buffer) = std::mem::replace(place, Place::Host(Vec::new())) {
            lock(&self.shelf.inner).free.push(buffer);
        }
    }
}

impl<B: Backend> KeptRow for Row<B> {
    fn read(&self, out: &mut Vec<f32>) -> Result<(), Error> {
        match &*lock(&self.rows.place) {
            Place::Device(buffer) => Ok(self.rows.shelf.backend.read_row(buffer, self.index, out)?),
            Place::Host(copies) => {
                let copy = copies.get(self.index).and_then(Option::as_ref);
                let copy = copy.ok_or_else(|| Error::InvalidBatch("a row that no handle holds".into()))?;
                out.clone_from(copy);
                Ok(())
            }
        }
    }
}

impl<B: Backend> Drop for Row<B> {
    fn drop(&mut self) {
        if let Some(held) = self.rows.held.get(self.index) {
            held.store(false, Ordering::Release);
        }
    }
}
