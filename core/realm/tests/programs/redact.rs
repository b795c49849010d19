//! `policy-redact` removes the matches of a regular expression from the text.

use realm::{ErrorCode, Request};
use serde_json::json;

use crate::{Sandboxed, ask};

fn story() -> Request {
    let mut request = Request::text("Once upon a time").temperature(0.0).max_tokens(120);
    request.ignore_eos = true;
    request
}

#[test]
fn no_match_goes_out_and_everything_else_does() {
    let both = Sandboxed::new("policy-redact");
    let redacted = |request: Request, pattern: &str, replacement: &str| {
        let input = json!({"pattern": pattern, "replacement": replacement});
        both.answer(request.input(input))
    };
    let capital = ask("What is the capital of France? Answer in one sentence.");
    let answer = redacted(capital, "P[a-z]+", "[city]");
    assert_eq!(answer.text, "The capital of France is [city].");
    assert_eq!(answer.usage.generated_tokens, 8);

    let plain = both.plain.generate(story()).unwrap().text;
    for word in ["the", "a ", "e", "was a little", "nowhere in it", "\n"] {
        let answer = redacted(story(), &word.replace(' ', "\\x20"), "#");
        assert_eq!(answer.text, plain.replace(word, "#"), "{word:?}");
    }
    // Matches that begin in one token and end in another.
    let answer = redacted(story(), "[a-z]+ [a-z]+", "#");
    assert!(answer.text.contains('#') && !answer.text.split('#').any(has_two_words), "{}", answer.text);
}

/// A token's id would reveal its text.
#[test]
fn tokens_of_what_is_kept_out_are_not_sent() {
    let both = Sandboxed::new("policy-redact");
    let request = ask("What is the capital of France? Answer in one sentence.");
    let plain = both.plain.generate(request.clone()).unwrap();
    let input = json!({"pattern": "P[a-z]+", "replacement": "[city]"});
    let tokens: Vec<u32> = both
        .model
        .stream(request.input(input))
        .unwrap()
        .into_iter()
        .flat_map(|chunk| chunk.unwrap().tokens.into_iter().map(|token| token.id))
        .collect();
    let text = both.plain.decode(&tokens).unwrap();
    assert!(!text.contains('P') && text.starts_with("The capital of France is"), "{text:?}");
    assert!(tokens.len() < plain.usage.generated_tokens);
}

fn has_two_words(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(3).any(|w| w[0].is_ascii_lowercase() && w[1] == b' ' && w[2].is_ascii_lowercase())
}

#[test]
fn patterns_that_cannot_be_kept_out_refuse_the_request() {
    let both = Sandboxed::new("policy-redact");
    for input in [json!({"pattern": "("}), json!({"pattern": ".*"}), json!({}), json!(null)] {
        let refused = both.model.generate(story().input(input.clone())).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{input}: {refused}");
    }
}
