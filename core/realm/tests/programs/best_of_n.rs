//! `best-of-n` sends the answer with the highest likelihood, and its tries share the prompt.

use realm::{Completion, Request};
use serde_json::json;

use crate::{Sandboxed, ids};

fn mean_logprob(answer: &Completion) -> f32 {
    let sum: f32 = answer.tokens.iter().filter_map(|token| token.logprob).sum();
    sum / answer.tokens.len() as f32
}

#[test]
fn the_best_of_several_samples_is_sent() {
    let both = Sandboxed::new("best-of-n");
    let request = |seed| Request::text("My favourite animal is").temperature(1.0).seed(seed).max_tokens(16);
    let tries: Vec<_> = (0..4).map(|n| both.plain.generate(request(40 + n).logprobs(0)).unwrap()).collect();
    let best = tries.iter().max_by(|a, b| mean_logprob(a).total_cmp(&mean_logprob(b))).unwrap();
    assert!(tries.iter().any(|other| other.text != best.text), "the tries are all alike");
    let sent = both.answer(request(40).input(json!({"n": 4})));
    assert_eq!((sent.text.as_str(), ids(&sent)), (best.text.as_str(), ids(best)));
    assert_eq!(sent.finish_reason, best.finish_reason);

    let refused = both.model.generate(request(1).input(json!({"n": 0}))).unwrap_err();
    assert!(refused.message().contains("n is 0"), "{refused}");
    let refused = both.model.generate(request(1).input(json!({"m": 4}))).unwrap_err();
    assert!(refused.message().contains("unknown field `m`"), "{refused}");
}

#[test]
fn tries_share_the_pages_of_the_prompt() {
    let both = Sandboxed::new("best-of-n");
    let prompt = both.plain.encode(&"The quick brown fox jumps over the lazy dog. ".repeat(60));
    let (tries, generated, page) = (8, 40, 32);
    let whole = prompt.len().div_ceil(page);
    let before = both.plain.metrics();
    let mut request = Request::tokens(prompt.clone()).temperature(1.0).seed(1).max_tokens(generated);
    request.ignore_eos = true;
    let answer = both.model.stream(request.input(json!({"n": tries}))).unwrap();
    let answering = std::thread::spawn(move || answer.finish().unwrap());
    let mut most = 0;
    while !answering.is_finished() {
        most = most.max(both.plain.metrics().kv.used);
    }
    let answer = answering.join().unwrap();
    assert_eq!(answer.usage.generated_tokens, generated);
    // The prompt's pages once, and for each try the last page of the prompt and the pages that it generates.
    let own = tries * (generated.div_ceil(page) + 1);
    assert!(most >= whole && most <= whole + own, "{most} pages for a prompt of {whole} and {tries} tries");
    let computed = both.plain.metrics().served.tokens.prompt - before.served.tokens.prompt;
    let largest = prompt.len() + tries * generated;
    assert!(computed as usize <= largest, "{computed} tokens were computed, of at most {largest}");
    // The engine's thread gives pages back as soon as it hears that the program is gone.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while both.plain.metrics().kv.used > 0 && std::time::Instant::now() < patience {
        std::thread::yield_now();
    }
    assert_eq!(both.plain.metrics().kv.used, 0);
}
