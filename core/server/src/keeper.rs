//! The thread that reads keys from the store and writes what they used: no request waits for the store.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::keys::{Store, StoreError};
use crate::state::State;

/// The time between two looks at the store. Usage of this time is lost if the process is killed, and a key
/// that another process revokes is accepted for that long.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until the other end of `stop` is dropped; then writes what is left.
pub(crate) fn run(state: &Arc<State>, mut store: Box<dyn Store>, stop: &Receiver<()>) {
    loop {
        let ended = !matches!(stop.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout));
        if let Err(error) = look(state, &mut *store) {
            tracing::error!("{error}; the keys and limits in memory stay as they are");
        }
        if ended {
            return;
        }
    }
}

fn look(state: &State, store: &mut dyn Store) -> Result<(), StoreError> {
    let used = state.ledger.take();
    if !used.is_empty() {
        let day = crate::keys::now() / (24 * 3600);
        if let Err(error) = store.add_usage(day, &used) {
            state.ledger.put_back(&used);
            return Err(error);
        }
    }
    if let Some(keys) = &state.keys
        && store.changed()?
    {
        keys.replace(store.keys()?);
    }
    Ok(())
}
