use proptest::prelude::*;
use serde_json::json;

use super::spelling::{GEMMA, HERMES, LLAMA, MISTRAL, Spelling, detect};
use super::*;
use crate::{Chunk, Finish, FinishReason};

const ALL: [&Spelling; 4] = [&HERMES, &MISTRAL, &LLAMA, &GEMMA];

/// A model whose marks are control tokens, or not.
fn model(spelling: &'static Spelling, control: bool) -> ToolSpelling {
    let marks = [spelling.opener, spelling.closer].into_iter().chain(spelling.others.iter().copied());
    let marks = marks.filter(|mark| control && !mark.is_empty());
    ToolSpelling { spelling, control: marks.enumerate().map(|(id, mark)| (id as u32, mark)).collect() }
}

/// What comes out of pieces: text, names and arguments, and the reason.
type Read = (String, Vec<(String, String)>, FinishReason);

fn read<'a>(model: &ToolSpelling, pieces: impl IntoIterator<Item = &'a str>) -> Read {
    let tools = [json!({"type": "function", "function": {"name": "weather"}}), json!({"name": "time"})];
    let mut stream = ToolStream::new(model, &tools);
    let finish = Finish {
        reason: FinishReason::Stop,
        usage: realm_engine::Usage::default(),
        timings: realm_engine::Timings::default(),
    };
    let pieces = pieces.into_iter().map(|text| (text, None)).chain([("", Some(finish))]);
    let (mut text, mut calls, mut reason) = (String::new(), Vec::new(), FinishReason::Length);
    for (piece, finish) in pieces {
        let mut chunk = Chunk { text: piece.to_owned(), tokens: vec![], tool_calls: vec![], finish };
        stream.read(&mut chunk);
        text += &chunk.text;
        calls.extend(chunk.tool_calls.into_iter().map(|call| (call.name, call.arguments)));
        reason = chunk.finish.map_or(reason, |finish| finish.reason);
    }
    (text, calls, reason)
}

fn whole(spelling: &'static Spelling, text: &str) -> Read {
    read(&model(spelling, false), [text])
}

fn calls(calls: &[(&str, &str)]) -> Vec<(String, String)> {
    calls.iter().map(|&(name, arguments)| (name.to_owned(), arguments.to_owned())).collect()
}

#[test]
fn calls_are_read_in_every_spelling() {
    let paris = ("weather", r#"{"city": "Paris"}"#);
    let one = |text, spelling| {
        let (rest, found, reason) = whole(spelling, text);
        assert_eq!((rest.as_str(), found, reason), ("", calls(&[paris]), FinishReason::ToolCalls), "{text}");
    };
    one("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>", &HERMES);
    one("<tool_call>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}]</tool_call>", &HERMES);
    // Models forget the end mark, and write arguments as OpenAI's API has them.
    one("<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}", &HERMES);
    one(r#"<tool_call>{"name": "weather", "arguments": "{\"city\": \"Paris\"}"}</tool_call>"#, &HERMES);
    one(r#"[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}, "id": "abc123DEF"}]"#, &MISTRAL);
    one(r#"[TOOL_CALLS]weather[ARGS]{"city": "Paris"}"#, &MISTRAL);
    one(r#"[TOOL_CALLS]weather[CALL_ID]abc123DEF[ARGS]{"city": "Paris"}"#, &MISTRAL);
    one(r#"{"name": "weather", "parameters": {"city": "Paris"}}"#, &LLAMA);
    one(r#"<|python_tag|>{"type": "function", "name": "weather", "parameters": {"city": "Paris"}}"#, &LLAMA);
    let (_, found, _) = whole(
        &GEMMA,
        "<start_function_call>call:weather{city:<escape>{Paris}, France<escape>,days:3,at:[{noon:true},null]}<end_function_call>",
    );
    let arguments = r#"{"city":"{Paris}, France","days":3,"at":[{"noon":true},null]}"#;
    assert_eq!(found, calls(&[("weather", arguments)]));
}

#[test]
fn several_calls_and_the_text_around_them() {
    let hermes = "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"time\"}\n</tool_call>\nDone.";
    let (text, found, _) = whole(&HERMES, hermes);
    assert_eq!((text.as_str(), found), ("I look.Done.", calls(&[("weather", "{}"), ("time", "{}")])));
    let llama = r#"{"name": "weather", "parameters": {"a": 1}}; {"name": "time", "parameters": {}} and {"name": "time"}"#;
    let (text, found, _) = whole(&LLAMA, llama);
    assert_eq!(found, calls(&[("weather", r#"{"a": 1}"#), ("time", "{}")]));
    assert_eq!(text, r#"and {"name": "time"}"#);
    let (text, found, _) = whole(&MISTRAL, "[TOOL_CALLS]weather[ARGS]{}[TOOL_CALLS]time{}");
    assert_eq!((text.as_str(), found.len()), ("", 2));
}

#[test]
fn what_is_no_call_stays_as_it_was() {
    for text in [
        "",
        "  indented\n\n",
        "a < b, <tool",
        "<tool_call>",
        "<tool_call> get the weather </tool_call>",
        "<tool_call>{\"name\": 3}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"weather\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Par",
        "<tool_call>{\"name\": \"weather\",}</tool_call>",
        "<tool_call>[]</tool_call>",
    ] {
        assert_eq!(whole(&HERMES, text), (text.to_owned(), vec![], FinishReason::Stop));
    }
    // Without a mark JSON has to name a tool.
    for text in [r#"{"name": "Anna", "parameters": {}}"#, r#" {"city": "Paris"} "#, r#"So: {"name": "time"}"#]
    {
        for spelling in [&LLAMA, &HERMES] {
            assert_eq!(whole(spelling, text), (text.to_owned(), vec![], FinishReason::Stop));
        }
    }
    for text in ["[TOOL_CALLS] a b", "[TOOL_CALLS]a[b]c{}", "[TOOL_CALLS][1]"] {
        assert_eq!(whole(&MISTRAL, text), (text.to_owned(), vec![], FinishReason::Stop));
    }
    for text in
        ["<start_function_call>call:a{<end_function_call>", "<start_function_call>call:a{b:<escape>c}"]
    {
        assert_eq!(whole(&GEMMA, text), (text.to_owned(), vec![], FinishReason::Stop));
    }
}

#[test]
fn control_tokens_that_mark_nothing_are_left_out_as_ever() {
    let (text, found, _) = read(&model(&MISTRAL, true), ["[TOOL_CALLS] none [ARGS] at all"]);
    assert_eq!((text.as_str(), found.len()), (" none  at all", 0));
    let (text, ..) = read(&model(&LLAMA, true), ["<|python_tag|>print(1)"]);
    assert_eq!(text, "print(1)");
}

#[test]
fn reading_takes_time_in_proportion_to_the_text() {
    // Each would take minutes if what was read were read again.
    let nested = "<tool_call>{\"a\":".repeat(100_000);
    let open = format!("<tool_call>{{\"a\": \"{}", "x".repeat(1 << 20));
    for text in [nested, open, "<".repeat(1 << 20), " ".repeat(1 << 20)] {
        let pieces = text.as_bytes().chunks(4).map(|piece| std::str::from_utf8(piece).unwrap());
        assert_eq!(read(&model(&HERMES, true), pieces).0.len(), text.replace("<tool_call>", "").len());
    }
}

#[test]
fn spellings_are_told_from_templates() {
    assert!(std::ptr::eq(detect("… within <tool_call></tool_call> tags").unwrap(), &HERMES));
    assert!(std::ptr::eq(detect("{{ '[TOOL_CALLS] [' }}").unwrap(), &MISTRAL));
    assert!(std::ptr::eq(detect(r#"'{"name": "' + name + '", "parameters": '"#).unwrap(), &LLAMA));
    assert!(std::ptr::eq(detect("'<start_function_call>call:' + name").unwrap(), &GEMMA));
    assert!(detect("<tool_call>\n<function=example>").is_none());
    assert!(detect("{{ messages[0].content }}").is_none());
}

#[test]
fn ids_are_nine_letters_and_digits_and_differ() {
    let ids: std::collections::HashSet<_> = (0..1000).map(|_| new_id()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric())));
}

#[test]
fn choices_are_openais() {
    let of = |choice: Value| ToolChoice::try_from(&choice).map_err(|error| error.code().as_str());
    assert_eq!(of(json!("none")), Ok(ToolChoice::None));
    assert_eq!(
        of(json!({"type": "function", "function": {"name": "f"}})),
        Ok(ToolChoice::Function("f".into()))
    );
    assert_eq!(of(json!("any")), Err("invalid-argument"));
    assert_eq!(of(json!({"type": "function"})), Err("invalid-argument"));
}

/// Text that is made of what calls are made of.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "<tool_call>",
            "</tool_call>",
            "[TOOL_CALLS]",
            "[ARGS]",
            "[CALL_ID]",
            "<|python_tag|>",
            "<start_function_call>",
            "<end_function_call>",
            "<escape>",
            "call:",
            "weather",
            "time",
            ";",
            ",",
            ":",
            "{",
            "}",
            "[",
            "]",
            "\"",
            "\\",
            " ",
            "\n",
            "<",
            "\u{a0}",
            "é",
            "{\"name\": \"weather\", \"arguments\": {\"city\": \"Par}is\"}}",
            "{\"name\": \"time\", \"parameters\": {}}",
            "call:time{zone:<escape>CET<escape>}",
            "weather[ARGS]{\"a\":[]}",
        ])
        .prop_map(str::to_owned),
        " {250,260}",
        "\\PC{0,4}",
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

/// A text in pieces.
fn cut<'a>(text: &'a str, cuts: &[prop::sample::Index]) -> Vec<&'a str> {
    let ends: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut ends: Vec<_> = cuts.iter().map(|cut| ends[cut.index(ends.len())]).collect();
    ends.extend([0, text.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn pieces_give_what_the_whole_gives(
        text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40), control: bool,
    ) {
        for spelling in ALL {
            let model = model(spelling, control);
            prop_assert_eq!(read(&model, cut(&text, &cuts)), read(&model, [text.as_str()]));
        }
    }

    #[test]
    fn text_without_calls_is_unchanged(text in text()) {
        for spelling in ALL {
            let (read, calls, reason) = whole(spelling, &text);
            if calls.is_empty() {
                prop_assert_eq!(&read, &text);
                prop_assert_eq!(reason, FinishReason::Stop);
            }
        }
    }

    #[test]
    fn what_was_called_comes_back(
        name in "[a-z_]{1,8}", value in "\\PC{0,12}", before in "[a-z .]{0,20}[a-z]", list: bool,
    ) {
        let arguments = json!({"value": value, "more": [1, {"x": null}]});
        let call = json!({"name": name, "arguments": arguments}).to_string();
        let call = if list { format!("[{call}]") } else { call };
        for (spelling, text) in [
            (&HERMES, format!("{before} <tool_call>{call}</tool_call>")),
            (&MISTRAL, format!("{before}[TOOL_CALLS]{call}")),
            (&LLAMA, format!("{before}\n<|python_tag|>{call}")),
        ] {
            let (text, found, reason) = whole(spelling, &text);
            prop_assert_eq!(text, before.trim_end());
            prop_assert_eq!(found, vec![(name.clone(), arguments.to_string())]);
            prop_assert_eq!(reason, FinishReason::ToolCalls);
        }
    }
}
