//! What HTTP costs: streams of one model through a server and in the process, in turns.
//!
//!     cargo run --release -p realm-server --example http_cost -- [STREAMS] [TOKENS] [ROUNDS]
//!
//! Prints, for each number of streams (1,16,64 by default), tokens a second and the median time to the first
//! token both ways, and the ratios. The clients are threads of the same process, so their work counts against
//! the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use realm::{Model, Realm, Request};
use realm_server::{Config, Server};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The time to a stream's first token, and the number of its tokens.
type Stream = (Duration, usize);

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let streams = args.next().unwrap_or_else(|| "1,16,64".to_owned());
    let tokens: usize = args.next().map_or(Ok(128), |text| text.parse())?;
    let rounds: usize = args.next().map_or(Ok(3), |text| text.parse())?;
    let realm = Realm::builder().build()?;
    let model = realm.load_model("smollm2-135m")?;
    let config = Config { port: 0, ..Config::default() };
    let server = Server::new(config, realm, [("model".to_owned(), model.clone())])?;
    let stopper = server.stopper();
    let (send, receive) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        server.run(|address| {
            // This function waits for it.
            let _ = send.send(address);
        })
    });
    let address = receive.recv()?;
    println!(
        "streams  in process, tokens/s  over HTTP, tokens/s  ratio  first token, ms: in process  over HTTP"
    );
    for count in streams.split(',') {
        let count: usize = count.parse()?;
        let (mut inside, mut outside) = (Sum::default(), Sum::default());
        for round in 0..=rounds {
            let own = all(count, |index| in_process(&model, index, tokens))?;
            let http = all(count, |index| over_http(address, index, tokens))?;
            // The first round warms both up.
            if round > 0 {
                inside.add(&own);
                outside.add(&http);
            }
        }
        println!(
            "{count:7}  {:21.1}  {:19.1}  {:5.3}  {:27.2}  {:9.2}",
            inside.rate(),
            outside.rate(),
            outside.rate() / inside.rate(),
            inside.first(),
            outside.first(),
        );
    }
    stopper.stop();
    Ok(thread.join().map_err(|_| "the server panicked")??)
}

#[derive(Default)]
struct Sum {
    tokens: usize,
    time: Duration,
    firsts: Vec<Duration>,
}

impl Sum {
    fn add(&mut self, (took, streams): &(Duration, Vec<Stream>)) {
        self.time += *took;
        self.tokens += streams.iter().map(|(_, tokens)| tokens).sum::<usize>();
        self.firsts.extend(streams.iter().map(|(first, _)| first));
    }

    fn rate(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64()
    }

    /// The median, in milliseconds.
    fn first(&self) -> f64 {
        let mut firsts = self.firsts.clone();
        firsts.sort();
        firsts[firsts.len() / 2].as_secs_f64() * 1e3
    }
}

/// Runs streams at the same time, each on a thread.
fn all(
    count: usize,
    stream: impl Fn(usize) -> Result<Stream, Failure> + Sync,
) -> Result<(Duration, Vec<Stream>), Failure> {
    let began = Instant::now();
    let streams: Result<Vec<_>, _> = std::thread::scope(|scope| {
        let stream = &stream;
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || stream(index))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a stream panicked")?).collect()
    });
    Ok((began.elapsed(), streams?))
}

fn prompt(index: usize) -> String {
    format!("Story number {index}. Once upon a time")
}

fn in_process(model: &Model, index: usize, tokens: usize) -> Result<Stream, Failure> {
    let began = Instant::now();
    let mut request = Request::text(prompt(index)).temperature(0.0).max_tokens(tokens);
    request.ignore_eos = true;
    let (mut first, mut count) = (None, 0);
    for chunk in model.stream(request)? {
        count += chunk?.tokens.len();
        first.get_or_insert_with(|| began.elapsed());
    }
    Ok((first.unwrap_or_default(), count))
}

fn over_http(address: SocketAddr, index: usize, tokens: usize) -> Result<Stream, Failure> {
    let began = Instant::now();
    let body = format!(
        r#"{{"model": "model", "prompt": "{}", "max_tokens": {tokens}, "temperature": 0, "ignore_eos": true, "stream": true}}"#,
        prompt(index)
    );
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let (mut buffer, mut first, mut seen) = ([0; 16 << 10], None, Vec::new());
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        seen.extend_from_slice(&buffer[..read]);
        if first.is_none() && seen.windows(7).any(|part| part == b"data: {") {
            first = Some(began.elapsed());
        }
    }
    if !seen.windows(6).any(|part| part == b"[DONE]") {
        return Err(String::from_utf8_lossy(&seen).into_owned().into());
    }
    // All streams run to their limit.
    Ok((first.unwrap_or_default(), tokens))
}
