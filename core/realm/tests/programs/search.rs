//! `beam` and `tree-of-thought` search for the best of many answers.

use realm::{FinishReason, Request};
use serde_json::json;

use crate::{Sandboxed, ask, ids};

fn likelihood(both: &Sandboxed, prompt: &[u32], answer: &[u32]) -> f32 {
    both.plain.log_likelihood(prompt, answer).unwrap().iter().sum()
}

#[test]
fn several_beams_find_a_likelier_answer_than_one() {
    let both = Sandboxed::new("beam");
    let prompt = both.plain.encode("The meaning of life is");
    let mut request = Request::tokens(prompt.clone()).temperature(0.0).max_tokens(16);
    request.ignore_eos = true;
    let greedy = both.plain.generate(request.clone()).unwrap();
    let one = both.answer(request.clone().input(json!({"width": 1})));
    assert_eq!((&one.text, ids(&one)), (&greedy.text, ids(&greedy)));
    let wide = both.answer(request.input(json!({"width": 6})));
    assert_eq!((wide.usage.generated_tokens, wide.finish_reason), (16, FinishReason::Length));
    let (one, six) = (likelihood(&both, &prompt, &ids(&one)), likelihood(&both, &prompt, &ids(&wide)));
    assert!(six > one + 0.1, "{six} with six beams, {one} with one");
}

#[test]
fn beams_end_at_end_tokens_and_stop_strings() {
    let both = Sandboxed::new("beam");
    let question = ask("What is the capital of France? Answer in one sentence.");
    let answer = both.answer(question.clone());
    assert_eq!(
        (answer.text.as_str(), answer.finish_reason),
        ("The capital of France is Paris.", FinishReason::Stop)
    );
    let answer = both.answer(question.stop(" is"));
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("The capital of France", FinishReason::Stop));
}

#[test]
fn thoughts_come_before_the_answer() {
    let both = Sandboxed::new("tree-of-thought");
    let puzzle = ask("A farmer has 3 cows and buys 2 more. How many cows has he?").temperature(0.8).seed(4);
    let answer = both.answer(puzzle.clone().max_tokens(24));
    let parts = ["Step 1:", "\nStep 2:", "\nAnswer:"].map(|part| answer.text.find(part));
    assert!(parts[0] == Some(0) && parts.is_sorted() && parts[2].is_some(), "{}", answer.text);
    assert_eq!(answer.usage.generated_tokens, answer.tokens.len());
    // The same seed gives the same thoughts; another seed gives others.
    assert_eq!(both.answer(puzzle.clone().max_tokens(24)).text, answer.text);
    assert_ne!(both.answer(puzzle.seed(5).max_tokens(24)).text, answer.text);
}
