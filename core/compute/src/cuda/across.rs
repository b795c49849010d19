//! Copies from one GPU to another.

use super::driver::copy_across;
use super::{Buffer, CudaBackend};
use crate::Error;

impl CudaBackend {
    /// Copies the rows of another GPU's buffer, in order with the work already started on that GPU and the
    /// work that follows on either. The host does not wait.
    pub(crate) fn take_rows(&self, other: &CudaBackend, from: &Buffer, to: &mut Buffer) -> Result<(), Error> {
        to.set_rows(from.rows())?;
        let bytes = 4 * from.rows() * from.columns;
        if bytes == 0 {
            return Ok(());
        }
        other.state()?.lead(&other.device, &self.device)?;
        let mut state = self.state()?;
        copy_across(from.data(), to.data_mut(), bytes)?;
        // The other GPU's buffer must not change before the copy is done.
        state.lead(&self.device, &other.device)
    }
}
