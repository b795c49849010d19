//! Long steps on stderr: what is being done, and since when.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::output::note;

/// How often a step that says nothing itself is named again.
const AGAIN: Duration = Duration::from_secs(10);

/// Says what is being done, how long it has taken so far, and that it has ended.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> T) -> T {
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

/// Runs a program whose stderr says what it does: shown as it is on a terminal, else line by line with the seconds since it
/// began, and named again while it is silent.
pub(crate) fn narrated(command: &mut Command, what: &str) -> std::io::Result<ExitStatus> {
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

/// Sends each line of `pipe`, whatever its bytes.
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
