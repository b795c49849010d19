//! State that the backend keeps from call to call: work memory, and numbers that the host has sent.

use std::sync::Arc;

use super::driver::{Device, Event, Memory, Pinned};
use super::experts::Space;
use super::graph::{self, Recordings};
use super::matrix::Uploader;
use crate::Error;

/// Work memory, kept from call to call. Starting kernels needs this state's lock, so other threads cannot
/// start kernels in the middle of an operation.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) tokens: Upload,
    pub(crate) positions: Upload,
    pub(crate) rows: Upload,
    pub(crate) plan: Upload,
    pub(crate) adapter_rows: Upload,
    /// Hidden numbers of adapters, between their two matrices.
    pub(crate) hidden: Option<Memory>,
    pub(crate) partial: Option<Memory>,
    pub(crate) experts: Space,
    pub(crate) host: Option<Pinned>,
    pub(crate) uploader: Option<Uploader>,
    /// Weights were uploaded since the last product, which must not start before they have arrived.
    pub(crate) uploading: bool,
    pub(crate) recordings: Recordings,
    /// An event for other GPUs to wait for.
    mark: Option<Event>,
}

impl State {
    /// Waits for uploaded weights. Products read weights before earlier work has ended, so an upload has to
    /// end first.
    pub(crate) fn wait_for_weights(&mut self, device: &Device) -> Result<(), Error> {
        if std::mem::take(&mut self.uploading) { device.synchronize() } else { Ok(()) }
    }

    /// Makes work that starts on `other` from now on wait for work already started on `device`, whose state
    /// this is. One event is enough, because each waiter waits for the mark at the time of its own call.
    pub(crate) fn lead(&mut self, device: &Arc<Device>, other: &Device) -> Result<(), Error> {
        let mark = match &mut self.mark {
            Some(mark) => mark,
            slot => slot.insert(Event::untimed(device)?),
        };
        mark.record()?;
        mark.before(other)
    }
}

/// Numbers that the host sends along with an operation; unchanged numbers are not sent again.
#[derive(Default)]
pub(crate) struct Upload {
    memory: Option<Memory>,
    sent: Vec<u32>,
}

impl Upload {
    /// Sends `numbers` and returns their address on the GPU.
    pub(crate) fn put(&mut self, device: &Arc<Device>, numbers: &[u32]) -> Result<u64, Error> {
        let bytes = size_of_val(numbers);
        if graph::recording() {
            // The numbers are sent when the recording runs.
            return match &self.memory {
                Some(memory) if memory.bytes() >= bytes => Ok(memory.pointer()),
                _ => Err(Error::Device("a recording needs memory".into())),
            };
        }
        let memory = match &mut self.memory {
            Some(memory) if memory.bytes() >= bytes => memory,
            slot => {
                self.sent.clear();
                slot.insert(Memory::new(device, bytes.next_power_of_two().max(1024), "a batch")?)
            }
        };
        if self.sent != numbers {
            memory.write(0, numbers)?;
            self.sent.clear();
            self.sent.extend_from_slice(numbers);
        }
        Ok(memory.pointer())
    }
}

/// Returns memory in `slot` of at least `bytes`.
pub(crate) fn at_least<'a>(
    slot: &'a mut Option<Memory>,
    device: &Arc<Device>,
    bytes: usize,
    zeroed: bool,
) -> Result<&'a mut Memory, Error> {
    if slot.as_ref().is_none_or(|memory| memory.bytes() < bytes) {
        *slot = None;
        let bytes = bytes.next_power_of_two();
        let new = if zeroed { Memory::zeroed } else { Memory::new };
        *slot = Some(new(device, bytes, "work memory")?);
    }
    Ok(slot.as_mut().expect("just filled"))
}
