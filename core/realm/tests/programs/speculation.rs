//! `prompt-lookup` generates the same text in fewer forward passes.

use realm::{Request, Speculation};
use serde_json::json;

use crate::{Sandboxed, ask, ids};

/// Text that repeats itself, so that guesses are often right.
const LIST: &str =
    "one apple, two apples, three apples, four apples, five apples, one apple, two apples, three";

#[test]
fn guesses_change_no_text_and_save_passes() {
    let both = Sandboxed::new("prompt-lookup");
    let mut list = Request::text(LIST).temperature(0.0).max_tokens(48);
    list.ignore_eos = true;
    let built_in = both.plain.generate(list.clone().speculation(Speculation::Off)).unwrap();
    let before = both.plain.metrics().batch_rows.count();
    let own = both.answer(list.clone());
    let passes = both.plain.metrics().batch_rows.count() - before;
    assert_eq!((&own.text, ids(&own)), (&built_in.text, ids(&built_in)));
    assert_eq!(own.usage.generated_tokens, 48);
    assert!(passes < 36, "{passes} forward passes for 48 tokens");

    let before = both.plain.metrics().batch_rows.count();
    both.answer(list.input(json!({"draft": 0})));
    let passes = both.plain.metrics().batch_rows.count() - before;
    assert!(passes >= 48, "{passes} forward passes for 48 tokens without guesses");
}

#[test]
fn sampling_grammars_and_stop_strings_see_no_guesses() {
    let both = Sandboxed::new("prompt-lookup");
    let sampled = Request::text(LIST).temperature(0.7).seed(5).max_tokens(40);
    let city = ask("Name a city, as JSON.").json();
    for request in [sampled.clone(), sampled.stop("ve app"), city, ask("What is the capital of France?")] {
        let built_in = both.plain.generate(request.clone()).unwrap();
        let own = both.answer(request);
        assert_eq!((&own.text, ids(&own)), (&built_in.text, ids(&built_in)));
        assert_eq!(own.finish_reason, built_in.finish_reason);
    }
}
