//! `contrastive` composes the forward pass from layers.

use realm::ErrorCode;
use serde_json::json;

use crate::{Sandboxed, ask, ids};

#[test]
fn with_nothing_subtracted_the_layers_are_the_model() {
    let both = Sandboxed::new("contrastive");
    let question = ask("What is the capital of France? Answer in one sentence.");
    let built_in = both.plain.generate(question.clone()).unwrap();
    let own = both.answer(question.clone().input(json!({"beta": 0.0, "alpha": 0.001})));
    assert_eq!((&own.text, ids(&own)), (&built_in.text, ids(&built_in)));
    let refused = both.model.generate(question.input(json!({"layer": 30}))).unwrap_err();
    assert!(refused.code() == ErrorCode::InvalidArgument && refused.message().contains("30"), "{refused}");
}

#[test]
fn what_early_layers_say_changes_the_answer() {
    let both = Sandboxed::new("contrastive");
    let poem = ask("Write a poem about the sea.").max_tokens(32);
    let built_in = both.plain.generate(poem.clone()).unwrap();
    let own = both.answer(poem.clone().input(json!({"layer": 20})));
    assert_ne!(own.text, built_in.text);
    assert!(!own.text.is_empty() && own.usage.generated_tokens <= 32);
    assert_eq!(both.answer(poem.input(json!({"layer": 20}))).text, own.text);
}
