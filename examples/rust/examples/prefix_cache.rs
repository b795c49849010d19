//! The cost of a long system prompt the first and the second time, as time to the first token.
//!
//!     cargo run --release -p realm-examples --example prefix_cache -- smollm2-135m 1000

use realm::{Limits, Realm, Request};

fn main() -> Result<(), realm::Error> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "smollm2-135m".into());
    let length = args.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let realm = Realm::builder().build()?;
    let model = realm.load_model(&name)?;
    let system: Vec<u32> = model
        .encode(&"You are a helpful, brief and polite assistant. ".repeat(length))
        .into_iter()
        .take(length)
        .collect();

    for name in ["one", "two"] {
        let model = realm.tenant(name, Limits::default())?.model(&model)?;
        for question in ["What is the capital of France?", "And what is that of Spain?"] {
            let prompt = [&system[..], &model.encode(question)].concat();
            let answer = model.generate(Request::tokens(prompt).temperature(0.0).max_tokens(1))?;
            println!(
                "tenant {name}: first token after {:7.2} ms, {} of {} prompt tokens cached",
                answer.timings.time_to_first_token().as_secs_f64() * 1e3,
                answer.usage.cached_tokens,
                answer.usage.prompt_tokens,
            );
        }
    }
    Ok(())
}
