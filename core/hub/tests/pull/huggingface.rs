//! Pulls from a local server that answers like the hub, with connections that break.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use realm_hub::{Error, Hub, Reference, Source, State};

use crate::common::{content, entry, sha256};

const NAME: &str = "owner/repo/sub/tiny.gguf";

/// The content and behavior of a server.
struct Served {
    content: Vec<u8>,
    /// The numbers of bytes after which the first answers break off, one for each.
    breaks: Vec<usize>,
    /// The file's hash as the repository gives it.
    sha256: String,
    /// True if the server can start in the middle of the file.
    resumes: bool,
}

/// The requests that a server received.
#[derive(Default)]
struct Asked {
    /// The `Range` header of each request for the file; empty where there was none.
    ranges: Vec<String>,
    /// The `Authorization` header of every request.
    authorizations: Vec<String>,
}

/// A server with the repository `owner/repo` and the file `sub/tiny.gguf`.
struct Server {
    url: String,
    asked: Arc<Mutex<Asked>>,
}

impl Server {
    /// Serves `content`. The first answers break off after the numbers of bytes in `breaks`, one for each.
    fn start(content: Vec<u8>, breaks: Vec<usize>) -> Server {
        let sha256 = sha256(&content);
        Server::serve(Served { content, breaks, sha256, resumes: true })
    }

    fn serve(served: Served) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Asked::default()));
        let noted = Arc::clone(&asked);
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Clients that leave early are part of these tests.
                let _ = answer(&stream.expect("a connection"), &served, &noted);
            }
        });
        Server { url, asked }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub::with_cache(cache).with_endpoint(&self.url)
    }

    fn ranges(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").ranges.clone()
    }
}

/// Reads the lines of a request's head.
fn head(stream: &TcpStream) -> std::io::Result<Vec<String>> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            return Ok(lines);
        }
        lines.push(line.trim().to_owned());
    }
}

/// Answers one request and closes the connection.
fn answer(mut stream: &TcpStream, served: &Served, asked: &Mutex<Asked>) -> std::io::Result<()> {
    let lines = head(stream)?;
    let header = |name: &str| {
        let values = lines.iter().filter_map(|line| line.split_once(": "));
        values.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let head = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
    };
    asked.lock().expect("no panic").authorizations.push(header("authorization").unwrap_or_default());
    if lines[0].starts_with("GET /api/models/owner/repo/revision/main?blobs=true ") {
        let size = served.content.len();
        let sha256 = &served.sha256;
        let list = format!(
            r#"{{"siblings":[{{"rfilename":"README.md","size":3,"blobId":"0"}},
            {{"rfilename":"sub/tiny.gguf","size":{size},"lfs":{{"sha256":"{sha256}","size":{size}}}}}]}}"#
        );
        return write!(stream, "{}{list}", head("200 OK", list.len()));
    }
    if lines[0].starts_with("GET /owner/repo/resolve/main/sub/tiny.gguf ") {
        let range = header("range").unwrap_or_default();
        let (start, status) = match range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) {
            Some((start, _)) if served.resumes => (start.parse().expect("a number"), "206 Partial Content"),
            _ => (0, "200 OK"),
        };
        let rest = &served.content[start..];
        let broken = {
            let mut asked = asked.lock().expect("no panic");
            asked.ranges.push(range);
            served.breaks.get(asked.ranges.len() - 1).copied()
        };
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
fn leftovers_of_an_older_version_do_not_spoil_a_file_known_by_its_name_alone() {
    let cache = tempfile::tempdir().expect("a folder");
    let bytes = content(200_000);
    let folder = cache.path().join("models/hf/owner/repo/sub");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("tiny.gguf.partial"), vec![7; 150_000]).expect("a file");
    let server = Server::start(bytes.clone(), vec![]);
    let path = server.hub(cache.path()).pull(&reference(), &mut ()).expect("the file");
    assert_eq!(fs::read(path).expect("the file"), bytes);
    assert_eq!(server.ranges(), ["bytes=150000-199999", ""]);
}

#[test]
fn a_server_that_cannot_resume_starts_again_but_not_for_ever() {
    let bytes = content(200_000);
    let serve = |breaks: Vec<usize>| {
        Server::serve(Served { content: bytes.clone(), breaks, sha256: sha256(&bytes), resumes: false })
    };
    let cache = tempfile::tempdir().expect("a folder");
    let path = serve(vec![80_000]).hub(cache.path()).pull(&reference(), &mut ()).expect("the file");
    assert_eq!(fs::read(path).expect("the file"), bytes);

    let cache = tempfile::tempdir().expect("a folder");
    let server = serve(vec![80_000; 100]);
    server.hub(cache.path()).pull(&reference(), &mut ()).expect_err("the file never comes");
    assert!(server.ranges().len() <= 5, "{:?}", server.ranges());
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
    assert!(message.contains("owner/nothing does not exist, or HF_TOKEN"), "{message}");
    assert!(matches!(error, Error::AllSourcesFailed { failures, .. } if failures.len() == 3));
    assert!(server.ranges().is_empty());
}

#[test]
fn content_with_another_hash_is_refused() {
    let cache = tempfile::tempdir().expect("a folder");
    let bytes = content(1000);
    let entry = Reference::Catalog(entry(&bytes, hub_source()));
    let zeros = vec![0; 1000];
    // One repository gives the true hash of its wrong file, and the other gives the hash that was expected.
    for (said, downloads) in [(sha256(&zeros), 0), (sha256(&bytes), 1)] {
        let served = Served { content: zeros.clone(), breaks: vec![], sha256: said, resumes: true };
        let server = Server::serve(served);
        let message = server.hub(cache.path()).pull(&entry, &mut ()).expect_err("other content").to_string();
        assert!(message.contains(&format!("{} instead of {}", sha256(&zeros), sha256(&bytes))), "{message}");
        assert_eq!(server.ranges().len(), downloads);
        assert!(!cache.path().join("models/tiny.gguf").exists());
    }
}

#[tokio::test]
async fn a_pull_works_inside_an_async_program() {
    let cache = tempfile::tempdir().expect("a folder");
    let bytes = content(1000);
    let path = Server::start(bytes.clone(), vec![]).hub(cache.path()).pull(&reference(), &mut ());
    assert_eq!(fs::read(path.expect("the file")).expect("the file"), bytes);
}

/// Not a test: the body of the process that [`pull_with`] runs.
#[test]
fn pulling_process() {
    let Some(cache) = std::env::var_os("REALM_TEST_HUB_CACHE") else { return };
    match Hub::with_cache(cache).pull(&reference(), &mut ()) {
        Ok(_) => println!("\ndone"),
        Err(e) => println!("\n{e}"),
    }
}

/// Returns the output of a process that pulls with these environment variables.
fn pull_with(variables: &[(&str, &str)]) -> String {
    let cache = tempfile::tempdir().expect("a folder");
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "huggingface::pulling_process", "--nocapture"])
        .env("REALM_TEST_HUB_CACHE", cache.path())
        .env_remove("HF_HUB_DISABLE_IMPLICIT_TOKEN")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("a process");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_users_token_and_endpoint_are_taken_from_the_environment() {
    let home = tempfile::tempdir().expect("a folder");
    fs::write(home.path().join("token"), "stored\n").expect("a token");
    let home = home.path().to_str().expect("a path");
    let rows: [(&[(&str, &str)], &str); 3] = [
        (&[("HF_TOKEN", "given")], "Bearer given"),
        (&[("HF_TOKEN", "")], "Bearer stored"),
        (&[("HF_TOKEN", "given"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], ""),
    ];
    for (variables, sent) in rows {
        let server = Server::start(content(1000), vec![]);
        // An `http://` server is asked directly, not through a proxy.
        let more = [("HF_ENDPOINT", &*server.url), ("HF_HOME", home), ("HTTPS_PROXY", "http://127.0.0.1:9")];
        let said = pull_with(&[variables, &more].concat());
        assert!(said.contains("\ndone"), "{said}");
        assert_eq!(server.asked.lock().expect("no panic").authorizations, [sent; 2]);
    }
}

#[test]
fn the_proxy_of_the_environment_is_asked_for_the_hub() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    // The thread ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            noted.lock().expect("no panic").push(head(&stream).expect("a request")[0].clone());
            write!(stream, "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").expect("a client");
        }
    });
    let said = pull_with(&[
        ("HF_ENDPOINT", "https://hub.invalid"),
        ("ALL_PROXY", ""),
        ("all_proxy", ""),
        ("HTTPS_PROXY", &proxy),
    ]);
    let asked = asked.lock().expect("no panic");
    assert!(asked.iter().all(|line| line == "CONNECT hub.invalid:443 HTTP/1.1"), "{asked:?}");
    assert!(!asked.is_empty() && said.contains("CONNECT proxy failed"), "{asked:?} {said}");
}
