//! Programs in languages other than Rust, and the templates of `realm tenant new`.

use crate::{Sandboxed, ask, file_of};

fn answers(program: &str) {
    let both = Sandboxed::new(program);
    let question = || ask("What is the capital of France? Answer in one sentence.");
    let answer = both.answer(question());
    assert_eq!(answer.text, "The capital of France is Paris.");
    assert_eq!(answer.usage.generated_tokens, 8);
    assert_eq!(both.answer(question().stop(" is")).text, "The capital of France");
    assert_eq!(both.answer(question().max_tokens(3)).text, "The capital of");
}

/// Same as `answers`, for a language whose tools may be missing; `ci/build-programs` reports that.
fn answers_where_built(program: &str) {
    if file_of(program).is_file() {
        answers(program);
    } else {
        eprintln!("SKIPPED: `{program}` was not built here");
    }
}

#[test]
fn the_template_answers() {
    answers("template");
}

#[test]
fn a_program_in_c_answers() {
    answers_where_built("greedy-c");
}

#[test]
fn a_program_in_javascript_answers() {
    answers_where_built("greedy-js");
}

#[test]
fn a_program_in_python_answers() {
    answers_where_built("greedy-python");
}
