//! What `ci/bench-python-node` compares those packages with: the same requests through the Rust API.
//!
//!     cargo run --release -p realm-examples --example delivery -- [ROUNDS]
//!
//! Prints a line of JSON for each round: tokens a second of 1 and of 16 streams, and the microseconds from a call to its only
//! chunk, less what the engine says that it took.

use std::time::Instant;

use realm::{LoadOptions, Model, Realm, Request, Speculation};

const TOKENS: usize = 128;

fn request(tokens: usize) -> Request {
    let request = Request::tokens([504, 3575, 282, 4649, 314]).temperature(0.0).max_tokens(tokens);
    Request { ignore_eos: true, ..request }.speculation(Speculation::Off)
}

/// Reads so many streams at once, a thread each.
fn throughput(model: &Model, streams: usize) -> Result<f64, realm::Error> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let read = || {
            for chunk in model.stream(request(TOKENS))? {
                chunk?;
            }
            Ok::<(), realm::Error>(())
        };
        let readers: Vec<_> = (0..streams).map(|_| scope.spawn(read)).collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader"))
    })?;
    Ok((streams * TOKENS) as f64 / began.elapsed().as_secs_f64())
}

fn delivery(model: &Model) -> Result<f64, realm::Error> {
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let Some(chunk) = model.stream(request(1))?.next_blocking() else { continue };
        let took = began.elapsed();
        if let Some(finish) = chunk?.finish {
            let timings = finish.timings;
            times.push((took - timings.queued - timings.prefill - timings.decode).as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn main() -> Result<(), realm::Error> {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let realm = Realm::builder().threads(2).device("cpu").build()?;
    let options = LoadOptions { kv_tokens: Some(16384), ..LoadOptions::default() };
    let model = realm.load_model_with("smollm2-135m", &options, &mut ())?;
    throughput(&model, 1)?;
    for _ in 0..rounds {
        let (one, sixteen) = (throughput(&model, 1)?, throughput(&model, 16)?);
        println!(r#"{{"one": {one}, "sixteen": {sixteen}, "delivery": {}}}"#, delivery(&model)?);
    }
    Ok(())
}
