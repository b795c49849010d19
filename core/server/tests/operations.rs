//! What those who run a server see: metrics, the access log, TLS.

mod common;

use std::sync::Arc;

use common::{MODEL, any_port, eventually, get, metric, post, question, start, story};
use realm_server::{Config, Tls};
use serde_json::{Value, json};

#[test]
fn metrics_count_http_beside_the_library() {
    let server = start(any_port());
    post(&server, "/v1/completions", &story(3));
    post(&server, "/v1/completions", &json!({"model": "none", "prompt": "a"}));
    get(&server, "/some/secret/path");
    let reply = get(&server, "/metrics");
    assert!(reply.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = reply.body;
    for (status, route) in [(200, "/v1/completions"), (404, "/v1/completions"), (404, "other")] {
        let series = format!("realm_http_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        assert_eq!(metric(&server, &series), 1.0, "{series} in {text}");
    }
    assert!(
        metric(&server, &format!("realm_tokens_total{{model=\"{MODEL}\",kind=\"generated\"}}")) >= 3.0,
        "{text}"
    );
    assert!(!text.contains("secret"));
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(metric(&server, "realm_http_active_requests"), 1.0);
}

#[test]
fn the_access_log_has_lengths_and_ids_and_no_texts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.jsonl");
    let server = start(Config { access_log: Some(path.clone()), ..any_port() });
    let reply = post(&server, "/v1/chat/completions", &question(json!({"stream": true})));
    eventually("the line is written", || std::fs::read_to_string(&path).unwrap().ends_with('\n'));
    let text = std::fs::read_to_string(&path).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["id"], reply.header("x-request-id").unwrap());
    assert_eq!((&line["route"], &line["status"]), (&json!("/v1/chat/completions"), &json!(200)));
    assert_eq!((&line["tenant"], &line["complete"]), (&json!("default"), &json!(true)));
    assert_eq!(line["generated_tokens"], 8);
    assert!(line["prompt_tokens"].as_u64().unwrap() > 20);
    assert!(!text.contains("France") && !text.contains("Paris"));
}

#[test]
fn http_1_and_2_are_spoken_over_tls() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let tls = Tls { certificate: folder.join("localhost.pem"), key: folder.join("localhost.key.pem") };
    let server = start(Config { tls: Some(tls.clone()), ..any_port() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for (protocol, version) in [("http/1.1", http::Version::HTTP_11), ("h2", http::Version::HTTP_2)] {
            let (status, answered) = over_tls(&server, &tls, protocol).await;
            assert_eq!((status, answered), (http::StatusCode::OK, version));
        }
    });
    // A client that speaks no TLS gets no answer of HTTP, and the server goes on.
    let mut wire = common::Wire::open(server.address);
    wire.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(!wire.rest().starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_renewed_certificate_is_in_use_when_the_configuration_was_read_again() {
    let (own, folder) =
        (std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), tempfile::tempdir().unwrap());
    let of = |name: &str| Tls {
        certificate: own.join(format!("{name}.pem")),
        key: own.join(format!("{name}.key.pem")),
    };
    let tls = Tls { certificate: folder.path().join("chain.pem"), key: folder.path().join("key.pem") };
    let put = |from: &Tls| {
        std::fs::copy(&from.certificate, &tls.certificate).unwrap();
        std::fs::copy(&from.key, &tls.key).unwrap();
    };
    put(&of("localhost"));
    let config = Config { tls: Some(tls.clone()), ..any_port() };
    let reread = config.clone();
    let server = realm_server::Server::new(config, common::realm(), [(MODEL.to_owned(), common::model())]);
    let server = common::running(server.unwrap().on_reload(move || Ok(reread.clone())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The client trusts one certificate alone.
    let asks = |trusted: &str| runtime.block_on(over_tls(&server, &of(trusted), "h2")).0;
    assert_eq!(asks("localhost"), http::StatusCode::OK);
    put(&of("renewed"));
    assert_eq!(asks("localhost"), http::StatusCode::OK);
    server.reloader.reload().unwrap();
    assert_eq!(asks("renewed"), http::StatusCode::OK);
    std::fs::write(&tls.certificate, "no certificate").unwrap();
    let error = server.reloader.reload().unwrap_err().to_string();
    assert!(error.contains("tls") && error.contains("chain.pem"), "{error}");
    assert_eq!(asks("renewed"), http::StatusCode::OK);
}

/// Asks for the list of models over TLS.
async fn over_tls(server: &common::Running, tls: &Tls, protocol: &str) -> (http::StatusCode, http::Version) {
    use http_body_util::Empty;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&tls.certificate).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    let request = http::Request::get("https://localhost/v1/models").header("host", "localhost");
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let answer = if protocol == "h2" {
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request).await.unwrap()
    } else {
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request).await.unwrap()
    };
    (answer.status(), answer.version())
}
