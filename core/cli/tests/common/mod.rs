//! Runs the command as a user types it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_realm"));
    command.args(args);
    command
}

fn output(mut command: Command, stdin: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that needs no input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn realm(args: &[&str], stdin: &str) -> Output {
    output(command(args), stdin)
}

pub(crate) fn realm_in(folder: &Path, args: &[&str], stdin: &str) -> Output {
    let mut command = command(args);
    command.current_dir(folder);
    output(command, stdin)
}

pub(crate) fn stdout(args: &[&str], stdin: &str) -> String {
    let output = realm(args, stdin);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn stderr_of_failure(args: &[&str], stdin: &str) -> String {
    let output = realm(args, stdin);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Returns a catalog model's file, fetching it if needed.
pub(crate) fn model_file(name: &str) -> PathBuf {
    let hub = realm::hub::Hub::new().unwrap();
    hub.resolve(&realm::hub::Reference::parse(name).unwrap(), &mut ()).unwrap()
}
