//! Clients that break off, trickle, or send what is no request.

mod common;

use std::net::Shutdown;
use std::time::Duration;

use common::{
    MODEL, Wire, any_port, call, eventually, get, metric, model, post, question, request, start, story,
};
use realm_server::{Config, Http};
use serde_json::json;

/// Requests that the model has running or waiting.
fn at_work() -> usize {
    let all = model().metrics().served;
    all.running + all.waiting
}

#[test]
fn a_client_that_leaves_ends_its_work_at_once() {
    let server = start(any_port());
    let long = |stream: bool| {
        let mut body = story(8_000);
        body["stream"] = json!(stream);
        body.to_string()
    };
    // A stream that is read, one that is not, and an answer that is no stream.
    let mut reader = Wire::open(server.address);
    reader.send(request("POST", "/v1/completions", &[], &long(true)));
    reader.until("data: ");
    let mut silent = Wire::open(server.address);
    silent.send(request("POST", "/v1/completions", &[], &long(true)));
    let mut whole = Wire::open(server.address);
    whole.send(request("POST", "/v1/completions", &[], &long(false)));
    let mut named = Wire::open(server.address);
    named.send(request(
        "POST",
        "/api/generate",
        &[],
        &json!({"model": MODEL, "prompt": "a", "stream": false, "options": {"num_predict": -1}}).to_string(),
    ));
    eventually("all four are at work", || at_work() == 4);
    let cancelled = model().metrics().served.requests.cancelled;
    drop((reader, silent, whole, named));
    eventually("none is at work", || at_work() == 0);
    eventually("no request is open", || metric(&server, "realm_http_active_requests") == 1.0);
    assert_eq!(model().metrics().served.requests.cancelled, cancelled + 4);
}

#[test]
fn a_client_that_leaves_while_its_request_waits_or_its_prompt_is_computed_ends_it() {
    let server = start(any_port());
    // More than run at once, so that some wait; their prompts are long, so that most are being computed.
    let prompt = "word ".repeat(6_000);
    let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 100}).to_string();
    let wires: Vec<_> = (0..12)
        .map(|_| {
            let mut wire = Wire::open(server.address);
            wire.send(request("POST", "/v1/completions", &[], &body));
            wire
        })
        .collect();
    eventually("they are at work", || at_work() >= 6);
    drop(wires);
    eventually("none is at work", || at_work() == 0);
    assert_eq!(get(&server, "/health").status, 200);
}

#[test]
fn a_client_that_closes_its_half_or_resets_leaves_nothing_behind() {
    let server = start(any_port());
    let mut wire = Wire::open(server.address);
    wire.send(request("POST", "/v1/completions", &[], &story(8_000).to_string()));
    eventually("it is at work", || at_work() == 1);
    wire.0.shutdown(Shutdown::Write).unwrap();
    eventually("none is at work", || at_work() == 0);
    // Half a body, and then nothing.
    let mut half = Wire::open(server.address);
    half.send("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{\"model\"");
    drop(half);
    eventually("no request is open", || metric(&server, "realm_http_active_requests") == 1.0);
}

#[test]
fn http_2_streams_that_are_reset_end_their_work() {
    let server = start(any_port());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        use http_body_util::{BodyExt, Full};
        use hyper_util::rt::{TokioExecutor, TokioIo};
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut ask = |body: serde_json::Value| {
            let uri = format!("http://localhost:{}/v1/completions", server.address.port());
            let body = Full::new(bytes::Bytes::from(body.to_string()));
            client.send_request(http::Request::post(uri).body(body).unwrap())
        };
        let mut story = story(8_000);
        let whole = tokio::spawn(ask(story.clone()));
        story["stream"] = json!(true);
        let mut answer = ask(story).await.unwrap();
        assert_eq!((answer.status(), answer.version()), (http::StatusCode::OK, http::Version::HTTP_2));
        assert!(answer.body_mut().frame().await.unwrap().unwrap().is_data());
        tokio::task::spawn_blocking(|| eventually("both are at work", || at_work() == 2)).await.unwrap();
        whole.abort();
        drop(answer);
        tokio::task::spawn_blocking(|| eventually("none is at work", || at_work() == 0)).await.unwrap();
        // The connection itself goes on.
        let short = ask(common::story(2)).await.unwrap();
        assert_eq!(short.status(), 200);
    });
}

#[test]
fn every_kind_of_damaged_json_is_a_400() {
    let server = start(any_port());
    let whole =
        question(json!({"stream": true, "tools": [], "stop": ["a"], "logit_bias": {"1": 2}})).to_string();
    let mut bodies: Vec<Vec<u8>> =
        (0..whole.len()).step_by(7).map(|end| whole.as_bytes()[..end].to_vec()).collect();
    for damaged in [
        whole.replace('"', "'"),
        whole.replace(':', ","),
        whole.replace("true", "yes"),
        format!("{whole}{whole}"),
        format!("\u{feff}{whole}"),
        "NaN".to_owned(),
        "nul".to_owned(),
        "[".repeat(100_000),
        format!("{{\"messages\": {}", "[".repeat(500)),
        "\"\\ud800".to_owned(),
        "{\"model\": 1e999}".to_owned(),
        "{\"model\": \"\u{1}\"}".to_owned(),
    ] {
        bodies.push(damaged.into_bytes());
    }
    bodies.push(vec![0; 1_000]);
    bodies.push(vec![0xff, 0xfe, b'{', 0]);
    let mut bad = whole.clone().into_bytes();
    bad[20] = 0xc3;
    bodies.push(bad);
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses", "/tokenize"] {
        for body in &bodies {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let reply = Wire::open(server.address).send(head).send(body).reply();
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert_eq!(reply.status, 400, "{path} {shown:?}: {}", reply.body);
            assert!(!reply.json()["error"].is_null(), "{path} {shown:?}");
        }
    }
}

#[test]
fn fields_of_every_wrong_type_are_a_400() {
    let server = start(any_port());
    let wrong = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!([]),
        json!([[]]),
        json!({}),
        json!([{"a": 1}]),
    ];
    for (path, field) in [
        ("/v1/chat/completions", "messages"),
        ("/v1/chat/completions", "model"),
        ("/v1/completions", "prompt"),
        ("/v1/embeddings", "input"),
        ("/v1/messages", "messages"),
        ("/v1/messages", "max_tokens"),
        ("/v1/responses", "input"),
        ("/api/chat", "messages"),
        ("/api/embed", "input"),
        ("/detokenize", "tokens"),
    ] {
        for value in &wrong {
            let mut body = question(json!({"prompt": "a", "input": "a", "tokens": [1], "max_tokens": 1}));
            body[field] = value.clone();
            let status = post(&server, path, &body).status;
            // Some of these values are right for some fields; nothing may be the server's fault.
            assert!((200..500).contains(&status), "{path} {field} {value}: {status}");
        }
    }
}

#[test]
fn headers_and_bodies_have_limits() {
    let http = Http { max_body: 1_000, max_headers: 8 << 10, ..Http::default() };
    let server = start(Config { http, ..any_port() });
    let large = json!({"model": MODEL, "prompt": "a".repeat(2_000)}).to_string();
    let reply = call(server.address, "POST", "/v1/completions", &[], &large);
    assert_eq!((reply.status, reply.header("x-request-id").is_some()), (413, true));
    // Without a length, which only the last byte shows.
    let mut wire = Wire::open(server.address);
    wire.send("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    wire.send(format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len()));
    let reply = wire.reply();
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (413, &json!("request_too_large")));
    let long = "a".repeat(16 << 10);
    let reply = call(server.address, "GET", "/v1/models", &[("x-long", &long)], "");
    assert_eq!(reply.status, 431);
    let compressed = call(server.address, "POST", "/v1/completions", &[("content-encoding", "gzip")], "x");
    assert_eq!(compressed.status, 415);
    for nonsense in [
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 and so on, for 24 bytes",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxxxx",
        "GET / HTTP/9.9\r\nhost: a\r\n\r\n",
    ] {
        let mut wire = Wire::open(server.address);
        wire.send(nonsense);
        let _ = wire.0.shutdown(Shutdown::Write);
        wire.rest();
    }
    assert_eq!(get(&server, "/health").status, 200);
}

#[test]
fn clients_that_trickle_or_do_not_read_are_let_go() {
    let http = Http {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(300),
        ..Http::default()
    };
    let server = start(Config { http, ..any_port() });
    // Nothing; a part of what tells the protocols apart; headers that do not end.
    for beginning in ["", "P", "PRI * HT", "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n"] {
        let mut wire = Wire::open(server.address);
        wire.send(beginning);
        wire.rest();
    }
    let mut wire = Wire::open(server.address);
    wire.send("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{");
    assert_eq!(wire.reply().status, 408);
    eventually("no connection is open", || metric(&server, "realm_http_connections") == 1.0);
    // A reader that sleeps, and an answer that fills all buffers on the way.
    let mut wire = Wire::open(server.address);
    socket2::SockRef::from(&wire.0).set_recv_buffer_size(4096).unwrap();
    let body = json!({"model": MODEL, "prompt": "a ".repeat(3 << 20)}).to_string();
    wire.send(request("POST", "/tokenize", &[], &body));
    wire.until("200 OK");
    eventually("it is let go", || metric(&server, "realm_http_connections") == 1.0);
    drop(wire);
}

#[test]
fn connections_beyond_the_limit_wait_their_turn() {
    let http = Http { max_connections: 1, ..Http::default() };
    let server = start(Config { http, ..any_port() });
    let mut first = Wire::open(server.address);
    first.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").until("200 OK");
    let mut second = Wire::open(server.address);
    second.send(request("GET", "/health", &[], ""));
    second.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(second.rest().is_empty(), "the second connection was served beside the first");
    drop(first);
    second.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(second.reply().status, 200);
}

#[test]
fn an_idle_stream_is_kept_alive_from_before_its_first_token() {
    let http = Http { keep_alive: Duration::from_millis(20), ..Http::default() };
    let server = start(Config { http, ..any_port() });
    // A prompt that takes longer than the time between comments.
    let prompt = "word ".repeat(2_000);
    let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 1, "stream": true});
    let reply = post(&server, "/v1/completions", &body);
    let first = reply.body.find("data: ").unwrap();
    assert!(reply.body[..first].contains(": keep-alive\n\n"), "{:?}", &reply.body[..first.min(200)]);
    assert!(reply.body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn stopping_waits_for_requests_and_refuses_others() {
    let server = start(any_port());
    let mut wire = Wire::open(server.address);
    let mut body = story(200);
    body["stream"] = json!(true);
    wire.send(request("POST", "/v1/completions", &[], &body.to_string()));
    wire.until("data: ");
    server.stopper.stop();
    eventually("others are refused", || std::net::TcpStream::connect(server.address).is_err());
    let rest = String::from_utf8(wire.rest()).unwrap();
    assert!(rest.contains("data: [DONE]"), "the stream was cut");
}

#[test]
fn stopping_twice_ends_at_once() {
    // Without the second call, the server would wait for its request for longer than the test may run.
    let http = Http { drain_timeout: Duration::from_secs(3600), ..Http::default() };
    let server = start(Config { http, ..any_port() });
    let mut wire = Wire::open(server.address);
    let mut body = story(8_000);
    body["stream"] = json!(true);
    wire.send(request("POST", "/v1/completions", &[], &body.to_string()));
    wire.until("data: ");
    server.stopper.stop();
    server.stopper.stop();
    assert!(!String::from_utf8_lossy(&wire.rest()).contains("[DONE]"));
    eventually("none is at work", || at_work() == 0);
}
