//! `watermark` marks text, and finds its own mark only.

use realm::Request;
use serde_json::{Value, json};

use crate::Sandboxed;

fn look_for(both: &Sandboxed, key: u64, text: &str) -> Value {
    let found = both.answer(Request::text("-").input(json!({"key": key, "detect": text})));
    serde_json::from_str(&found.text).unwrap()
}

#[test]
fn the_mark_is_found_in_marked_text_alone() {
    let both = Sandboxed::new("watermark");
    let mut story = Request::text("Once upon a time there was").temperature(1.0).seed(11).max_tokens(160);
    story.ignore_eos = true;
    let marked = both.answer(story.clone().input(json!({"key": 42, "delta": 3.0}))).text;
    let plain = both.plain.generate(story).unwrap().text;
    assert_ne!(marked, plain);

    let found = look_for(&both, 42, &marked);
    assert!(found["watermarked"] == true && found["p"].as_f64().unwrap() < 1e-4, "{found}");
    assert!(found["green"].as_f64().unwrap() > 0.4 * found["tokens"].as_f64().unwrap(), "{found}");
    for (what, found) in [
        ("without a mark", look_for(&both, 42, &plain)),
        ("another key's mark", look_for(&both, 43, &marked)),
        ("nothing", look_for(&both, 42, "")),
    ] {
        assert!(found["watermarked"] == false && found["z"].as_f64().unwrap() < 4.0, "{what}: {found}");
    }
}
