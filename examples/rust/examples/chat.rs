//! A conversation with streamed answers. It ends at the end of the input.
//!
//!     cargo run --release -p realm-examples --example chat [MODEL]

use std::error::Error;
use std::io::Write;

use realm::{Message, Realm, Request};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or("qwen2.5-coder-0.5b".into());
    let model = Realm::builder().build()?.load_model(&name)?;
    let mut messages = Vec::new();
    for line in std::io::stdin().lines() {
        messages.push(Message::user(line?));
        let mut answer = String::new();
        for chunk in model.stream(Request::chat(messages.clone()).temperature(0.0).max_tokens(256))? {
            let chunk = chunk?;
            print!("{}", chunk.text);
            std::io::stdout().flush()?;
            answer += &chunk.text;
        }
        println!();
        messages.push(Message::assistant(answer));
    }
    Ok(())
}
