//! Measures how fast chunks of several streams reach their readers, one thread for each stream.
//! `ci/bench-bindings` runs it, and the same program in other languages (`ci/bindings`): the number of
//! computing threads is an argument, then commands come as lines on standard input.
//!
//! - `stream STREAMS TOKENS`: tokens a second, and the processor time of the readers for each token.
//! - `queued STREAMS TOKENS`: the time to read a chunk that is already waiting.
//! - `call COUNT`: the time from a call to its only chunk, without the time that the engine reports.

use std::io::BufRead;
use std::time::{Duration, Instant};

use realm::{Generation, LoadOptions, Model, Realm, Request, Speculation, Tenant};

struct Bench {
    tenant: Tenant,
    model: Model,
}

fn main() -> Result<(), realm::Error> {
    let threads = std::env::args().nth(1).and_then(|threads| threads.parse().ok()).unwrap_or(2);
    let realm = Realm::builder().threads(threads).device("cpu").build()?;
    let options = LoadOptions { kv_tokens: Some(16 * 1024), ..LoadOptions::default() };
    let model = realm.load_model_with("smollm2-135m", &options, &mut ())?;
    let tenant = realm.tenant("bench", realm::Limits::default())?;
    let bench = Bench { model: tenant.model(&model)?, tenant };
    // The first run touches memory for the first time, so it is not measured.
    bench.stream(1, 10);
    println!("{{}}");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse().expect("a number");
        match words[0] {
            "stream" => {
                let (rate, reader) = bench.stream(number(1), number(2));
                println!("{{\"rate\": {rate}, \"reader_us\": {reader}}}");
            }
            "queued" => println!("{{\"us\": {}}}", bench.queued(number(1), number(2))),
            "call" => println!("{{\"us\": {}}}", bench.call(number(1))),
            other => panic!("there is no `{other}`"),
        }
    }
    Ok(())
}

impl Bench {
    fn start(&self, tokens: usize) -> Generation {
        let request = Request::tokens([504, 3575, 282, 4649, 314]).temperature(0.0).max_tokens(tokens);
        let mut request = request.speculation(Speculation::Off);
        request.ignore_eos = true;
        self.model.stream(request).expect("a stream")
    }

    fn stream(&self, streams: usize, tokens: usize) -> (f64, f64) {
        let read = || {
            let before = thread_time();
            let chunks = self.start(tokens).into_iter().map(|chunk| chunk.expect("a chunk"));
            let read: usize = chunks.map(|chunk| chunk.tokens.len()).sum();
            (read, thread_time().saturating_sub(before))
        };
        let began = Instant::now();
        let (read, reading) = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..streams).map(|_| scope.spawn(read)).collect();
            let read = readers.into_iter().map(|reader| reader.join().expect("a reader"));
            read.fold((0, Duration::ZERO), |(all, time), (read, took)| (all + read, time + took))
        });
        let rate = read as f64 / began.elapsed().as_secs_f64();
        (rate, reading.as_secs_f64() * 1e6 / read as f64)
    }

    fn queued(&self, streams: usize, tokens: usize) -> f64 {
        let ready: Vec<_> = (0..streams).map(|_| self.start(tokens)).collect();
        while self.tenant.running() + self.tenant.waiting() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let began = Instant::now();
        let mut chunks = 0;
        for chunk in ready.into_iter().flatten() {
            std::hint::black_box(&chunk.expect("a chunk").text);
            chunks += 1;
        }
        began.elapsed().as_secs_f64() * 1e6 / f64::from(chunks)
    }

    fn call(&self, count: usize) -> f64 {
        let one = |_| {
            let began = Instant::now();
            let chunk = self.start(1).next_blocking().expect("a chunk").expect("a chunk");
            let took = began.elapsed();
            let timings = chunk.finish.expect("an end").timings;
            let engine = timings.queued + timings.prefill + timings.decode;
            took.saturating_sub(engine).as_secs_f64() * 1e6
        };
        let mut times: Vec<_> = (0..count).map(one).collect();
        times.sort_by(f64::total_cmp);
        times[count / 2]
    }
}

/// Returns the processor time of this thread so far, as Linux counts it.
fn thread_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0))
}
