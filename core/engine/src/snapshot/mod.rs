//! Sequences outside the KV cache.
//!
//! - [`key`]: the key that saved sequences are signed with.
//! - [`format`](mod@format): a sequence as bytes.

mod format;
mod key;

use realm_compute::{NO_PAGE, PAGE_TOKENS};
use realm_model::Forward;

use crate::Error;
use crate::task::Task;

pub(crate) use format::SnapshotFormat;
pub use key::SnapshotKey;

/// A sequence outside the KV cache.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) tokens: Vec<u32>,
    pub(crate) cached: usize,
    /// The pages, group after group; `None` for pages that a window has passed.
    pub(crate) pages: Vec<Option<Vec<u8>>>,
}

impl Snapshot {
    /// Begins a snapshot of a task, without the pages that [`copy_next`](Self::copy_next) copies. Keys and
    /// values that an adapter influenced, or that are not trusted, are left out and computed again.
    pub(crate) fn begin(task: &Task) -> Self {
        let cached = if task.adapter.is_some() || task.foreign { 0 } else { task.cached };
        Self { tokens: task.tokens.clone(), cached, pages: Vec::new() }
    }

    /// Copies the next page of the task. Returns its bytes, or `None` if no page is left.
    pub(crate) fn copy_next(&mut self, task: &Task, runner: &dyn Forward) -> Result<Option<usize>, Error> {
        let (groups, whole) = (task.pages.groups(), self.cached.div_ceil(PAGE_TOKENS));
        let next = self.pages.len();
        if next == groups.len() * whole {
            return Ok(None);
        }
        let page = groups[next / whole][next % whole];
        let mut bytes = Vec::new();
        if page != NO_PAGE {
            runner.export_page(page, &mut bytes).map_err(|e| Error::Model(e.to_string()))?;
        }
        let copied = bytes.len();
        self.pages.push((page != NO_PAGE).then_some(bytes));
        Ok(Some(copied))
    }
}
