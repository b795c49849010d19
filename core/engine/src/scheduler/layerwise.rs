//! The forward pass layer by layer, put together by programs: one operation after the other, the long ones
//! slice by slice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use realm_model::{Layerwise, Slice};

use super::Scheduler;
use super::passes::{caught, failure, fault};
use crate::command::{LayerwiseCommand, Operation};
use crate::prices::Prices;
use crate::{Error, Tenant};

/// The cost of an operation that panics, in rows.
const PANIC: f64 = 1.0;

/// One program's session, and its queue of operations.
pub(super) struct LayerwiseWork {
    id: u64,
    pub(super) tenant: Arc<Tenant>,
    layerwise: Box<dyn Layerwise>,
    operations: VecDeque<Operation>,
    /// The number of rows of the first operation that are done, and the values for its answer so far.
    done: usize,
    values: Vec<f32>,
    queued: Arc<AtomicUsize>,
    /// An error that no answer has reported yet.
    failed: Option<Error>,
}

impl Scheduler {
    /// Takes a program's command.
    pub(crate) fn layerwise(&mut self, command: LayerwiseCommand) {
        match command {
            LayerwiseCommand::Open { id, tenant, layerwise, queued } => {
                self.accounts.of(&tenant).layerwise += 1;
                self.layerwise.push_back(LayerwiseWork {
                    id,
                    tenant,
                    layerwise,
                    operations: VecDeque::new(),
                    done: 0,
                    values: Vec::new(),
                    queued,
                    failed: None,
                });
            }
            LayerwiseCommand::Compute { id, operation } => {
                if let Some(work) = self.layerwise.iter_mut().find(|work| work.id == id) {
                    work.operations.push_back(operation);
                }
            }
            LayerwiseCommand::Close { id } => {
                if let Some(at) = self.layerwise.iter().position(|work| work.id == id)
                    && let Some(work) = self.layerwise.remove(at)
                {
                    self.accounts.of(&work.tenant).layerwise -= 1;
                }
            }
        }
    }

    /// Returns whether some program's operations can be computed now; notes when others may be.
    pub(super) fn has_layerwise(&mut self, now: Instant) -> bool {
        let mut any = false;
        for work in self.layerwise.iter().filter(|work| work.is_waiting()) {
            let wait = work.tenant.wait(now);
            self.wake.note(wait);
            any |= wait.is_zero();
        }
        any
    }
}

impl LayerwiseWork {
    /// Returns whether an operation waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.operations.is_empty()
    }

    /// Computes a slice of the first operation, which costs at most `most` or is one row; returns its cost in
    /// rows.
    pub(super) fn run(&mut self, prices: &Prices, most: f64) -> f64 {
        let Some(mut operation) = self.operations.pop_front() else { return 0.0 };
        let from = self.done;
        let price = |work| prices.of(work);
        // A panic is an error of this program's. The cost of its operation is unknown.
        let (result, cost, done) = caught(|| {
            let mut slice = Slice::new(from, most, &price);
            let result = (operation.compute)(&mut *self.layerwise, &mut slice, &mut self.values);
            (result, slice.cost(), (!slice.is_last()).then_some(slice.done()))
        })
        .unwrap_or_else(|| (Err(fault()), PANIC, None));
        if let (Ok(()), Some(done)) = (&result, done) {
            self.done = done;
            self.operations.push_front(operation);
            return cost;
        }
        if let Err(error) = result {
            self.failed.get_or_insert(model_error(error));
            if let (Some(to), true) = (operation.makes, from > 0) {
                // A tensor that is only partly computed is of no use.
                self.layerwise.discard(to);
            }
        }
        self.done = 0;
        let values = std::mem::take(&mut self.values);
        if let Some(answer) = operation.answer {
            // An error is reported once.
            answer(self.failed.take().map_or(Ok(values), Err));
        }
        self.queued.fetch_sub(1, Ordering::Relaxed);
        cost
    }
}

fn model_error(error: realm_model::Error) -> Error {
    match error {
        realm_model::Error::InvalidBatch(why) => Error::InvalidArgument(why),
        other => failure(&other),
    }
}
