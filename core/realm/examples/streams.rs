//! How fast chunks of some streams reach their readers, one thread a stream: `streams MODEL STREAMS TOKENS`. Prints tokens a
//! second. The packages of other languages have the same program, so that `ci/bench-bindings` can compare.

use std::time::Instant;

use realm::{LoadOptions, Realm, Request};

fn main() -> Result<(), realm::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, streams, tokens] = &arguments[..] else { panic!("usage: streams MODEL STREAMS TOKENS") };
    let (streams, tokens): (usize, usize) = (streams.parse().unwrap(), tokens.parse().unwrap());
    let realm = Realm::builder().threads(2).device("cpu").build()?;
    let options = LoadOptions { kv_tokens: Some(32 * 1024), ..LoadOptions::default() };
    let model = realm.load_model_with(model, &options, &mut ())?;
    let read = || {
        let mut request = Request::text("Once upon a time").temperature(0.0).max_tokens(tokens);
        request.ignore_eos = true;
        let mut read = 0;
        for chunk in model.stream(request).unwrap() {
            read += chunk.unwrap().tokens.len();
        }
        read
    };
    // The first run touches memory for the first time.
    read();
    let began = Instant::now();
    let read: usize = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..streams).map(|_| scope.spawn(read)).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    println!("{:.1}", read as f64 / began.elapsed().as_secs_f64());
    Ok(())
}
