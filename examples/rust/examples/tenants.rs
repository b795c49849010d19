//! Many tenants, one model: each has its own limits, and their requests share every forward pass.
//!
//!     cargo run --release -p realm-examples --example tenants [MODEL]

use std::time::Duration;

use realm::{Limits, Message, Realm, Request};

const CAPITALS: [&str; 8] = ["France", "Italy", "Spain", "Germany", "Japan", "Egypt", "Norway", "Greece"];

fn main() -> Result<(), realm::Error> {
    let name = std::env::args().nth(1).unwrap_or("qwen2.5-coder-0.5b".into());
    let realm = Realm::builder().build()?;
    let model = realm.load_model(&name)?;

    let ask = |country: &str| {
        let limits = Limits {
            max_concurrent: Some(1),
            request_timeout: Some(Duration::from_secs(60)),
            ..Limits::default()
        };
        let tenant = realm.tenant(&country.to_lowercase(), limits)?;
        let question = format!("What is the capital of {country}? Answer in one sentence.");
        let request = Request::chat([Message::user(question)]).temperature(0.0).max_tokens(24);
        Ok::<_, realm::Error>((tenant.model(&model)?.stream(request)?, tenant))
    };
    // Start all requests at once.
    let streams = CAPITALS.map(ask).into_iter().collect::<Result<Vec<_>, _>>()?;
    for (stream, tenant) in streams {
        let answer = stream.finish()?;
        println!("{}: {} ({} tokens)", tenant.name(), answer.text, tenant.metrics().tokens.generated);
    }
    Ok(())
}
