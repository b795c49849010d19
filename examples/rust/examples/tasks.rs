//! Many tasks on one model: their rows share every forward pass.
//!
//!     cargo run --release -p realm-examples --example tasks

use std::time::Instant;

use futures_util::future::try_join_all;
use realm::{Message, Realm, Request};

#[tokio::main]
async fn main() -> Result<(), realm::Error> {
    let realm = Realm::builder().build()?;
    let model = realm.load_model_async("smollm2-135m").await?;

    let countries = ["France", "Italy", "Japan", "Spain", "Germany", "Egypt", "Greece", "Poland"];
    let start = Instant::now();
    let answers = countries.map(|country| {
        let question = format!("What is the capital of {country}? Answer in one sentence.");
        model.generate_async(Request::chat([Message::user(question)]).temperature(0.0).max_tokens(32))
    });
    let answers = try_join_all(answers).await?;

    for answer in &answers {
        println!("{}", answer.text);
    }
    let tokens: usize = answers.iter().map(|a| a.usage.generated_tokens).sum();
    println!("{tokens} tokens in {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
