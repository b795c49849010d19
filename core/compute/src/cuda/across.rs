//! From one GPU to another.

use super::driver::{Event, copy_across};
use super::{Buffer, CudaBackend};
use crate::Error;

impl CudaBackend {
    /// Copies the rows of another GPU's buffer, after what was started there and before what will be; the host waits for
    /// neither.
    pub(crate) fn take_rows(&self, other: &CudaBackend, from: &Buffer, to: &mut Buffer) -> Result<(), Error> {
        to.set_rows(from.rows())?;
        let bytes = 4 * from.rows() * from.columns;
        if bytes == 0 {
            return Ok(());
        }
        let ready = other.mark()?;
        let mut state = self.state()?;
        ready.before(&self.device)?;
        copy_across(from.data(), to.data_mut(), bytes)?;
        let done = state.mark.get_or_insert(Event::untimed(&self.device)?);
        done.record()?;
        // What is in the other's buffer must not change before.
        done.before(&other.device)
    }

    /// What was started so far.
    fn mark(&self) -> Result<Event, Error> {
        let _state = self.state()?;
        let mark = Event::untimed(&self.device)?;
        mark.record()?;
        Ok(mark)
    }
}
