//! A server on a free port with a real model, and clients of it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use realm::{Model, Realm};
use realm_server::keys::{Entry, Key, Kind, Store, StoreError, Used, Version};
use realm_server::{Config, Reloader, Server, Stopper};
use serde_json::{Value, json};

pub(crate) const MODEL: &str = "smollm2-135m";
pub(crate) const ANSWER: &str = "The capital of France is Paris.";

pub(crate) fn realm() -> Realm {
    static REALM: OnceLock<Realm> = OnceLock::new();
    REALM.get_or_init(|| Realm::builder().build().unwrap()).clone()
}

pub(crate) fn model() -> Model {
    static LOADED: OnceLock<Model> = OnceLock::new();
    LOADED.get_or_init(|| realm().load_model(MODEL).unwrap()).clone()
}

/// A running server; dropping it stops it and waits for its end.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// The address of administration.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) stopper: Stopper,
    pub(crate) reloader: Reloader,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// The configuration of most tests: any free port.
pub(crate) fn any_port() -> Config {
    Config { port: 0, ..Config::default() }
}

/// Starts a server of the model, under its own name.
pub(crate) fn start(config: Config) -> Running {
    start_with(config, vec![(MODEL.to_owned(), model())], None)
}

pub(crate) fn start_with(
    config: Config,
    models: Vec<(String, Model)>,
    store: Option<Box<dyn Store>>,
) -> Running {
    let server = match store {
        None => Server::new(config, realm(), models).unwrap(),
        store => Server::with_store(config, realm(), models, store).unwrap(),
    };
    running(server)
}

/// Runs a server on a thread of its own.
pub(crate) fn running(server: Server) -> Running {
    let (stopper, reloader) = (server.stopper(), server.reloader());
    let (send, receive) = mpsc::channel();
    let thread =
        std::thread::spawn(move || server.run_at(|addresses| send.send(addresses).unwrap()).unwrap());
    let addresses = receive.recv().unwrap();
    let (address, admin) = (addresses.clients, addresses.admin);
    Running { address, admin, stopper, reloader, thread: Some(thread) }
}

/// A program's name, its version and its bytes.
type Uploaded = (String, Version, Vec<u8>);

/// The memory that a tenant holds of one kind, in bytes.
pub(crate) fn held(tenant: &str, kind: &str) -> usize {
    let series = format!("realm_tenant_memory_bytes{{tenant=\"{tenant}\",kind=\"{kind}\"}} ");
    let all = realm().prometheus();
    all.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |bytes| bytes.parse().unwrap())
}

/// Keys in memory, which a test sees too.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) keys: Arc<Mutex<Vec<Key>>>,
    pub(crate) used: Arc<Mutex<Vec<(String, Used)>>>,
    pub(crate) entries: Arc<Mutex<Vec<Entry>>>,
    pub(crate) versions: Arc<Mutex<Vec<Uploaded>>>,
}

impl Store for Memory {
    fn keys(&mut self) -> Result<Vec<Key>, StoreError> {
        Ok(self.keys.lock().unwrap().clone())
    }

    fn add(&mut self, key: &Key) -> Result<(), StoreError> {
        self.keys.lock().unwrap().push(key.clone());
        Ok(())
    }

    fn revoke(&mut self, id: &str) -> Result<bool, StoreError> {
        self.keys.lock().unwrap().retain(|key| key.id != id);
        Ok(true)
    }

    fn rotate(&mut self, old: &str, key: &Key, expires: u64) -> Result<bool, StoreError> {
        let mut keys = self.keys.lock().unwrap();
        let Some(old) = keys.iter_mut().find(|key| key.id == old) else { return Ok(false) };
        old.expires = Some(expires);
        keys.push(key.clone());
        Ok(true)
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn add_usage(&mut self, _: u64, used: &[(String, Used)]) -> Result<(), StoreError> {
        self.used.lock().unwrap().extend_from_slice(used);
        Ok(())
    }

    fn usage(&mut self) -> Result<Vec<(String, Used)>, StoreError> {
        Ok(self.used.lock().unwrap().clone())
    }

    fn entries(&mut self) -> Result<Vec<Entry>, StoreError> {
        Ok(self.entries.lock().unwrap().clone())
    }

    fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.remove(entry.kind, &entry.name)?;
        self.entries.lock().unwrap().push(entry.clone());
        Ok(())
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Result<bool, StoreError> {
        let mut entries = self.entries.lock().unwrap();
        let before = entries.len();
        entries.retain(|entry| (entry.kind, &*entry.name) != (kind, name));
        Ok(entries.len() < before)
    }

    fn add_version(
        &mut self,
        program: &str,
        version: &Version,
        wasm: &[u8],
        _: usize,
    ) -> Result<(), StoreError> {
        self.versions.lock().unwrap().push((program.to_owned(), version.clone(), wasm.to_vec()));
        let value = version.number.into();
        self.put(&Entry { kind: Kind::Program, name: program.to_owned(), value })
    }

    fn versions(&mut self, program: &str) -> Result<Vec<Version>, StoreError> {
        let all = self.versions.lock().unwrap();
        Ok(all.iter().filter(|(name, ..)| name == program).map(|(_, version, _)| version.clone()).collect())
    }

    fn wasm(&mut self, program: &str, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let all = self.versions.lock().unwrap();
        let found = all.iter().find(|(name, version, _)| name == program && version.number == number);
        Ok(found.map(|(.., wasm)| wasm.clone()))
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The events of a stream: names, if they have any, and data.
    pub(crate) fn events(&self) -> Vec<(Option<String>, String)> {
        let mut found = Vec::new();
        for block in self.body.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')) {
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            found.push((field("event: "), field("data: ").unwrap_or_else(|| panic!("{block:?}"))));
        }
        found
    }
}

/// A connection on which a test writes what it likes.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        // The server may have closed already, which the answer shows.
        let _ = self.0.write_all(text.as_ref());
        self
    }

    /// Reads until a text appears; returns all that came.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let mut all = Vec::new();
        let mut byte = [0; 1];
        while !all.ends_with(text.as_bytes()) {
            assert_ne!(self.0.read(&mut byte).unwrap(), 0, "ended after {:?}", String::from_utf8_lossy(&all));
            all.push(byte[0]);
        }
        String::from_utf8(all).unwrap()
    }

    /// Reads to the end; a connection that was reset has ended, too.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = self.0.read_to_end(&mut all);
        all
    }

    /// Reads to the end as an answer.
    pub(crate) fn reply(&mut self) -> Reply {
        parse(&self.rest())
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pair =
        |line: &str| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())).unwrap();
    let headers: Vec<_> = lines.map(pair).collect();
    let body = &bytes[end + 4..];
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { dechunked(body) } else { body.to_vec() };
    Reply { status, headers, body: String::from_utf8(body).unwrap() }
}

fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let Some(line) = body.windows(2).position(|part| part == b"\r\n") else { return all };
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return all;
        }
        all.extend_from_slice(&body[line + 2..line + 2 + size]);
        body = &body[line + 2 + size + 2..];
    }
}

/// Returns a request as bytes; the server closes after its answer.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" || method == "PUT" {
        text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

pub(crate) fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    Wire::open(address).send(request(method, path, headers, body)).reply()
}

/// The files of the conformance suite.
pub(crate) fn conformance(file: &str) -> String {
    format!("{}/../../tests/conformance/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// Calls administration. An empty key is none; null is no body.
pub(crate) fn admin_as(server: &Running, key: &str, method: &str, path: &str, body: &Value) -> Reply {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", &*bearer)];
    let headers = if key.is_empty() { &[][..] } else { &headers };
    call(server.admin.unwrap(), method, path, headers, &text)
}

/// Calls administration of a server without keys, which has to do it.
pub(crate) fn admin(server: &Running, method: &str, path: &str, body: &Value) -> Value {
    let reply = admin_as(server, "", method, path, body);
    assert!(reply.status < 300, "{method} {path}: {reply:?}");
    reply.json()
}

pub(crate) fn get(server: &Running, path: &str) -> Reply {
    call(server.address, "GET", path, &[], "")
}

pub(crate) fn post(server: &Running, path: &str, body: &Value) -> Reply {
    call(server.address, "POST", path, &[], &body.to_string())
}

pub(crate) fn post_as(server: &Running, key: &str, path: &str, body: &Value) -> Reply {
    let bearer = format!("Bearer {key}");
    call(server.address, "POST", path, &[("authorization", &bearer)], &body.to_string())
}

/// A question with an answer that is known, and more fields.
pub(crate) fn question(more: Value) -> Value {
    let mut body = json!({
        "model": MODEL, "temperature": 0, "max_tokens": 16,
        "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A text that goes on for a given number of tokens.
pub(crate) fn story(tokens: usize) -> Value {
    json!({"model": MODEL, "prompt": "Once upon a time", "temperature": 0, "max_tokens": tokens, "ignore_eos": true})
}

/// The value of a series of `/metrics`.
pub(crate) fn metric(server: &Running, series: &str) -> f64 {
    let text = get(server, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or("0").trim().parse().unwrap()
}

/// Waits until something is so; fails after a minute.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("after a minute still not: {what}");
}
