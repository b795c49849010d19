//! Long steps, reported on stderr: the step, and its time so far.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::output::note;

/// The time after which a silent step is named again.
const AGAIN: Duration = Duration::from_secs(10);

/// Reports a step, its time so far, and its end.
pub(super) fn step<T>(what: &str, work: impl FnOnce() -> T) -> T {
    note!("{what} …");
    let start = Instant::now();
    let result = while_reminding(what, start, work);
    note!("{what}: {} s", start.elapsed().as_secs());
    result
}

fn while_reminding<T>(what: &str, start: Instant, work: impl FnOnce() -> T) -> T {
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(AGAIN) == Err(RecvTimeoutError::Timeout) {
                note!("{what} … {} s so far", start.elapsed().as_secs());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Runs a program and reports its stderr: unchanged on a terminal, otherwise line by line with the seconds
/// since the start, and with the step's name again while it is silent.
pub(super) fn narrated(command: &mut Command, what: &str) -> std::io::Result<ExitStatus> {
    if std::io::stderr().is_terminal() {
        return command.status();
    }
    let start = Instant::now();
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let (lines, said) = mpsc::channel::<String>();
    let pipe = child.stderr.take();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(pipe) = pipe {
                forward(pipe, &lines);
            }
        });
        loop {
            match said.recv_timeout(AGAIN) {
                Ok(line) => note!("[{:>3} s] {line}", start.elapsed().as_secs()),
                Err(RecvTimeoutError::Timeout) => note!("[{:>3} s] {what} …", start.elapsed().as_secs()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    child.wait()
}

/// Sends each line of `pipe`, even if it is not UTF-8.
fn forward(pipe: impl Read, lines: &mpsc::Sender<String>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while matches!(pipe.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        if lines.send(text).is_err() {
            return;
        }
        line.clear();
    }
}
