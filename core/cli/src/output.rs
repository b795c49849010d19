//! The command's output: results to stdout, everything else to stderr.

use std::fmt::Arguments;
use std::io::Write;

/// Writes a line to stdout. If the reader has left, that is an error, which ends the command quietly.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::write_result(format_args!($($text)*)) };
}

/// Writes a line to stderr.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::write_note(format_args!($($text)*)) };
}

pub(crate) use {note, say};

pub(crate) fn write_result(text: Arguments<'_>) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

pub(crate) fn write_note(text: Arguments<'_>) {
    // Nowhere is left to report that stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
