//! Passes that were recorded as graphs run again without their host code.

use super::CudaBackend;
use super::graph::{self, Advice, Shape};
use super::state::State;
use crate::{Batch, Error};

impl CudaBackend {
    /// Implements [`Backend::pass`](crate::Backend::pass).
    pub(super) fn run_pass<E: From<Error>>(
        &self,
        owner: u64,
        batch: &Batch,
        run: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(shape) = Shape::of(owner, batch) else { return run() };
        let mut state = self.state()?;
        state.wait_for_weights(&self.device)?;
        let at = match state.recordings.advise(&self.device, shape) {
            Advice::Launch(at) => Some(at),
            Advice::Run => None,
            Advice::Record => {
                // Release the lock, because operations take it themselves. Other threads' operations run
                // unrecorded meanwhile.
                drop(state);
                let recorder = self.recorder.lock().unwrap_or_else(|e| e.into_inner());
                let made = graph::record(&self.device, &mut || run().is_ok() && self.start_all().is_ok());
                drop(recorder);
                state = self.state()?;
                state.recordings.keep(&self.device, shape, made)
            }
        };
        let Some(at) = at else {
            drop(state);
            return run();
        };
        let State { tokens, positions, rows, plan, recordings, .. } = &mut *state;
        let recording = recordings.get(at);
        tokens.put(&self.device, &batch.tokens)?;
        positions.put(&self.device, &batch.positions)?;
        rows.put(&self.device, &batch.outputs)?;
        if let Some(of) = recording.plan(batch) {
            plan.put(&self.device, &of.data)?;
        }
        let freed = self.device.freed();
        // Page tables may have outgrown their memory: then the recording reads the old memory.
        if recordings.is_current(freed) {
            return Ok(recordings.get(at).launch()?);
        }
        drop(state);
        run()
    }
}
