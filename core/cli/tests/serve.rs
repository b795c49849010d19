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
    /// The address of administration, if it has one.
    admin: String,
}

impl Serving {
    fn start(args: &[&str]) -> Self {
        Self::start_with(&[&["smollm2-135m"], args].concat())
    }

    /// Starts a server of other models.
    fn start_with(args: &[&str]) -> Self {
        Self::start_in(Path::new("."), args)
    }

    /// Starts a server whose files are relative to a folder.
    fn start_in(folder: &Path, args: &[&str]) -> Self {
        let mut command = command(&[&["serve", "--port", "0", "--context", "256"], args].concat());
        command.current_dir(folder);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut admin) = (String::new(), String::new());
        while !line.contains("http://") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some(rest) = line.strip_prefix("administration is at ") {
                admin = rest.split(';').next().unwrap().to_owned();
            }
        }
        // What it says later must not fill the pipe.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        let address = line.split("http://").nth(1).unwrap().split(';').next().unwrap().to_owned();
        Self { child, address, admin }
    }

    /// Returns the status of an answer, and its body.
    fn complete(&self, key: &str) -> (u16, String) {
        self.complete_with(key, "smollm2-135m", "{}")
    }

    /// Same as [`complete`](Self::complete), with another model and the object `realm`.
    fn complete_with(&self, key: &str, model: &str, realm: &str) -> (u16, String) {
        let body = format!(
            r#"{{"model": "{model}", "prompt": "Once upon a", "temperature": 0, "max_tokens": 1, "realm": {realm}}}"#
        );
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

/// Runs `realm admin` against a server.
fn admin(server: &Serving, key: &str, args: &[&str]) -> Result<String, String> {
    let url = format!("http://{}", server.admin);
    let mut command = command(&[&["admin", "--url", &url], args].concat());
    let output = command.env("REALM_ADMIN_KEY", key).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn conformance(file: &str) -> String {
    format!("{}/../../tests/conformance/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_command_administers_a_server_and_a_killed_one_has_all_of_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (file, log) = (in_folder(folder.path()), folder.path().join("audit.jsonl"));
    let ops = create(&file, &["--scope", "administration"]);
    let options = ["--admin", "127.0.0.1:0", "--api-keys", &file, "--audit-log", log.to_str().unwrap()];
    let mut server = Serving::start_with(&options);
    let done = |server: &Serving, args: &[&str]| {
        admin(server, &ops, args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    };
    let tiny = format!("tiny={}", conformance("tiny.gguf"));
    done(&server, &["models", "load", &tiny, "--kv-tokens", "512"]);
    done(&server, &["models", "load", "small=smollm2-135m"]);
    done(&server, &["models", "alias", "chat=tiny"]);
    let program = format!("p={}", conformance("programs/hello.wasm"));
    let other = format!("p={}", conformance("programs/echo.wasm"));
    // A tenant exists from its first key on.
    let refused = admin(&server, &ops, &["programs", "put", &program, "--tenant", "nobody"]);
    assert!(refused.unwrap_err().contains("nobody"));
    let key = done(&server, &["keys", "create", "--tenant", "acme", "--note", "laptop"]);
    let key = key.trim();
    done(&server, &["programs", "put", &program, "--tenant", "acme"]);
    done(&server, &["programs", "put", &other, "--tenant", "acme"]);
    done(&server, &["programs", "rollback", "p", "--tenant", "acme"]);
    let lora = format!("lora={}", conformance("adapter"));
    done(&server, &["adapters", "load", &lora, "--model", "small", "--tenant", "acme"]);
    done(&server, &["tenants", "set", "acme", "limits.weight=3", "rates.tokens-per-minute=5000"]);
    done(&server, &["tenants", "set", "acme", "models=[\"chat\", \"small\"]", "--unset", "rates"]);
    let lists = |server: &Serving| {
        let list = |args: &[&str]| done(server, args).replace("running", "");
        [
            list(&["models", "list"]),
            list(&["tenants", "show", "acme"]),
            list(&["adapters", "list", "--tenant", "acme"]),
            list(&["programs", "list", "--tenant", "acme"]),
        ]
    };
    let before = lists(&server);
    assert!(before[0].contains("chat") && before[0].contains("= tiny"), "{before:?}");
    assert!(before[1].contains("\"weight\": 3.0") && !before[1].contains("5000"), "{before:?}");
    assert!(before[3].contains("1,2"), "{before:?}");
    let ask = |server: &Serving| {
        assert_eq!(server.complete_with(key, "chat", "{}").0, 200);
        // The tenant may use the alias alone.
        assert_eq!(server.complete_with(key, "tiny", "{}").0, 404);
        assert_eq!(server.complete_with(key, "absent", "{}").0, 404);
        assert_eq!(server.complete_with(key, "small", r#"{"adapter": "lora"}"#).0, 200);
        let (status, body) = server.complete_with(key, "chat", r#"{"program": "p"}"#);
        assert!(status == 200 && body.contains("hello"), "{body}");
    };
    ask(&server);
    // SIGKILL, right after an answer.
    done(&server, &["models", "alias", "last=tiny"]);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let audit = std::fs::read_to_string(&log).unwrap();
    assert!(audit.lines().last().unwrap().contains("\"last\""), "{audit}");
    let server = Serving::start_with(&options);
    done(&server, &["models", "unalias", "last"]);
    assert_eq!(lists(&server), before);
    ask(&server);
    done(&server, &["adapters", "unload", "lora", "--tenant", "acme"]);
    done(&server, &["models", "unload", "small"]);
    assert_eq!(server.complete_with(key, "small", "{}").0, 404);
    for (args, word) in [
        (&["models", "unload", "tiny"][..], "chat"),
        (&["models", "load", "x=/absent.gguf"], "/absent.gguf"),
        (&["tenants", "set", "acme", "limits.wait=3"], "wait"),
        (&["keys", "revoke", "0123456789"], "0123456789"),
    ] {
        let error = admin(&server, &ops, args).unwrap_err();
        assert!(error.contains(word), "{args:?}: {error}");
    }
    assert!(admin(&server, key, &["status"]).unwrap_err().contains("scope"));
    assert!(admin(&server, "", &["status"]).unwrap_err().contains("REALM_ADMIN_KEY"));
    let id = done(&server, &["keys", "list"]);
    let id = id.lines().find(|line| line.contains("laptop")).unwrap().split(' ').next().unwrap();
    done(&server, &["keys", "revoke", id]);
    assert_eq!(server.complete_with(key, "chat", "{}").0, 401);
}

#[test]
fn changes_that_were_answered_are_there_after_a_kill_in_the_middle_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db").to_str().unwrap().to_owned();
    let tiny = format!("tiny={}", conformance("tiny.gguf"));
    let options = [&*tiny, "--admin", "127.0.0.1:0", "--state", &state];
    let call = |address: &str, method: &str, path: &str, body: &str| -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let mut answered: Vec<String> = Vec::new();
    for round in 0..3 {
        let mut server = Serving::start_with(&options);
        let found = call(&server.admin, "GET", "/admin/aliases", "").unwrap();
        for name in &answered {
            assert!(found.contains(&format!("\"{name}\"")), "{name} is lost");
        }
        let admin = server.admin.clone();
        let (send, done) = std::sync::mpsc::channel();
        let changing = std::thread::spawn(move || {
            for at in 0.. {
                let name = format!("a{round}-{at}");
                match call(&admin, "PUT", &format!("/admin/aliases/{name}"), r#"{"model": "tiny"}"#) {
                    Ok(answer) if answer.starts_with("HTTP/1.1 200") => send.send(name).unwrap(),
                    _ => break,
                }
            }
        });
        answered.extend(done.iter().take(20));
        // SIGKILL.
        server.child.kill().unwrap();
        changing.join().unwrap();
        answered.extend(done.try_iter());
    }
    assert!(answered.len() >= 60, "{answered:?}");
}

#[cfg(unix)]
#[test]
fn sighup_reads_the_configuration_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("realm.toml");
    let tiny = |name: &str| format!("[models.{name}]\nsource = \"{}\"\n", conformance("tiny.gguf"));
    std::fs::write(&path, tiny("one")).unwrap();
    let server = Serving::start_with(&["--config", path.to_str().unwrap()]);
    let pid = server.child.id().to_string();
    let hang_up = || {
        assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    assert_eq!(server.complete_with("", "one", "{}").0, 200);
    std::fs::write(&path, format!("{}[aliases]\nchat = \"two\"\n", tiny("two"))).unwrap();
    hang_up();
    eventually("the new file is read", || server.complete_with("", "chat", "{}").0 == 200);
    assert_eq!(server.complete_with("", "one", "{}").0, 404);
    // A faulty file changes nothing; the next good one does.
    std::fs::write(&path, "models = 1").unwrap();
    hang_up();
    std::fs::write(&path, tiny("three")).unwrap();
    eventually("the last file is read", || {
        hang_up();
        std::thread::sleep(std::time::Duration::from_millis(100));
        server.complete_with("", "three", "{}").0 == 200
    });
    assert_eq!(server.complete_with("", "chat", "{}").0, 404);
}

/// The arguments of `realm` in a file of examples/serve, behind `before`.
fn packaged(name: &str, before: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/serve");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(before)).unwrap_or_else(|| panic!("{before}"));
    line.split([' ', '"', ',', '[', ']']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The container's and the unit's command serve the configuration beside them.
#[test]
fn the_packaged_commands_serve_their_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/serve/realm.toml");
    std::fs::copy(configuration, folder.path().join("realm.toml")).unwrap();
    let key = create(&in_folder(folder.path()), &[]);
    for (file, before, home) in [
        ("Dockerfile", "CMD ", "/data"),
        ("realm.service", "ExecStart=/usr/local/bin/realm ", "/var/lib/realm"),
    ] {
        let words = packaged(file, before);
        let words: Vec<String> =
            words.iter().map(|word| word.replace(home, folder.path().to_str().unwrap())).collect();
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(args.remove(0), "serve");
        let server = Serving::start_in(folder.path(), &[&args[..], &["--host", "127.0.0.1"]].concat());
        assert_eq!(server.complete_with("", "small", "{}").0, 401, "{file}");
        let (status, body) = server.complete_with(&key, "small", "{}");
        assert_eq!(status, 200, "{file}: {body}");
    }
}
