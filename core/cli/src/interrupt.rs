//! Ctrl-C while text is generated.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static PRESSED: AtomicBool = AtomicBool::new(false);

/// Records Ctrl-C from now on, instead of ending the program.
pub(crate) fn watch() {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        // If no handler can be set, Ctrl-C ends the program as usual.
        let _ = ctrlc::set_handler(|| PRESSED.store(true, Ordering::Release));
    });
}

/// Ctrl-C ended the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Returns whether Ctrl-C was pressed since the last call.
pub(crate) fn pressed() -> bool {
    PRESSED.swap(false, Ordering::AcqRel)
}
