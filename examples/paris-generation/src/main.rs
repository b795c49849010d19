//! The Paris test: a program in a sandbox answers a question with a real model.
//!
//!     cargo run --release -p paris-generation MODEL.gguf
//!
//! MODEL is a GGUF file or a name of the catalog; without one it is `qwen2.5-coder-0.5b`, which is fetched
//! once.

use std::process::ExitCode;

use realm::{Limits, Message, Realm, Request};

fn main() -> anyhow::Result<ExitCode> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "qwen2.5-coder-0.5b".into());
    let realm = Realm::builder().build()?;
    let model = realm.load_model(&name)?;

    // The program wasm-tenants/chat answers: it tokenizes the question, asks for forward passes, chooses
    // tokens and sends text.
    let tenant = realm.tenant("paris", Limits::default())?;
    tenant.set_program(Some(&realm.load_program(realm_examples::program("chat")?)?));

    let question =
        Request::chat([Message::user("What is the capital of France?")]).temperature(0.0).max_tokens(64);
    let answer = tenant.model(&model)?.generate(question)?;
    println!("Response: {}", answer.text);
    if answer.text.contains("Paris") {
        println!("SUCCESS");
        return Ok(ExitCode::SUCCESS);
    }
    println!("FAILURE: the answer does not name Paris");
    Ok(ExitCode::FAILURE)
}
