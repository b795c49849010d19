//! Ctrl-C while text is generated.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static PRESSED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C is noted instead of ending the program.
pub(crate) fn watch() {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        // Where no handler can be set, Ctrl-C ends the program as ever.
        let _ = ctrlc::set_handler(|| PRESSED.store(true, Ordering::Release));
    });
}

/// Ctrl-C ended the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Whether Ctrl-C was pressed since the last time somebody asked.
pub(crate) fn pressed() -> bool {
    PRESSED.swap(false, Ordering::AcqRel)
}
