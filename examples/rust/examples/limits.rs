//! Many tenants on one copy of the weights, each with limits of its own.
//!
//!     cargo run --release -p realm-examples --example limits -- smollm2-135m

use std::time::Duration;

use realm::{ErrorCode, Limits, Message, Realm, Request};

fn main() -> Result<(), realm::Error> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "smollm2-135m".into());
    let realm = Realm::builder().build()?;
    let model = realm.load_model(&name)?;

    // A paying customer gets three times the share of a trial. The trial also has limits.
    let customer = realm.tenant("customer", Limits { weight: 3.0, ..Limits::default() })?;
    let trial = Limits {
        max_concurrent: Some(1),
        max_queued: 2,
        kv_tokens: Some(1024),
        tokens_per_minute: Some(2_000),
        request_timeout: Some(Duration::from_secs(30)),
        ..Limits::default()
    };
    let trial = realm.tenant("trial", trial)?;

    let question = |text: &str| Request::chat([Message::user(text)]).temperature(0.0).max_tokens(40);
    let mut streams = Vec::new();
    for tenant in [&customer, &trial] {
        let model = tenant.model(&model)?;
        for city in ["France", "Spain", "Italy", "Japan"] {
            match model.stream(question(&format!("What is the capital of {city}? Answer in one sentence."))) {
                Ok(stream) => streams.push((tenant.name().to_owned(), stream)),
                // The trial's fourth request exceeds its limit of running and waiting requests.
                Err(error) if error.code() == ErrorCode::LimitExceeded => {
                    println!("{:>8}: {error}", tenant.name())
                }
                Err(error) => return Err(error),
            }
        }
    }
    // All requests are computed in the same forward passes.
    for (tenant, stream) in streams {
        println!("{tenant:>8}: {}", stream.finish()?.text);
    }
    Ok(())
}
