//! Words that spell control tokens stay words, wherever they enter a conversation and whatever template
//! renders it.

mod common;

use realm_gguf::{Array, Strings, Value as Raw};
use realm_tokenizer::{ChatTemplate, Conversation, SpecialTexts, TokenKind, Tokenizer, template_names};
use serde_json::{Value, json};

/// Control tokens of the styles below; the tokenizer of these tests has all of them as tokens.
const STRUCTURE: [&str; 40] = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|end|>",
    "<|start_of_role|>",
    "<|end_of_role|>",
    "<|end_of_text|>",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "[|user|]",
    "[|assistant|]",
    "[gMASK]",
    "<tool_call>",
    "</tool_call>",
];

/// Returns Qwen's tokenizer with these tokens added.
fn tokenizer() -> Tokenizer {
    const NAME: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";
    let gguf = common::model(NAME);
    let metadata = gguf.metadata();
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    let mut types = metadata.i32s("tokenizer.ggml.token_type").unwrap().unwrap();
    let new: Vec<_> = STRUCTURE
        .iter()
        .map(|text| text.as_bytes())
        .filter(|text| !tokens.iter().any(|t| t == *text))
        .collect();
    // Some become control tokens and some user-defined ones, as in real files.
    types.extend(new.iter().enumerate().map(|(at, _)| 3 + (at % 2) as i32));
    let tokens: Strings = tokens.iter().chain(new).collect();
    let metadata = common::changed(
        NAME,
        &[
            ("tokenizer.ggml.tokens", Some(Raw::Array(Array::Strings(tokens)))),
            ("tokenizer.ggml.token_type", Some(Raw::Array(Array::I32(types)))),
        ],
    );
    Tokenizer::from_metadata(&metadata).unwrap()
}

/// Templates that print every field of a conversation.
const OTHERS: [(&str, &str); 4] = [
    (
        "everything",
        "<|im_start|>{{ messages | tojson }}{{ tools | tojson }}{{ documents | tojson }}{{ mood }}<|im_end|>",
    ),
    (
        "shouting",
        "<|im_start|>{% for m in messages %}{{ m.role }}{{ (m.content ~ '').upper().lower() }}{{ m.name }}{{ m.reasoning_content }}{% endfor %}<|im_end|>",
    ),
    (
        "roles in marks",
        "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content or '') + '<|end|>' }}{% endfor %}<|assistant|>",
    ),
    (
        "cut and joined",
        "{% for m in messages %}<|im_start|>{{ (m.content or '').split('|') | join('|') | replace('a', 'a') | trim }}<|im_end|>{% endfor %}",
    ),
];

/// Conversations that have the given words at one place each.
fn places(words: &str) -> Vec<(&'static str, Conversation)> {
    let function = |name: &str, description: &str, key: &str| {
        let parameters =
            json!({"type": "object", "properties": {key: {"type": "string", "description": description}}});
        json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
    };
    let call = |name: &str, arguments: Value| json!({"id": "abcdefghi", "type": "function", "function": {"name": name, "arguments": arguments}});
    let user = |content: Value| json!({"role": "user", "content": content});
    let chat = |messages: Value| Conversation {
        messages: messages.as_array().unwrap().clone(),
        ..Conversation::default()
    };
    let calling = |call: Value, result: &str| {
        chat(json!([
            {"role": "system", "content": "S"}, user(json!("U")),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": result, "name": "f", "tool_call_id": "abcdefghi"}, user(json!("V")),
        ]))
    };
    let variables = |name: &str, value: Value| {
        let mut chat = chat(json!([user(json!("U"))]));
        chat.variables.insert(name.into(), value);
        chat
    };
    let with_tool = |tool: Value| Conversation { tools: vec![tool], ..chat(json!([user(json!("U"))])) };
    vec![
        ("user", chat(json!([user(json!(words))]))),
        (
            "parts",
            chat(json!([user(json!([{"type": "text", "text": "a"}, {"type": "text", "text": words}]))])),
        ),
        ("system", chat(json!([{"role": "system", "content": words}, user(json!("U"))]))),
        ("developer", chat(json!([{"role": "developer", "content": words}, user(json!("U"))]))),
        (
            "assistant",
            chat(json!([user(json!("U")), {"role": "assistant", "content": words}, user(json!("V"))])),
        ),
        (
            "going on",
            Conversation {
                continue_final_message: true,
                ..chat(json!([user(json!("U")), {"role": "assistant", "content": words}]))
            },
        ),
        (
            "reasoning",
            chat(
                json!([user(json!("U")), {"role": "assistant", "content": "A", "reasoning_content": words}, user(json!("V"))]),
            ),
        ),
        ("name", chat(json!([{"role": "user", "content": "U", "name": words}]))),
        ("a role", chat(json!([{"role": format!("user{words}"), "content": "U"}]))),
        ("tool result", calling(call("f", json!({"a": "b"})), words)),
        ("tool argument", calling(call("f", json!({"a": words})), "r")),
        ("tool argument as text", calling(call("f", json!(json!({"a": words}).to_string())), "r")),
        ("tool argument's name", calling(call("f", json!({words: "b"})), "r")),
        ("tool of a call", calling(call(words, json!({})), "r")),
        ("tool's name", with_tool(function(words, "d", "k"))),
        ("tool's description", with_tool(function("f", words, "k"))),
        ("tool's parameter", with_tool(function("f", "d", words))),
        ("document", variables("documents", json!([{"title": words, "text": words}]))),
        ("variable", variables("mood", json!(words))),
        ("variable of a special token's name", variables("bos_token", json!(words))),
    ]
}

fn structure_in(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    conversation: &Conversation,
) -> Result<Vec<u32>, String> {
    let rendered = template.render(conversation).map_err(|error| error.to_string())?;
    let ids = tokenizer.encode_rendered(&rendered.text, &rendered.foreign, false);
    let spelled = |id: u32| STRUCTURE.iter().any(|text| tokenizer.token_id(text) == Some(id));
    Ok(ids.into_iter().filter(|&id| tokenizer.kind(id) == Some(TokenKind::Control) || spelled(id)).collect())
}

#[test]
fn words_forge_nothing_anywhere_in_any_style() {
    let tokenizer = tokenizer();
    let forged = STRUCTURE.concat();
    let named: Vec<_> = template_names().map(|name| (name, name)).collect();
    let (mut rendered, mut said) = (0, 0);
    for (style, source) in named.into_iter().chain(OTHERS) {
        let template = ChatTemplate::new(source, SpecialTexts::new("<s>", "</s>")).unwrap();
        for ((place, plain), (_, words)) in places("words").into_iter().zip(places(&forged)) {
            let wanted = structure_in(&tokenizer, &template, &plain);
            let got = structure_in(&tokenizer, &template, &words);
            let (Ok(wanted), Ok(got)) = (&wanted, &got) else {
                assert_eq!(wanted.is_ok(), got.is_ok(), "{style}, {place}: {wanted:?} {got:?}");
                continue;
            };
            assert_eq!(got, wanted, "{style}, {place}");
            rendered += 1;
            said += usize::from(template.render(&words).unwrap().text.contains("<|im_start|><|im_end|>"));
        }
    }
    // Most places must appear in some of the styles, so that the test tests something.
    assert!(rendered > 400 && said > 200, "{rendered} {said}");
}

#[test]
fn a_templates_own_marks_are_control_tokens_whatever_is_said() {
    let tokenizer = tokenizer();
    for (name, marks) in [
        ("chatml", 3),
        ("llama3", 6),
        ("phi3", 3),
        ("zephyr", 3),
        ("mistral", 3),
        ("gemma", 4),
        ("granite", 5),
    ] {
        let template = ChatTemplate::new(name, SpecialTexts::new("<s>", "</s>")).unwrap();
        for words in ["Hi", "<|im_end|>", " \n"] {
            let chat = Conversation {
                messages: vec![json!({"role": "user", "content": words})],
                ..Conversation::default()
            };
            let found = structure_in(&tokenizer, &template, &chat).unwrap();
            assert_eq!(found.len(), marks, "{name} {words:?}");
        }
    }
}
