//! The memory that WASI holds for a program: handles, requests to hosts and their answers, and discarded
//! output.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use realm_sandbox::ErrorKind;

use super::{Bench, Case, Held, RUNS, until};
use crate::ended;
use crate::host::{FOREVER, Host, with};
use crate::network::program;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "programs with WASI that have written",
        model: Host::tiny,
        times: [1_000, 2_000],
        take: written,
    },
    Case { name: "requests that are not sent", model: Host::tiny, times: [1_000, 4_000], take: requests },
    Case { name: "bodies that are not sent", model: Host::tiny, times: [600, 6_000], take: bodies },
    Case { name: "answers of hosts that are not read", model: Host::tiny, times: [10, 60], take: answers },
];

/// Writes to the unused memory of a program with four pages.
const TOUCH: &str = "(memory.fill (i32.const 12288) (i32.const 0) (i32.const 249856))";

/// The call of a tool that never answers.
const WAIT: &str =
    r"(call $call (i32.const 8000) (i32.const 4) (i32.const 8010) (i32.const 2) (i32.const 256))";

/// Repeats `step` `n` times.
fn repeat(step: &str, n: usize) -> String {
    format!(
        "(loop $l {step} (br_if $l (i32.lt_u (local.tee $r (i32.add (local.get $r) (i32.const 1))) (i32.const {n}))))"
    )
}

/// Each run has written 800 KB to its standard output, all of which is discarded.
fn written(bench: &Bench, n: usize) -> Held {
    let write = "(call $write (local.get $f) (i32.const 70000) (i32.const 50000) (i32.const 256))";
    let body = format!("{TOUCH} (local.set $f (call $stdout)) {} {WAIT}", repeat(write, 16));
    Box::new(bench.start(&program("localhost", "/", &body), n))
}

/// Each request has a long path.
fn requests(bench: &Bench, n: usize) -> Held {
    let path = "(memory.fill (i32.const 70000) (i32.const 47) (i32.const 60000))";
    let request = "(drop (call $path (call $request (call $fields)) (i32.const 1) (i32.const 70000) (i32.const 60000)))";
    // Counted before the next call.
    let body = format!("{path} {} (drop (call $fields)) {WAIT}", repeat(request, n.div_ceil(RUNS)));
    Box::new(bench.start(&program("localhost", "/", &body), RUNS))
}

/// Each request has the longest body that is accepted before it is sent.
fn bodies(bench: &Bench, n: usize) -> Held {
    let body = "(local.set $f (call $request (call $fields)))
        (call $body (local.get $f) (i32.const 256)) (local.set $f (i32.load (i32.const 260)))
        (call $body-stream (local.get $f) (i32.const 256)) (local.set $f (i32.load (i32.const 260)))
        (call $write (local.get $f) (i32.const 70000) (i32.const 65536) (i32.const 256))
        (call $write (local.get $f) (i32.const 70000) (i32.const 65536) (i32.const 256))";
    let bodies = repeat(body, n.div_ceil(RUNS));
    Box::new(bench.start(&program("localhost", "/", &format!("{TOUCH} {bodies} {WAIT}")), RUNS))
}

/// Sixteen answers for each set of programs, the most that such a set may have at once.
fn answers(bench: &Bench, n: usize) -> Held {
    let address = serve();
    let grants = || bench.grants().http(&address);
    // Reads some of the answer, so that the pieces have grown.
    let read = "(call $consume (local.get $s) (i32.const 256)) (local.set $s (i32.load (i32.const 260)))
        (call $stream (local.get $s) (i32.const 256)) (local.set $s (i32.load (i32.const 260)))
        (local.set $f (i32.const 0))
        (loop $more (call $read (local.get $s) (i64.const 65536) (i32.const 256))
          (local.set $f (i32.add (local.get $f) (i32.load (i32.const 264))))
          (br_if $more (i32.lt_u (local.get $f) (i32.const 300000))))";
    let ask = repeat(&format!("(local.set $s (call $wait (call $send))) {read}"), 16);
    let wasm = program(&address, "/", &format!("{ask} {WAIT}"));
    let one = |_| {
        let who = bench.again(grants());
        (bench.start_as(&wasm, &who, 1), who)
    };
    let held: Vec<_> = (0..n).map(one).collect();
    // Long enough for each answer to be read ahead as far as possible.
    std::thread::sleep(std::time::Duration::from_millis(500));
    Box::new(held)
}

/// A host that answers every request with 2 MB, and keeps the connection.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = |mut stream: TcpStream| {
        _ = stream.read(&mut [0; 4096]);
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        // The rest waits in the kernel.
        _ = stream.set_write_timeout(Some(std::time::Duration::from_millis(200)));
        _ = stream.write_all(&vec![b'x'; 2_000_000]);
        stream
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let stream = answer(stream);
                std::thread::park();
                drop(stream);
            });
        }
    });
    address
}

#[test]
fn what_wasi_holds_is_within_a_programs_memory() {
    let host = Host::tiny();
    let modest = with(|limits| {
        limits.program.memory = 32 << 20;
        limits.program.cpu_time = FOREVER;
    });
    // Methods of 200,000 letters; no request is sent with them.
    let method = "(drop (call $method (call $request (call $fields)) (i32.const 9) (i32.const 20000) (i32.const 200000)))";
    let letters = "(memory.fill (i32.const 20000) (i32.const 65) (i32.const 200000))";
    let wasm = program("localhost", "/", &format!("{letters} {}", repeat(method, 100_000)));
    ended(host.run(&wasm, &modest), ErrorKind::LimitExceeded, "program.memory");
    until("all is given back", || modest.tenant.memory().read().total() == 0);
}
