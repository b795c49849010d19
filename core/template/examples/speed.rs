//! Measures the time to render a conversation: `cargo run --release -p realm-template --example speed`.
//! Prints the best of several runs for one, two and four thousand messages, which shows whether time grows
//! linearly with the number of messages.

use std::time::{Duration, Instant};

use realm_template::{Input, Limits, Template};
use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1);
    let source = match &path {
        Some(path) => std::fs::read_to_string(path)?,
        None => include_str!("../tests/differential/styles/chatml.jinja").to_owned(),
    };
    let template = Template::parse(&source)?;
    let trusted = json!({"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true});
    let empty = Map::new();
    for messages in [1_000, 2_000, 4_000] {
        let conversation: Vec<Value> = (0..messages)
            .map(|i| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": "A word or two. ".repeat(20)}))
            .collect();
        let foreign = json!({"messages": conversation, "tools": null, "documents": null});
        let input = Input {
            trusted: trusted.as_object().unwrap_or(&empty),
            foreign: foreign.as_object().unwrap_or(&empty),
        };
        let mut best = Duration::MAX;
        let mut bytes = 0;
        for _ in 0..20 {
            let start = Instant::now();
            bytes = template.render(&input, &Limits::default())?.text.len();
            best = best.min(start.elapsed());
        }
        println!("{messages} messages, {bytes} bytes: {:.2} ms", best.as_secs_f64() * 1e3);
    }
    Ok(())
}
