//! The Paris example: one question, one answer.
//!
//!     cargo run --release -p realm-examples --example hello [MODEL]

use realm::{Message, Realm, Request};

fn main() -> Result<(), realm::Error> {
    let name = std::env::args().nth(1).unwrap_or("qwen2.5-coder-0.5b".into());
    let model = Realm::builder().build()?.load_model(&name)?;
    let question = Request::chat([Message::user("What is the capital of France?")]);
    println!("{}", model.generate(question.temperature(0.0).max_tokens(64))?.text);
    Ok(())
}
