//! Requests over the network: to granted hosts, to others, and to granted hosts that are malicious
//! themselves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use realm_sandbox::{Error, ErrorKind, Grants};

use crate::ended;
use crate::guest::component_with;
use crate::host::{FOREVER, Host, Said, Who, anybody, peak, with};

/// The code in `wasi:http` of a denied request.
const DENIED: u32 = 15;

/// A server at a port of its own that counts its connections.
struct Server {
    address: String,
    opened: Arc<AtomicUsize>,
}

impl Server {
    /// Answers each request by its path; `/moved` redirects to `elsewhere`.
    fn start(elsewhere: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let opened = Arc::new(AtomicUsize::new(0));
        let (count, elsewhere) = (Arc::clone(&opened), elsewhere.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let elsewhere = elsewhere.clone();
                std::thread::spawn(move || answer(stream, &elsewhere));
            }
        });
        Self { address, opened }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

/// Answers until the other side stops reading.
fn answer(mut stream: TcpStream, elsewhere: &str) {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..read]);
    let path = request.split(' ').nth(1).unwrap_or("");
    let head = match path {
        "/ok" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_owned(),
        "/moved" => {
            format!("HTTP/1.1 302 Found\r\nLocation: http://{elsewhere}/ok\r\nContent-Length: 0\r\n\r\n")
        }
        "/endless" => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
        "/headers" => "HTTP/1.1 200 OK\r\n".to_owned(),
        "/garbage" => "\0\u{1}\u{2}200 OK\n\n\n".to_owned(),
        _ => String::new(),
    };
    let mut sent = stream.write_all(head.as_bytes());
    let more: &[u8] = match path {
        "/endless" => &[b'x'; 65536],
        "/headers" => b"X-More: and more of it without any end whatsoever\r\n",
        // Sends nothing, for as long as the other side waits.
        "/silent" => {
            let _ = stream.read(&mut [0]);
            return;
        }
        _ => return,
    };
    while sent.is_ok() {
        sent = stream.write_all(more);
    }
}

/// The interfaces of WASI, limited to the functions that these tests call.
const WASI: [&str; 4] = [
    "package wasi:io@0.2.6;
     interface error { resource error; }
     interface poll { resource pollable { block: func(); } }
     interface streams { use error.{error}; variant stream-error { last-operation-failed(error), closed }
       resource input-stream { blocking-read: func(len: u64) -> result<list<u8>, stream-error>; }
       resource output-stream { write: func(contents: list<u8>) -> result<_, stream-error>; } }",
    "package wasi:cli@0.2.6;
     interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }",
    "package wasi:http@0.2.6;
     interface types {
       use wasi:io/poll@0.2.6.{pollable}; use wasi:io/streams@0.2.6.{input-stream, output-stream};
       variant method { get, head, post, put, delete, connect, options, trace, patch, other(string) }
       record DNS-error-payload { rcode: option<string>, info-code: option<u16> }
       record TLS-alert-received-payload { alert-id: option<u8>, alert-message: option<string> }
       record field-size-payload { field-name: option<string>, field-size: option<u32> }
       variant error-code { DNS-timeout, DNS-error(DNS-error-payload), destination-not-found, destination-unavailable,
         destination-IP-prohibited, destination-IP-unroutable, connection-refused, connection-terminated, connection-timeout,
         connection-read-timeout, connection-write-timeout, connection-limit-reached, TLS-protocol-error, TLS-certificate-error,
         TLS-alert-received(TLS-alert-received-payload), HTTP-request-denied, HTTP-request-length-required,
         HTTP-request-body-size(option<u64>), HTTP-request-method-invalid, HTTP-request-URI-invalid, HTTP-request-URI-too-long,
         HTTP-request-header-section-size(option<u32>), HTTP-request-header-size(option<field-size-payload>),
         HTTP-request-trailer-section-size(option<u32>), HTTP-request-trailer-size(field-size-payload), HTTP-response-incomplete,
         HTTP-response-header-section-size(option<u32>), HTTP-response-header-size(field-size-payload),
         HTTP-response-body-size(option<u64>), HTTP-response-trailer-section-size(option<u32>),
         HTTP-response-trailer-size(field-size-payload), HTTP-response-transfer-coding(option<string>),
         HTTP-response-content-coding(option<string>), HTTP-response-timeout, HTTP-upgrade-failed, HTTP-protocol-error,
         loop-detected, configuration-error, internal-error(option<string>) }
       variant scheme { HTTP, HTTPS, other(string) }
       resource fields { constructor(); }
       type headers = fields;
       resource outgoing-body { write: func() -> result<output-stream>; }
       resource outgoing-request { constructor(headers: headers);
         body: func() -> result<outgoing-body>;
         set-method: func(method: method) -> result;
         set-path-with-query: func(path-with-query: option<string>) -> result;
         set-scheme: func(scheme: option<scheme>) -> result;
         set-authority: func(authority: option<string>) -> result; }
       resource request-options { constructor(); }
       resource incoming-response { status: func() -> u16; consume: func() -> result<incoming-body>; }
       resource incoming-body { %stream: func() -> result<input-stream>; }
       resource future-incoming-response { subscribe: func() -> pollable;
         get: func() -> option<result<result<incoming-response, error-code>>>; }
     }
     interface outgoing-handler {
       use types.{outgoing-request, request-options, future-incoming-response, error-code};
       handle: func(request: outgoing-request, options: option<request-options>) -> result<future-incoming-response, error-code>;
     }",
    "package wasi:sockets@0.2.6;
     interface network { resource network; enum ip-address-family { ipv4, ipv6 }
       enum error-code { unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout, concurrency-conflict,
         not-in-progress, would-block, invalid-state, new-socket-limit, address-not-bindable, address-in-use, remote-unreachable,
         connection-refused, connection-reset, connection-aborted, datagram-too-large, name-unresolvable,
         temporary-resolver-failure, permanent-resolver-failure } }
     interface instance-network { use network.{network}; instance-network: func() -> network; }
     interface tcp { resource tcp-socket; }
     interface tcp-create-socket { use network.{error-code, ip-address-family}; use tcp.{tcp-socket};
       create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>; }
     interface udp { resource udp-socket; }
     interface udp-create-socket { use network.{error-code, ip-address-family}; use udp.{udp-socket};
       create-udp-socket: func(address-family: ip-address-family) -> result<udp-socket, error-code>; }
     interface ip-name-lookup { use network.{network, error-code}; resource resolve-address-stream;
       resolve-addresses: func(network: borrow<network>, name: string) -> result<resolve-address-stream, error-code>; }",
];

/// A program that may call what `body` needs, with a request's parts at 8192 and 8704. It answers with a
/// single token, the argument of `$say`. `wait` is at 8000, and `{}` at 8010.
pub(crate) fn program(authority: &str, path: &str, body: &str) -> Vec<u8> {
    let (authority_len, path_len) = (authority.len(), path.len());
    let text = format!(
        r#"(module
          (import "realm:tenant/output@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32)))
          (import "wasi:http/types@0.2.6" "[constructor]fields" (func $fields (result i32)))
          (import "wasi:http/types@0.2.6" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
          (import "wasi:http/types@0.2.6" "[method]outgoing-request.set-path-with-query" (func $path (param i32 i32 i32 i32) (result i32)))
          (import "wasi:http/types@0.2.6" "[method]outgoing-request.set-scheme" (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
          (import "wasi:http/types@0.2.6" "[method]outgoing-request.set-authority" (func $authority (param i32 i32 i32 i32) (result i32)))
          (import "wasi:http/types@0.2.6" "[method]outgoing-request.set-method" (func $method (param i32 i32 i32 i32) (result i32)))
          (import "wasi:http/types@0.2.6" "[method]outgoing-request.body" (func $body (param i32 i32)))
          (import "wasi:http/types@0.2.6" "[method]outgoing-body.write" (func $body-stream (param i32 i32)))
          (import "wasi:io/streams@0.2.6" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
          (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
          (import "realm:tenant/capabilities@0.1.0" "call" (func $call (param i32 i32 i32 i32 i32)))
          (import "wasi:http/outgoing-handler@0.2.6" "handle" (func $handle (param i32 i32 i32 i32)))
          (import "wasi:http/types@0.2.6" "[method]future-incoming-response.subscribe" (func $subscribe (param i32) (result i32)))
          (import "wasi:http/types@0.2.6" "[method]future-incoming-response.get" (func $get (param i32 i32)))
          (import "wasi:http/types@0.2.6" "[method]incoming-response.status" (func $status (param i32) (result i32)))
          (import "wasi:http/types@0.2.6" "[method]incoming-response.consume" (func $consume (param i32 i32)))
          (import "wasi:http/types@0.2.6" "[method]incoming-body.stream" (func $stream (param i32 i32)))
          (import "wasi:io/streams@0.2.6" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
          (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
          (import "wasi:sockets/instance-network@0.2.6" "instance-network" (func $network (result i32)))
          (import "wasi:sockets/tcp-create-socket@0.2.6" "create-tcp-socket" (func $tcp (param i32 i32)))
          (import "wasi:sockets/udp-create-socket@0.2.6" "create-udp-socket" (func $udp (param i32 i32)))
          (import "wasi:sockets/ip-name-lookup@0.2.6" "resolve-addresses" (func $resolve (param i32 i32 i32 i32)))
          (memory (export "memory") 4)
          ;; What was allocated before is not needed any more.
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
          (data (i32.const 8000) "wait") (data (i32.const 8010) "{{}}")
          (data (i32.const 8192) "{authority}") (data (i32.const 8704) "{path}")
          ;; Sends a request: the answer to come, or -1 with an error's code at 512.
          (func $send (result i32) (local $r i32)
            (local.set $r (call $request (call $fields)))
            (drop (call $scheme (local.get $r) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
            (drop (call $authority (local.get $r) (i32.const 1) (i32.const 8192) (i32.const {authority_len})))
            (drop (call $path (local.get $r) (i32.const 1) (i32.const 8704) (i32.const {path_len})))
            (call $handle (local.get $r) (i32.const 0) (i32.const 0) (i32.const 256))
            (if (i32.load8_u (i32.const 256)) (then
              (i32.store (i32.const 512) (i32.load8_u (i32.const 264))) (return (i32.const -1))))
            (i32.load (i32.const 264)))
          ;; Waits for an answer: the response, or -1 with an error's code at 512.
          (func $wait (param $future i32) (result i32)
            (call $block (call $subscribe (local.get $future)))
            (call $get (local.get $future) (i32.const 256))
            (if (i32.load8_u (i32.const 272)) (then
              (i32.store (i32.const 512) (i32.load8_u (i32.const 280))) (return (i32.const -1))))
            (i32.load (i32.const 280)))
          (func $say (param $token i32)
            (i32.store (i32.const 1024) (local.get $token))
            (call $emit (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 256)))
          (func (export "realm:tenant/program@0.1.0#run") (param $request i32) (result i32) (local $f i32) (local $r i32) (local $s i32)
            {body}
            (i32.const 2048)))"#
    );
    component_with(
        &text,
        &WASI,
        "import wasi:io/poll@0.2.6; import wasi:io/streams@0.2.6; import wasi:http/types@0.2.6;
         import wasi:http/outgoing-handler@0.2.6; import wasi:cli/stdout@0.2.6; import wasi:sockets/instance-network@0.2.6;
         import wasi:sockets/tcp-create-socket@0.2.6; import wasi:sockets/udp-create-socket@0.2.6;
         import wasi:sockets/ip-name-lookup@0.2.6;",
    )
}

/// Says the status of the answer, or the code of its error.
const FETCH: &str = "
    (local.set $f (call $send))
    (if (i32.eq (local.get $f) (i32.const -1)) (then (call $say (i32.load (i32.const 512))) (return (i32.const 2048))))
    (local.set $r (call $wait (local.get $f)))
    (if (i32.eq (local.get $r) (i32.const -1)) (then (call $say (i32.load (i32.const 512))) (return (i32.const 2048))))
    (call $say (call $status (local.get $r)))";

fn fetch(host: &Host, authority: &str, path: &str, who: &Who) -> Result<Said, Error> {
    host.run(&program(authority, path, FETCH), who)
}

fn granted(hosts: &[&str]) -> Who {
    anybody().granted(hosts.iter().fold(Grants::none(), |grants, host| grants.http(*host)))
}

/// A tenant with 700 ms for each request.
fn hurried(host: &str) -> Who {
    with(|limits| limits.request_timeout = Some(Duration::from_millis(700)))
        .granted(Grants::none().http(host))
}

#[test]
fn only_granted_hosts_are_reached() {
    let host = Host::tiny();
    let other = Server::start("127.0.0.1:1");
    let server = Server::start(&other.address);
    assert_eq!(fetch(&host, &server.address, "/ok", &granted(&[&server.address])).unwrap().tokens, [200]);
    assert_eq!(server.opened(), 1);
    let port = server.address.rsplit(':').next().unwrap();
    for hosts in [
        &[][..],
        &["127.0.0.1"],
        &["127.0.0.1:1"],
        &["example.com", &other.address],
        &["*.0.0.1"],
        &[&format!("localhost:{port}")],
    ] {
        assert_eq!(
            fetch(&host, &server.address, "/ok", &granted(hosts)).unwrap().tokens,
            [DENIED],
            "{hosts:?}"
        );
    }
    assert_eq!(server.opened(), 1, "somebody was let through");
    // A granted host's name inside the URL of another host.
    for authority in [
        format!("{}@{}", other.address, server.address),
        format!("{}#@{}", other.address, server.address),
        format!("{}/@{}", other.address, server.address),
        format!("{}\\\\@{}", other.address, server.address),
        format!("{} {}", other.address, server.address),
        format!("{}\\0{}", server.address, other.address),
    ] {
        let said = fetch(&host, &authority, "/ok", &granted(&[&other.address]));
        assert!(
            said.is_err() || said.as_ref().is_ok_and(|said| said.tokens != [200]),
            "{authority}: {said:?}"
        );
    }
    assert_eq!(server.opened(), 1, "somebody was let through");
    // The host does not follow a granted host's redirect.
    let opened = other.opened();
    assert_eq!(fetch(&host, &server.address, "/moved", &granted(&[&server.address])).unwrap().tokens, [302]);
    assert_eq!(other.opened(), opened);
}

#[test]
fn there_are_no_sockets_and_no_names() {
    let host = Host::tiny();
    // Traps at the first socket that can be created.
    let asks = "
        (call $tcp (i32.const 0) (i32.const 256)) (if (i32.eqz (i32.load8_u (i32.const 256))) (then unreachable))
        (call $tcp (i32.const 1) (i32.const 256)) (if (i32.eqz (i32.load8_u (i32.const 256))) (then unreachable))
        (call $udp (i32.const 0) (i32.const 256)) (if (i32.eqz (i32.load8_u (i32.const 256))) (then unreachable))
        (call $resolve (call $network) (i32.const 8192) (i32.const 9) (i32.const 256))
        (if (i32.eqz (i32.load8_u (i32.const 256))) (then unreachable))
        (call $say (i32.const 7))";
    // Refused to tenants that may send requests, too.
    for who in [anybody(), granted(&["localhost"])] {
        assert_eq!(host.run(&program("localhost", "/", asks), &who).unwrap().tokens, [7]);
    }
}

#[test]
fn servers_that_mean_harm_cost_their_tenant_alone() {
    let host = Host::tiny();
    let server = Server::start("127.0.0.1:1");
    let began = Instant::now();
    ended(
        fetch(&host, &server.address, "/silent", &hurried(&server.address)),
        ErrorKind::LimitExceeded,
        "request_timeout",
    );
    // Reads for as long as it may.
    let reads = format!(
        "{FETCH}
         (call $consume (local.get $r) (i32.const 256)) (local.set $r (i32.load (i32.const 260)))
         (call $stream (local.get $r) (i32.const 256)) (local.set $r (i32.load (i32.const 260)))
         (loop $l (call $read (local.get $r) (i64.const 65536) (i32.const 256)) (br_if $l (i32.eqz (i32.load8_u (i32.const 256)))))"
    );
    let before = peak();
    let read = host.run(&program(&server.address, "/endless", &reads), &hurried(&server.address));
    ended(read, ErrorKind::LimitExceeded, "request_timeout");
    // Does not read, so the host holds only what it reads ahead.
    let waits = format!("{FETCH} (call $block (call $subscribe (call $send)))");
    let waited = host.run(&program(&server.address, "/endless", &waits), &hurried(&server.address));
    assert!(waited.is_ok() || waited.is_err_and(|error| error.kind() == ErrorKind::LimitExceeded));
    for path in ["/headers", "/garbage", "/nothing"] {
        let said = fetch(&host, &server.address, path, &hurried(&server.address)).unwrap();
        assert_ne!(said.tokens, [200], "{path}");
    }
    let grown = peak() - before;
    assert!(grown < 32 << 20, "{grown} bytes for what servers said");
    assert!(began.elapsed() < FOREVER);
}

#[test]
fn a_tenant_has_so_many_connections_and_leaves_none() {
    let host = Host::tiny();
    let who = |server: &Server| anybody().granted(Grants::none().http(&server.address));
    // A hundred from each of three runs at once, answered or not.
    let floods = "(loop $l (local.set $f (call $send))
            (br_if $l (i32.lt_u (local.tee $r (i32.add (local.get $r) (i32.const 1))) (i32.const 100))))
        (drop (call $wait (local.get $f)))";
    for path in ["/silent", "/endless"] {
        let server = Server::start("127.0.0.1:1");
        let who = who(&server);
        let floods = host.compile(&program(&server.address, path, floods));
        let runs: Vec<_> = (0..3).map(|_| host.start(&floods, &who).unwrap()).collect();
        let began = Instant::now();
        while server.opened() < 16 {
            assert!(began.elapsed() < FOREVER, "{} connections", server.opened());
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.opened(), 16, "{path}");
        // The next request gets a connection.
        drop(runs);
        assert_eq!(fetch(&host, &server.address, "/ok", &who).unwrap().tokens, [200]);
    }
}
