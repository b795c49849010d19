//! The forward pass layer by layer, driven by a program.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use realm_model::{ActivationId, Layerwise, Slice, Work};

use crate::answer::Answer;
use crate::command::{Command, Compute, LayerwiseCommand, Operation};
use crate::{Error, Tenant};

/// A program's own forward pass: tensors and caches of its own, and operations on them. An operation is a
/// function of [`Layerwise`], which the engine calls on its thread between steps, slice by slice and in the
/// order in which operations were started. Only operations that return an [`Answer`] can be waited for; the
/// next answer reports an error of the operations before it.
pub struct LayerwiseSession {
    id: u64,
    engine: Sender<Command>,
    next: AtomicU64,
    /// Operations that were sent and are not done.
    queued: Arc<AtomicUsize>,
}

impl LayerwiseSession {
    pub(crate) fn open(
        id: u64,
        engine: Sender<Command>,
        tenant: &Arc<Tenant>,
        layerwise: Box<dyn Layerwise>,
    ) -> Result<Self, Error> {
        let queued = Arc::<AtomicUsize>::default();
        let (tenant, count) = (Arc::clone(tenant), Arc::clone(&queued));
        let open = LayerwiseCommand::Open { id, tenant, layerwise, queued: count };
        engine.send(Command::Layerwise(open)).map_err(|_| Error::Stopped)?;
        Ok(Self { id, engine, next: AtomicU64::new(0), queued })
    }

    fn send(&self, operation: Operation) -> Result<(), Error> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        let command = LayerwiseCommand::Compute { id: self.id, operation };
        self.engine.send(Command::Layerwise(command)).map_err(|_| Error::Stopped)
    }

    /// Starts an operation that returns nothing.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn start(
        &self,
        mut compute: impl FnMut(&mut dyn Layerwise, &mut Slice<'_>) -> Result<(), realm_model::Error>
        + Send
        + 'static,
    ) -> Result<(), Error> {
        let compute: Compute = Box::new(move |layerwise, slice, _| compute(layerwise, slice));
        self.send(Operation { compute, makes: None, answer: None })
    }

    /// Starts an operation that makes the tensor or the cache of a new number, which it is called with.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn make(
        &self,
        mut compute: impl FnMut(
            &mut dyn Layerwise,
            &mut Slice<'_>,
            ActivationId,
        ) -> Result<(), realm_model::Error>
        + Send
        + 'static,
    ) -> Result<ActivationId, Error> {
        let to = self.next.fetch_add(1, Ordering::Relaxed);
        let compute: Compute = Box::new(move |layerwise, slice, _| compute(layerwise, slice, to));
        self.send(Operation { compute, makes: Some(to), answer: None })?;
        Ok(to)
    }

    /// Starts an operation that returns numbers, which it appends to the list that it is called with.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped. The answer reports an error of the operations so far.
    pub fn read(
        &self,
        compute: impl FnMut(&mut dyn Layerwise, &mut Slice<'_>, &mut Vec<f32>) -> Result<(), realm_model::Error>
        + Send
        + 'static,
    ) -> Result<Answer<Vec<f32>>, Error> {
        self.ask(Box::new(compute), |values| values)
    }

    /// Returns an answer that waits until every operation sent so far is done.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped. The answer reports an error of the operations.
    pub fn flush(&self) -> Result<Answer<()>, Error> {
        let nothing = |_: &mut dyn Layerwise, slice: &mut Slice<'_>, _: &mut Vec<f32>| {
            slice.charge(Work::command(0));
            Ok(())
        };
        self.ask(Box::new(nothing), drop)
    }

    fn ask<T: Send + 'static>(
        &self,
        compute: Compute,
        result: impl FnOnce(Vec<f32>) -> T + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        let (reply, answer) = realm_handover::channel(1);
        // Fails if the caller is gone, who then needs no result.
        let answered = move |values: Result<_, _>| drop(reply.try_send(values.map(result)));
        self.send(Operation { compute, makes: None, answer: Some(Box::new(answered)) })?;
        Ok(Answer::new(answer))
    }

    /// The number of operations that were sent and are not done. A caller that sends many without reading
    /// should call [`flush`](Self::flush) now and then.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

impl Drop for LayerwiseSession {
    fn drop(&mut self) {
        // A stopped engine has already freed the session.
        let _ = self.engine.send(Command::Layerwise(LayerwiseCommand::Close { id: self.id }));
    }
}
