//! Pulls of repositories whose model is a folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use realm_hub::{Hub, Reference, State};

use crate::common::content;

/// Serves the repository `owner/repo` of these files; returns the address, and the names of what was asked
/// for.
fn serve(files: BTreeMap<&'static str, Vec<u8>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    // The thread ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            let body = if path.starts_with("/api/models/owner/repo/revision/main") {
                let each = files.iter().map(|(name, data)| {
                    format!(r#"{{"rfilename":"{name}","size":{},"blobId":"0"}}"#, data.len())
                });
                format!(r#"{{"siblings":[{}]}}"#, each.collect::<Vec<_>>().join(",")).into_bytes()
            } else {
                let name = path.strip_prefix("/owner/repo/resolve/main/").unwrap_or_default();
                noted.lock().expect("no panic").push(name.to_owned());
                files.get(name).cloned().unwrap_or_default()
            };
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            // Clients that leave early are no failure of the server.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    (url, asked)
}

fn reference() -> Reference {
    Reference::parse("hf:owner/repo").expect("a reference")
}

#[test]
fn a_model_of_a_repository_is_fetched_once_without_what_it_does_not_need() {
    let model = content(50_000);
    let needed = ["config.json", "model.safetensors", "tokenizer.json"];
    let files = BTreeMap::from([
        ("README.md", b"hello".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("consolidated.safetensors", model.clone()),
        ("model.safetensors", model.clone()),
        ("onnx/model.safetensors", model.clone()),
        ("pytorch_model.bin", model.clone()),
        ("tokenizer.json", b"{}".to_vec()),
    ]);
    let (url, asked) = serve(files);
    let cache = tempfile::tempdir().expect("a folder");
    let hub = Hub::with_cache(cache.path()).with_endpoint(&url);
    assert_eq!(hub.info(&reference()).expect("a state").state, State::Absent);
    let folder = hub.resolve(&reference(), &mut ()).expect("a folder");
    assert_eq!(folder, cache.path().join("models/hf/owner/repo"));
    assert_eq!(fs::read(folder.join("model.safetensors")).expect("the weights"), model);
    assert_eq!(*asked.lock().expect("no panic"), needed);
    assert!(matches!(hub.info(&reference()).expect("a state").state, State::Present(50_004)));
    // The second time nothing is asked for.
    let offline = Hub::with_cache(cache.path()).with_endpoint("http://127.0.0.1:1");
    assert_eq!(offline.resolve(&reference(), &mut ()).expect("a folder"), folder);
    assert_eq!(hub.remove(&reference()).expect("removed"), 50_004);
    assert_eq!(hub.info(&reference()).expect("a state").state, State::Absent);
}

#[test]
fn a_repository_without_such_a_model_names_the_files_that_it_has() {
    let (url, _) = serve(BTreeMap::from([("model-Q4_K_M.gguf", vec![0; 10]), ("config.json", vec![0; 2])]));
    let cache = tempfile::tempdir().expect("a folder");
    let hub = Hub::with_cache(cache.path()).with_endpoint(&url);
    let error = hub.resolve(&reference(), &mut ()).expect_err("no model").to_string();
    assert!(error.contains("hf:owner/repo/model-Q4_K_M.gguf"), "{error}");
}
