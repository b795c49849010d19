//! `realm serve` and `realm api-key` as a user types them.
#![cfg(feature = "server")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use common::{command, realm, stderr_of_failure, stdout};

/// A server in a process of its own; dropping it kills it.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(args: &[&str]) -> Self {
        let mut command =
            command(&[&["serve", "smollm2-135m", "--port", "0", "--context", "256"], args].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("http://") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended");
        }
        // What it says later must not fill the pipe.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        let address = line.split("http://").nth(1).unwrap().split(';').next().unwrap().to_owned();
        Self { child, address }
    }

    /// Returns the status of an answer, and its body.
    fn complete(&self, key: &str) -> (u16, String) {
        let body = r#"{"model": "smollm2-135m", "prompt": "Once upon a", "temperature": 0, "max_tokens": 1}"#;
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split("\r\n\r\n").nth(1).unwrap().to_owned())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn create(file: &str, more: &[&str]) -> String {
    let args = [&["api-key", "create", "--api-keys", file, "--tenant", "acme"], more].concat();
    stdout(&args, "").trim().to_owned()
}

fn id(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

fn in_folder(folder: &Path) -> String {
    folder.join("keys.db").to_str().unwrap().to_owned()
}

#[test]
fn keys_are_made_rotated_and_revoked_while_a_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = in_folder(folder.path());
    let old = create(&file, &["--note", "laptop", "--tokens-per-minute", "1000"]);
    let server = Serving::start(&["--api-keys", &file]);
    let (status, body) = server.complete(&old);
    assert!(status == 200 && body.contains(" time"), "{status}: {body}");
    assert_eq!(server.complete("rk_none").0, 401);
    let new = stdout(&["api-key", "rotate", id(&old), "--overlap", "1h", "--api-keys", &file], "");
    let new = new.trim();
    eventually("the new key is known", || server.complete(new).0 == 200);
    assert_eq!(server.complete(&old).0, 200);
    let list = stdout(&["api-key", "list", "--api-keys", &file], "");
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains("laptop") && list.contains("59m") && !list.contains(new), "{list}");
    stdout(&["api-key", "revoke", id(&old), "--api-keys", &file], "");
    eventually("the old key is refused", || server.complete(&old).0 == 401);
    assert_eq!(server.complete(new).0, 200);
    let error = stderr_of_failure(&["api-key", "revoke", id(&old), "--api-keys", &file], "");
    assert!(error.contains("there is no key"), "{error}");
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("after half a minute still not: {what}");
}

#[test]
fn a_killed_server_loses_no_key_and_at_most_a_second_of_usage() {
    let folder = tempfile::tempdir().unwrap();
    let file = in_folder(folder.path());
    let key = create(&file, &[]);
    let used = || {
        let list = stdout(&["api-key", "list", "--api-keys", &file], "");
        let line = list.lines().find(|line| line.starts_with(id(&key))).unwrap().to_owned();
        line.split_whitespace().nth(4).unwrap().parse::<usize>().unwrap()
    };
    let mut server = Serving::start(&["--api-keys", &file]);
    for _ in 0..5 {
        assert_eq!(server.complete(&key).0, 200);
    }
    eventually("usage is written", || used() == 5);
    // SIGKILL.
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert_eq!(used(), 5);
    let server = Serving::start(&["--api-keys", &file]);
    assert_eq!(server.complete(&key).0, 200);
}

#[cfg(unix)]
#[test]
fn sigterm_ends_the_server_with_success_and_writes_usage() {
    let folder = tempfile::tempdir().unwrap();
    let file = in_folder(folder.path());
    let key = create(&file, &[]);
    let mut server = Serving::start(&["--api-keys", &file]);
    assert_eq!(server.complete(&key).0, 200);
    let pid = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
    let list = stdout(&["api-key", "list", "--api-keys", &file], "");
    assert!(
        list.lines().any(|line| line.starts_with(id(&key)) && line.split_whitespace().nth(4) == Some("1")),
        "{list}"
    );
}

#[test]
fn what_can_not_be_served_is_said_before_a_model_is_loaded() {
    let error = stderr_of_failure(&["serve"], "");
    assert!(error.contains("realm serve smollm2-135m"), "{error}");
    let error = stderr_of_failure(&["serve", "smollm2-135m", "--host", "0.0.0.0"], "");
    assert!(error.contains("realm api-key create"), "{error}");
    let error = stderr_of_failure(&["serve", "a=smollm2-135m", "a=qwen2.5-coder-0.5b"], "");
    assert!(error.contains("two models with the name `a`"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "prot = 1").unwrap();
    let error = stderr_of_failure(&["serve", "smollm2-135m", "--config", file.path().to_str().unwrap()], "");
    assert!(error.contains("prot"), "{error}");
    let error = stderr_of_failure(&["api-key", "list", "--api-keys", "no-such-file.db"], "");
    assert!(error.contains("api-key create"), "{error}");
    let bad = realm(&["api-key", "create", "--api-keys", "x.db", "--tenant", "a", "--scope", "all"], "");
    assert!(String::from_utf8_lossy(&bad.stderr).contains("inference"));
}
