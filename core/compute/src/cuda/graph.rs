//! Recorded passes: when a batch of the same shape comes again, all its kernels start as one CUDA graph.
//!
//! A pass over decoding rows starts about 300 kernels of several microseconds each; starting them one by one
//! takes the host as long as running them. Everything that changes from pass to pass (tokens, positions, page
//! tables) is read from memory at fixed addresses, so a recording is valid for every batch with the same
//! number of rows and about the same context. It stays valid as long as no memory is freed that it may use.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::decode::Waiting;
use super::driver::{Device, Graph};
use super::plan::{Fit, Plan};
use crate::{Batch, CacheLayout, Error};

/// Most recordings; beyond, the least recently used one is dropped.
const MOST: usize = 96;
/// Most rows of a recorded batch.
const MOST_ROWS: usize = 128;

/// The properties that two batches must share to use one recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Identifies the model and its buffers.
    owner: u64,
    rows: usize,
    leaves: usize,
    top_k: bool,
}

impl Shape {
    /// Returns the shape of a batch if it is recorded: every row decodes, and all logits are wanted.
    pub(crate) fn of(owner: u64, batch: &Batch) -> Option<Self> {
        let rows = batch.rows();
        let decoding = rows > 0
            && rows <= MOST_ROWS
            && batch.spans.len() == rows
            && batch.outputs.len() == rows
            && batch.hidden.is_empty()
            && batch.spans.iter().all(|span| span.adapter.is_none());
        decoding.then(|| Self {
            owner,
            rows,
            leaves: Plan::most_leaves(&batch.positions),
            top_k: batch.top_k,
        })
    }
}

/// Side effects of the recorded operations on the host.
#[derive(Default)]
struct Notes {
    /// Row counts that the pass gave to buffers.
    rows: Vec<(Arc<AtomicUsize>, usize)>,
    /// The layout of the cache, and what the plan depends on.
    attention: Option<(CacheLayout, Fit)>,
    /// Set if the pass did something that a recording cannot repeat.
    spoiled: bool,
    /// An operation that waits for the next one; see `decode.rs`.
    waiting: Option<Waiting>,
}

thread_local! {
    static NOTES: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

/// Returns whether this thread records a pass.
pub(crate) fn recording() -> bool {
    NOTES.with_borrow(Option::is_some)
}

/// Has an operation wait, while this thread records. Nothing else waits.
pub(crate) fn wait_with(waiting: Waiting) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            notes.waiting = Some(waiting);
        }
    });
}

/// Takes the operation that waits on this device.
pub(crate) fn waiting(device: *const Device) -> Option<Waiting> {
    NOTES.with_borrow_mut(|notes| notes.as_mut()?.waiting.take_if(|waiting| waiting.is_of(device)))
}

/// Notes that a buffer holds `count` rows.
pub(crate) fn note_rows(rows: &Arc<AtomicUsize>, count: usize) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            notes.rows.push((Arc::clone(rows), count));
        }
    });
}

/// Notes the layout of the cache and the fit of a layer, on which the plan of a batch depends.
pub(crate) fn note_attention(layout: &CacheLayout, fit: Fit) {
    NOTES.with_borrow_mut(|notes| {
        let Some(notes) = notes else { return };
        match &mut notes.attention {
            Some((noted, all)) => {
                notes.spoiled |= noted != layout;
                *all = all.with(fit);
            }
            None => notes.attention = Some((layout.clone(), fit)),
        }
    });
}

/// Notes that the pass cannot be repeated.
pub(crate) fn spoil() {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            notes.spoiled = true;
        }
    });
}

/// A recorded pass.
pub(crate) struct Recording {
    shape: Shape,
    /// `None` if this shape was met only once, or cannot be recorded.
    graph: Option<Graph>,
    failed: bool,
    rows: Vec<(Arc<AtomicUsize>, usize)>,
    attention: Option<(CacheLayout, Fit)>,
    used: u64,
}

impl Recording {
    /// Returns the plan of a batch of this shape, if the pass has attention.
    pub(crate) fn plan(&self, batch: &Batch) -> Option<Plan> {
        self.attention.as_ref().map(|(layout, fit)| Plan::new(batch, layout, *fit))
    }

    /// Starts the kernels. The batch's tokens, positions and tables must be in their places.
    pub(crate) fn launch(&self) -> Result<(), Error> {
        for (rows, count) in &self.rows {
            rows.store(*count, Ordering::Relaxed);
        }
        self.graph.as_ref().map_or(Ok(()), Graph::launch)
    }
}

/// All recordings of a backend.
#[derive(Default)]
pub(crate) struct Recordings {
    all: Vec<Recording>,
    clock: u64,
    /// The device's count of freed memory when the recordings were made.
    freed: u64,
}

/// The way to run a batch of a shape.
pub(crate) enum Advice {
    /// Run it operation by operation.
    Run,
    /// Record it.
    Record,
    /// Launch the recording of this number.
    Launch(usize),
}

impl Recordings {
    /// Decides how to run a batch of this shape. The first batch runs normally, which allocates all memory;
    /// the second is recorded.
    pub(crate) fn advise(&mut self, device: &Device, shape: Shape) -> Advice {
        if self.freed != device.freed() {
            self.all.clear();
            self.freed = device.freed();
        }
        self.clock += 1;
        let clock = self.clock;
        if let Some(at) = self.all.iter().position(|r| r.shape == shape) {
            let recording = &mut self.all[at];
            recording.used = clock;
            return match recording {
                Recording { graph: Some(_), .. } => Advice::Launch(at),
                Recording { failed: true, .. } => Advice::Run,
                _ => Advice::Record,
            };
        }
        if self.all.len() >= MOST
            && let Some(oldest) = (0..self.all.len()).min_by_key(|&i| self.all[i].used)
        {
            self.all.swap_remove(oldest);
        }
        let (graph, failed, rows, attention) = (None, false, Vec::new(), None);
        self.all.push(Recording { shape, graph, failed, rows, attention, used: clock });
        Advice::Run
    }

    /// Returns whether no memory was freed since the recordings were made.
    pub(crate) fn is_current(&self, freed: u64) -> bool {
        self.freed == freed
    }

    pub(crate) fn get(&self, at: usize) -> &Recording {
        &self.all[at]
    }

    /// Keeps the result of [`record`] and returns its number; `None` if recording failed or memory was freed
    /// meanwhile.
    pub(crate) fn keep(&mut self, device: &Device, shape: Shape, made: Option<Made>) -> Option<usize> {
        let at = self.all.iter().position(|r| r.shape == shape)?;
        let recording = &mut self.all[at];
        match made {
            Some(made) if self.freed == device.freed() => {
                recording.graph = Some(made.graph);
                recording.rows = made.notes.rows;
                recording.attention = made.notes.attention;
                Some(at)
            }
            _ => {
                recording.failed = true;
                None
            }
        }
    }
}

/// A recorded graph and its notes.
pub(crate) struct Made {
    graph: Graph,
    notes: Notes,
}

/// Records the kernels that `pass` starts. `None` if they cannot be recorded: then none ran, and the caller
/// must run `pass` normally.
pub(crate) fn record(device: &Arc<Device>, pass: &mut dyn FnMut() -> bool) -> Option<Made> {
    let capture = device.begin_capture().ok()?;
    NOTES.set(Some(Notes::default()));
    let well = pass();
    let notes = NOTES.take().unwrap_or_default();
    let graph = capture.end();
    match graph {
        Ok(graph) if well && !notes.spoiled => Some(Made { graph, notes }),
        _ => None,
    }
}
