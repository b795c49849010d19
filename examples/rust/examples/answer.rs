//! One question, one answer, as it comes.
//!
//!     cargo run --release -p realm-examples --example answer -- "Why is the sky blue?"

use std::io::Write;

use realm::{Message, Realm, Request};

fn main() -> Result<(), realm::Error> {
    let question = std::env::args().nth(1).unwrap_or("What is the capital of France?".into());
    let realm = Realm::builder().build()?;
    let model = realm.load_model("qwen2.5-coder-0.5b")?;

    let request = Request::chat([Message::system("Answer briefly."), Message::user(question)]);
    for chunk in model.stream(request.temperature(0.0).max_tokens(200))? {
        print!("{}", chunk?.text);
        // Nothing is lost if stdout can't be flushed now.
        let _ = std::io::stdout().flush();
    }
    println!();
    Ok(())
}
