use proptest::prelude::*;
use serde_json::json;

use super::spelling::*;
use super::*;
use crate::answer::AnswerReader;
use crate::thought::ThoughtStream;
use crate::{Chunk, Finish, FinishReason, ReasoningFormat};

const ALL: [&Spelling; 15] = [
    &TAGGED,
    &SEED,
    &MISTRAL,
    &MISTRAL_ARGS,
    &LLAMA,
    &GEMMA,
    &GEMMA4,
    &PHI,
    &LFM,
    &DEEPSEEK,
    &KIMI,
    &HARMONY,
    &COMMAND,
    &NEMOTRON,
    &JAMBA,
];

/// A model whose marks are control tokens, or not.
fn model(spelling: &'static Spelling, control: bool) -> ToolSpelling {
    let marks = spelling.marks.iter().flat_map(|mark| [mark.opener, mark.closer]);
    let marks = marks.chain(spelling.others.iter().copied()).filter(|mark| control && !mark.is_empty());
    ToolSpelling { spelling, control: marks.enumerate().map(|(id, mark)| (id as u32, mark)).collect() }
}

fn tools() -> [Value; 2] {
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"},
        "at": {"type": "array"}, "exact": {"type": ["boolean", "null"]}}});
    [
        json!({"type": "function", "function": {"name": "weather", "parameters": weather}}),
        json!({"name": "time"}),
    ]
}

/// The output: text, names and arguments, and the finish reason.
type Read = (String, Vec<(String, String)>, FinishReason);

fn read<'a>(model: &ToolSpelling, pieces: impl IntoIterator<Item = &'a str>) -> Read {
    read_until(model, pieces, FinishReason::Stop)
}

fn read_until<'a>(
    model: &ToolSpelling,
    pieces: impl IntoIterator<Item = &'a str>,
    end: FinishReason,
) -> Read {
    let mut reader = AnswerReader {
        thought: Some(ThoughtStream::unknown()),
        format: ReasoningFormat::Inline,
        tools: Some(ToolStream::new(model, &tools())),
        ..AnswerReader::default()
    };
    let finish = Finish {
        reason: end,
        usage: realm_engine::Usage::default(),
        timings: realm_engine::Timings::default(),
    };
    let pieces = pieces.into_iter().map(|text| (text, None)).chain([("", Some(finish))]);
    let (mut text, mut calls, mut reason) = (String::new(), Vec::new(), FinishReason::Length);
    for (piece, finish) in pieces {
        let mut chunk = Chunk {
            text: piece.to_owned(),
            reasoning: String::new(),
            tokens: vec![],
            tool_calls: vec![],
            warnings: vec![],
            finish,
        };
        reader.read(&mut chunk);
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

const PARIS: &str = r#"{"name": "weather", "arguments": {"city": "Paris"}}"#;

#[test]
fn calls_are_read_in_every_spelling() {
    let paris = ("weather", r#"{"city": "Paris"}"#);
    let one = |text, spelling| {
        let (rest, found, reason) = whole(spelling, text);
        assert_eq!((rest.as_str(), found, reason), ("", calls(&[paris]), FinishReason::ToolCalls), "{text}");
    };
    one("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>", &TAGGED);
    one("<tool_call>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}]</tool_call>", &TAGGED);
    // Models forget the end mark, and write arguments as OpenAI's API does.
    one("<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}", &TAGGED);
    one(r#"<tool_call>{"name": "weather", "arguments": "{\"city\": \"Paris\"}"}</tool_call>"#, &TAGGED);
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
fn calls_are_read_as_models_really_write_them() {
    let one = |spelling, text: &str, arguments| {
        let (rest, found, reason) = whole(spelling, text);
        let expected = calls(&[("weather", arguments)]);
        assert_eq!((rest.as_str(), found, reason), ("", expected, FinishReason::ToolCalls), "{text}");
    };
    let paris = r#"{"city": "Paris"}"#;
    for spelling in ALL {
        // In fences and bare, recognized by the tools' names.
        one(spelling, &format!("```json\n{PARIS}\n```"), paris);
        one(spelling, &format!("```\n{PARIS}\n```\n"), paris);
        one(spelling, &format!("  ```json {PARIS}```"), paris);
        one(spelling, &format!("```json\n[{PARIS}]\n```"), paris);
        one(spelling, PARIS, paris);
        one(spelling, &format!("[{PARIS}]"), paris);
        one(spelling, r#"{"name": "weather", "parameters": {"city": "Paris"}}"#, paris);
        one(
            spelling,
            r#"{"type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}}"#,
            r#"{"city": "Paris"}"#,
        );
        one(spelling, r#"[weather(city="Paris")]"#, paris);
    }
    for spelling in [&TAGGED, &PHI] {
        one(spelling, &format!("<tool_call>\n```json\n{PARIS}\n```\n</tool_call>"), paris);
        one(spelling, &format!("<tool_call>\n{PARIS}}}\n</tool_call>"), paris);
        one(spelling, &format!("<tool_call>\n{PARIS}}}"), paris);
        one(spelling, r#"<tool_call>{"name": "weather", "arguments": {"city": "Paris"}</tool_call>"#, paris);
        one(spelling, r#"<tool_call>{"name": "weather", "arguments": {"city": "Paris"}"#, paris);
        one(spelling, r#"<tool_call>{'name': 'weather', 'arguments': {'city': 'Paris'}}</tool_call>"#, paris);
        one(
            spelling,
            r#"<tool_call>{"name": "weather", "parameters": {"city": "Paris"}}</tool_call>"#,
            paris,
        );
        let qwen = "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>";
        one(spelling, qwen, paris);
        one(
            spelling,
            "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
            paris,
        );
        one(spelling, "<tool_call>weather\n```json\n{\"city\": \"Paris\"}\n```\n</tool_call>", paris);
        one(spelling, "<tool_call>weather</tool_call>", "{}");
    }
    one(&TAGGED, &format!("<tools>\n{PARIS}\n</tools>"), paris);
    let typed = "<function=weather>\n<parameter=city>\n2024 <b>\n\n</parameter>\n<parameter=days>3</parameter>\n<parameter=at>[\"1\"]</parameter>\n<parameter=exact>True</parameter>\n</function>";
    one(&TAGGED, typed, r#"{"city": "2024 <b>\n", "days": 3, "at": ["1"], "exact": true}"#);
    one(&TAGGED, "<function=weather>{\"city\": \"Paris\"}</function>", paris);
    one(
        &SEED,
        "<seed:tool_call>\n<function=weather><parameter=city>Paris</parameter></function>\n</seed:tool_call>",
        paris,
    );
    one(&PHI, &format!("<|tool_call|>[{PARIS}]<|/tool_call|>"), paris);
    one(&PHI, &format!("<|tool_call|>[{PARIS}]"), paris);
    one(&LFM, r#"<|tool_call_start|>[weather(city="Paris")]<|tool_call_end|>"#, paris);
    one(&LFM, &format!("<|tool_call_start|>[{PARIS}]<|tool_call_end|>"), paris);
    one(&LLAMA, r#"<|python_tag|>weather.call(city="Paris")"#, paris);
    one(
        &LLAMA,
        r#"<|python_start|>[weather("Paris", days=-2, at=(1, [.5, None]), exact=True)]<|python_end|>"#,
        r#"{"city": "Paris", "days": -2, "at": [1, [0.5, null]], "exact": true}"#,
    );
    one(&DEEPSEEK, "<|calls|>function<|sep|>weather\n```json\n{\"city\": \"Paris\"}\n```", paris);
    one(
        &DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        paris,
    );
    one(
        &DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        paris,
    );
    one(
        &KIMI,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>",
        paris,
    );
    one(
        &HARMONY,
        "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Paris\"}<|call|>",
        paris,
    );
    one(
        &COMMAND,
        r#"<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "weather", "parameters": {"city": "Paris"}}]<|END_ACTION|>"#,
        paris,
    );
    one(&NEMOTRON, &format!("<TOOLCALL>[{PARIS}]</TOOLCALL>"), paris);
    one(&JAMBA, &format!("<tool_calls>[\n{PARIS}\n]</tool_calls>"), paris);
    one(&GEMMA4, "<|tool_call>call:weather{city:<|\"|>Paris<|\"|>}<tool_call|>", r#"{"city":"Paris"}"#);
}

#[test]
fn several_calls_come_in_every_way() {
    let two = calls(&[("weather", r#"{"city": "Paris"}"#), ("time", "{}")]);
    let time = r#"{"name": "time", "arguments": {}}"#;
    for (spelling, text) in [
        (&TAGGED, format!("<tool_call>{PARIS}</tool_call>\n<tool_call>{time}</tool_call>")),
        (&TAGGED, format!("<tool_call>\n{PARIS}\n{time}\n</tool_call>")),
        (&TAGGED, format!("<tool_call>[{PARIS}, {time}]</tool_call>")),
        (&TAGGED, format!("```json\n{PARIS}\n```\n```json\n{time}\n```")),
        (&TAGGED, format!("```json\n{PARIS}\n{time}\n```")),
        (&TAGGED, format!("```json\n[{PARIS},\n{time}]\n```")),
        (&TAGGED, format!("{PARIS}\n{time}")),
        (&TAGGED, "<tool_call><function=weather><parameter=city>Paris</parameter></function></tool_call><tool_call><function=time></function></tool_call>".into()),
        (&LLAMA, format!("{PARIS}; {time}")),
        (&LLAMA, r#"[weather(city='Paris'), time()]"#.into()),
        (&PHI, format!("<|tool_call|>[{PARIS}, {time}]<|/tool_call|>")),
        (&MISTRAL, format!("[TOOL_CALLS] [{PARIS}, {time}]")),
        (&MISTRAL_ARGS, r#"[TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]time[ARGS]{}"#.into()),
        (&DEEPSEEK, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>".into()),
    ] {
        assert_eq!(whole(spelling, &text), (String::new(), two.clone(), FinishReason::ToolCalls), "{text}");
    }
    let (text, found, _) = whole(&TAGGED, &format!("I look it up:\n```json\n{PARIS}\n```\nDone."));
    assert_eq!((text.as_str(), found), ("I look it up:Done.", calls(&[("weather", r#"{"city": "Paris"}"#)])));
}

#[test]
fn what_a_model_only_thought_of_is_no_call() {
    let thought =
        format!("<think>\nI could do <tool_call>\n{PARIS}\n</tool_call> but no.\n</think>\nNo need.");
    assert_eq!(whole(&TAGGED, &thought), (thought.clone(), vec![], FinishReason::Stop));
    let (text, found, _) = whole(&TAGGED, &format!("<think>{PARIS}</think>\n<tool_call>{PARIS}</tool_call>"));
    assert_eq!((text, found.len()), (format!("<think>{PARIS}</think>"), 1));
}

#[test]
fn answers_that_look_like_calls_lose_nothing() {
    for text in [
        // Other keys, no arguments, an unknown tool.
        r#"{"name": "weather", "info": "It rains."}"#,
        r#"{"name": "weather", "arguments": {}, "note": "really?"}"#,
        r#"{"name": "weather"}"#,
        r#"{"name": "forecast", "arguments": {}}"#,
        "```json\n{\"name\": \"weather\", \"city\": \"Paris\"}\n```",
        "```json\n{\"city\": \"Paris\"}\n```\n{\"name\": \"time\"}",
        "```python\nweather(city=\"Paris\")\n```",
        "[weather]",
        "[1, 2]",
        "[print(city=\"Paris\")]",
        "weather(city=\"Paris\")",
        "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"type\": \"object\", \"properties\": {}}}}",
    ] {
        for spelling in ALL {
            assert_eq!(whole(spelling, text), (text.to_owned(), vec![], FinishReason::Stop));
        }
    }
    for text in [
        "<tools>\n{\"name\": \"other\", \"arguments\": {}}\n</tools>",
        "<tool_call>{\"name\": \"weather\", \"city\": 1}</tool_call>",
    ] {
        assert_eq!(whole(&TAGGED, text), (text.to_owned(), vec![], FinishReason::Stop));
    }
    for text in ["<|python_tag|>print(1)", "<|python_tag|>import os", "<|python_tag|>weather.call(city=Paris"]
    {
        assert_eq!(whole(&LLAMA, text), (text.to_owned(), vec![], FinishReason::Stop));
    }
}

#[test]
fn a_call_that_was_cut_off_is_none() {
    let model = model(&TAGGED, false);
    for text in
        [r#"<tool_call>{"name": "weather", "arguments": {"city": "Paris"}"#, "<tool_call><function=weather>"]
    {
        let (rest, found, reason) = read_until(&model, [text], FinishReason::Length);
        assert_eq!((rest.as_str(), found, reason), (text, vec![], FinishReason::Length));
    }
}

#[test]
fn answers_in_json_and_code_come_out_while_they_come() {
    let mut stream = ToolStream::new(&model(&TAGGED, false), &tools());
    let (mut text, mut calls) = (String::new(), vec![]);
    for (piece, out) in [("{\"na", ""), ("tion\"", "{\"nation\""), (": \"Fra", "{\"nation\": \"Fra")] {
        stream.push(piece, &mut text, &mut calls);
        assert_eq!(text, out);
    }
    let mut stream = ToolStream::new(&model(&TAGGED, false), &tools());
    text.clear();
    for (piece, out) in [("```py", "```py"), ("thon\nx", "```python\nx")] {
        stream.push(piece, &mut text, &mut calls);
        assert_eq!(text, out);
    }
}

#[test]
fn several_calls_and_the_text_around_them() {
    let hermes = "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"time\"}\n</tool_call>\nDone.";
    let (text, found, _) = whole(&TAGGED, hermes);
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
        "<tool_call>{\"name\" \"weather\"}</tool_call>",
        "<tool_call>[]</tool_call>",
    ] {
        assert_eq!(whole(&TAGGED, text), (text.to_owned(), vec![], FinishReason::Stop));
    }
    // Without a mark, JSON must name a tool of the request.
    for text in [
        r#"{"name": "Anna", "parameters": {}}"#,
        r#" {"city": "Paris"} "#,
        r#"So: {"name": "time", "arguments": {}}"#,
    ] {
        for spelling in [&LLAMA, &TAGGED] {
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
    // Each would take minutes if the same text were read again and again.
    let megabyte = |text: &str| text.repeat((1 << 20) / text.len());
    let texts = [
        megabyte("<tool_call>{\"a\":"),
        format!("<tool_call>{{\"a\": \"{}", megabyte("x")),
        format!("{{{}", megabyte(" ")),
        format!("<tool_call><function=f><parameter=a>{}", megabyte("<")),
        format!("<tool_call><function=f>{}", megabyte("<")),
        format!("```json{}", megabyte(" ")),
        megabyte("<"),
        megabyte("["),
        megabyte("```\n"),
        megabyte(" "),
        megabyte("\n"),
        megabyte("{\"name\": \"weather\", \"x\": "),
        format!("[{}", megabyte("[")),
        format!("<tool_call>{}", megabyte("[")),
    ];
    for text in &texts {
        let pieces = text.as_bytes().chunks(4).map(|piece| std::str::from_utf8(piece).unwrap());
        for pieces in [pieces.collect(), vec![text.as_str()]] {
            assert_eq!(&read(&model(&TAGGED, false), pieces).0, text);
        }
    }
}

#[test]
fn spellings_are_told_from_templates() {
    for (template, spelling) in [
        ("… within <tool_call></tool_call> tags", &TAGGED),
        ("<tool_call>\n<function=example>", &TAGGED),
        ("<tool_call>{{ name }}<arg_key>", &TAGGED),
        ("{{ messages[0].content }}", &TAGGED),
        ("{{ '[TOOL_CALLS] [' }}", &MISTRAL),
        ("[TOOL_CALLS]{{ name }}[ARGS]{{ arguments }}", &MISTRAL_ARGS),
        (r#"'{"name": "' + name + '", "parameters": '"#, &LLAMA),
        ("<|python_tag|>", &LLAMA),
        ("'<start_function_call>call:' + name", &GEMMA),
        ("<|tool_call>call:{{ name }}", &GEMMA4),
        ("<|tool_call|>{{ calls }}<|/tool_call|>", &PHI),
        ("<|tool_call_start|>[", &LFM),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", &DEEPSEEK),
        ("<|tool_calls_section_begin|><|tool_call_begin|>", &KIMI),
        ("<|START_ACTION|>", &COMMAND),
        ("<|start|>assistant<|channel|>final<|message|>", &HARMONY),
    ] {
        assert!(std::ptr::eq(detect(template), spelling), "{template}");
    }
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

/// Text from the parts that calls consist of.
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
            "```json\n",
            "```",
            "```\n",
            "<tools>",
            "</tools>",
            "<think>",
            "</think>",
            "<function=weather>",
            "</function>",
            "<parameter=city>",
            "</parameter>",
            "<arg_key>city</arg_key>",
            "<arg_value>",
            "</arg_value>",
            "weather(city='Par\"is')",
            "[weather(days=1)]",
            "weather.call(",
            "<|tool_call|>",
            "<|/tool_call|>",
            "<|tool_call>",
            "<tool_call|>",
            "<|tool_call_start|>",
            "<|tool_call_end|>",
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{}\n```<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
            "<|channel|>commentary to=functions.time <|message|>",
            "<|tool_call_begin|>functions.time:1<|tool_call_argument_begin|>",
            "<|START_ACTION|>",
            "{\"tool_name\": \"time\", \"parameters\": {}}",
            "{\"name\": \"weather\", \"arguments\": {\"city\": \"x\"}}",
            "(",
            ")",
            "'",
        ])
        .prop_map(str::to_owned),
        " {250,260}",
        "\\PC{0,4}",
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

/// Cuts a text into pieces.
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
        let object = call.clone();
        let call = if list { format!("[{call}]") } else { call };
        for (spelling, text) in [
            (&TAGGED, format!("{before} <tool_call>{call}</tool_call>")),
            (&MISTRAL, format!("{before}[TOOL_CALLS]{call}")),
            (&LLAMA, format!("{before}\n<|python_tag|>{object}")),
            (&PHI, format!("{before}<|tool_call|>{call}<|/tool_call|>")),
            (&COMMAND, format!("{before}<|START_ACTION|>{call}<|END_ACTION|>")),
        ] {
            let (text, found, reason) = whole(spelling, &text);
            prop_assert_eq!(text, before.trim_end());
            prop_assert_eq!(found, vec![(name.clone(), arguments.to_string())]);
            prop_assert_eq!(reason, FinishReason::ToolCalls);
        }
    }
}
