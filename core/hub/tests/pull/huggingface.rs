//! Pulling from a server that speaks what hf-hub asks for, with connections that break.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use realm_hub::{Error, Hub, Reference, Source, State};

use crate::common::{content, entry};

const NAME: &str = "owner/repo/sub/tiny.gguf";

/// A repository `owner/repo` with the file `sub/tiny.gguf`.
struct Server {
    url: String,
    /// The `Range` header of each GET; empty where there was none.
    ranges: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves `content`; each of the first answers breaks off after that many of `breaks` bytes.
    fn start(content: Vec<u8>, breaks: Vec<usize>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&ranges);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away early is part of these tests.
                let _ = answer(&stream.expect("a connection"), &content, &breaks, &noted);
            }
        });
        Server { url, ranges }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub::with_cache(cache).with_endpoint(&self.url)
    }

    fn ranges(&self) -> Vec<String> {
        self.ranges.lock().expect("no panic").clone()
    }
}

/// Answers one request and closes.
fn answer(
    mut stream: &TcpStream,
    content: &[u8],
    breaks: &[usize],
    ranges: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_lowercase());
    }
    let header = |name: &str| {
        let prefix = format!("{name}: ");
        lines.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let head = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
    };
    let path = "/owner/repo/resolve/main/sub/tiny.gguf";
    if lines[0].starts_with("post /api/models/owner/repo/paths-info/main ") {
        let wanted = String::from_utf8_lossy(&body).contains("sub/tiny.gguf");
        let file =
            format!(r#"[{{"type":"file","oid":"0","size":{},"path":"sub/tiny.gguf"}}]"#, content.len());
        let list = if wanted { file } else { "[]".to_owned() };
        return write!(stream, "{}{list}", head("200 OK", list.len()));
    }
    if lines[0].starts_with(&format!("head {path} ")) {
        return write!(stream, "{}", head("200 OK", content.len()));
    }
    if lines[0].starts_with(&format!("get {path} ")) {
        let range = header("range");
        let start =
            range.trim_start_matches("bytes=").split('-').next().and_then(|s| s.parse().ok()).unwrap_or(0);
        let rest = &content[start..];
        let broken = {
            let mut ranges = ranges.lock().expect("no panic");
            ranges.push(range.clone());
            breaks.get(ranges.len() - 1).copied()
        };
        let status = if range.is_empty() { "200 OK" } else { "206 Partial Content" };
        write!(stream, "{}", head(status, rest.len()))?;
        return stream.write_all(&rest[..broken.unwrap_or(rest.len()).min(rest.len())]);
    }
    write!(stream, "{}", head("404 Not Found", 0))
}

fn reference() -> Reference {
    Reference::parse(&format!("hf:{NAME}")).expect("a reference")
}

fn hub_source() -> Vec<Source> {
    vec![Source::Hub { hub: NAME.into() }]
}

#[test]
fn a_file_of_a_repository_is_fetched_listed_and_removed() {
    let cache = tempfile::tempdir().expect("a folder");
    let bytes = content(200_000);
    let hub = Server::start(bytes.clone(), vec![]).hub(cache.path());
    let path = hub.resolve(&reference(), &mut ()).expect("the file");
    assert_eq!(path, cache.path().join("models/hf/owner/repo/sub/tiny.gguf"));
    assert_eq!(fs::read(path).expect("the file"), bytes);
    let listed = hub.list().expect("a list").into_iter().find(|status| status.reference == reference());
    assert_eq!(listed.expect("it is listed").state, State::Present(200_000));
    assert_eq!(hub.remove(&reference()).expect("removed"), 200_000);
    assert!(hub.list().expect("a list").iter().all(|status| status.state == State::Absent));
}

#[test]
fn a_broken_connection_goes_on_where_it_stopped() {
    let cache = tempfile::tempdir().expect("a folder");
    let bytes = content(200_000);
    let server = Server::start(bytes.clone(), vec![80_000]);
    let entry = Reference::Catalog(entry(&bytes, hub_source()));
    let path = server.hub(cache.path()).pull(&entry, &mut ()).expect("the file");
    assert_eq!(fs::read(path).expect("the file"), bytes);
    let ranges = server.ranges();
    assert_eq!(ranges.len(), 2);
    assert!(ranges[1].starts_with("bytes=") && ranges[1] != "bytes=0-199999", "{ranges:?}");
}

#[test]
fn a_later_pull_goes_on_where_an_earlier_one_stopped() {
    let cache = tempfile::tempdir().expect("a folder");
    let bytes = content(200_000);
    fs::create_dir(cache.path().join("models")).expect("a folder");
    fs::write(cache.path().join("models/tiny.gguf.partial"), &bytes[..150_000]).expect("a file");
    let server = Server::start(bytes.clone(), vec![]);
    let entry = Reference::Catalog(entry(&bytes, hub_source()));
    let path = server.hub(cache.path()).pull(&entry, &mut ()).expect("the file");
    assert_eq!(fs::read(path).expect("the file"), bytes);
    assert_eq!(server.ranges(), ["bytes=150000-199999"]);
}

#[test]
fn leftovers_of_another_file_do_not_spoil_a_pull() {
    let bytes = content(200_000);
    for leftover in [150_000, 200_000, 300_000] {
        let cache = tempfile::tempdir().expect("a folder");
        fs::create_dir(cache.path().join("models")).expect("a folder");
        fs::write(cache.path().join("models/tiny.gguf.partial"), vec![7; leftover]).expect("a file");
        let server = Server::start(bytes.clone(), vec![]);
        let entry = Reference::Catalog(entry(&bytes, hub_source()));
        let path = server.hub(cache.path()).pull(&entry, &mut ()).expect("the file");
        assert_eq!(fs::read(path).expect("the file"), bytes);
    }
}

#[test]
fn a_repository_with_another_file_is_refused_before_it_is_fetched() {
    let cache = tempfile::tempdir().expect("a folder");
    let server = Server::start(content(100), vec![]);
    let missing = Source::Hub { hub: "owner/repo/gone.gguf".into() };
    let absent = Source::Hub { hub: "owner/nothing/tiny.gguf".into() };
    let sources = [hub_source(), vec![missing, absent]].concat();
    let entry = Reference::Catalog(entry(&content(200), sources));
    let error = server.hub(cache.path()).pull(&entry, &mut ()).expect_err("not there");
    let message = error.to_string();
    assert!(message.contains("100 bytes instead of 200"), "{message}");
    assert!(message.contains("gone.gguf is not in owner/repo"), "{message}");
    assert!(message.contains("owner/nothing"), "{message}");
    assert!(matches!(error, Error::AllSourcesFailed { failures, .. } if failures.len() == 3));
    assert!(server.ranges().is_empty());
}

#[test]
fn content_with_another_hash_is_refused() {
    let cache = tempfile::tempdir().expect("a folder");
    let bytes = content(1000);
    let server = Server::start(vec![0; 1000], vec![]);
    let entry = Reference::Catalog(entry(&bytes, hub_source()));
    let message = server.hub(cache.path()).pull(&entry, &mut ()).expect_err("other content").to_string();
    assert!(message.contains("SHA-256"), "{message}");
    assert!(!cache.path().join("models/tiny.gguf").exists());
}

#[tokio::test]
async fn a_pull_works_inside_an_async_program() {
    let cache = tempfile::tempdir().expect("a folder");
    let bytes = content(1000);
    let path = Server::start(bytes.clone(), vec![]).hub(cache.path()).pull(&reference(), &mut ());
    assert_eq!(fs::read(path.expect("the file")).expect("the file"), bytes);
}
