//! A classifier from log-probabilities: asks how sure the model is, without generating any text.
//!
//!     cargo run --release -p realm-examples --example logprobs

use realm::{Realm, Request};

fn main() -> Result<(), realm::Error> {
    let realm = Realm::builder().build()?;
    let model = realm.load_model("gemma3-270m")?;

    for review in ["I loved every minute of it.", "A complete waste of time.", "It was fine, I guess."] {
        let prompt = format!("Review: {review}\nWas the review positive? Answer yes or no.\nAnswer:");
        let one = model.generate(Request::text(prompt).temperature(0.0).max_tokens(1).logprobs(20))?;
        let probability = |word: &str| -> f32 {
            let mut sum = 0.0;
            for candidate in &one.tokens[0].top {
                let text = model.decode(&[candidate.id]).unwrap_or_default();
                if text.trim().eq_ignore_ascii_case(word) {
                    sum += candidate.logprob.exp();
                }
            }
            sum
        };
        let (yes, no) = (probability("yes"), probability("no"));
        println!("{:>4.0} % positive: {review}", 100.0 * yes / (yes + no));
    }
    Ok(())
}
