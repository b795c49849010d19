//! Conversations in OpenAI's format work with every template, prompts end where they should, and a limitation
//! of a template affects nothing else.

mod common;

use realm_gguf::Value as Raw;
use realm_tokenizer::{ChatTemplate, Conversation, Error, SpecialTexts, template_names};
use serde_json::{Value, json};

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, SpecialTexts::new("<s>", "</s>")).unwrap_or_else(|e| panic!("{source}: {e}"))
}

fn conversation(messages: Value) -> Conversation {
    Conversation { messages: messages.as_array().unwrap().clone(), ..Conversation::default() }
}

fn prompt(source: &str, messages: Value) -> String {
    let rendered = template(source).render(&conversation(messages));
    rendered.unwrap_or_else(|e| panic!("{source}: {e}")).text
}

/// A template that knows only users and assistants, requires alternation, and concatenates texts.
const STRICT: &str = "{{ bos_token }}{% for m in messages %}\
    {% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
    {{ '<' + m['role'] + '>' + (m['content'] | trim) + '\n' }}{% endfor %}";

/// A template that accepts only parts.
const PARTS: &str = "{% for m in messages %}[{{ m.role }}]{% for part in m.content %}{{ part['text'] }}{% endfor %}{% endfor %}";

#[test]
fn lists_of_text_parts_are_their_text() {
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]);
    for name in template_names() {
        assert!(prompt(name, parts.clone()).contains("one\ntwo"), "{name}");
    }
    // If the template accepts parts, it joins them in its own way; if it accepts nothing else, a text becomes
    // a single part.
    assert_eq!(prompt(PARTS, parts.clone()), "[user]onetwo");
    assert_eq!(prompt(PARTS, json!([{"role": "user", "content": "one"}])), "[user]one");
    let both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }},{% endfor %}{% endif %}{% endfor %}";
    assert_eq!(prompt(both, parts), "one,two,");
    // The part types of the Responses API and refusals are text, too.
    let others = json!([{"role": "user", "content": ["a", {"type": "input_text", "text": "b"}, {"type": "refusal", "refusal": "c"}]}]);
    assert!(prompt("chatml", others).contains("a\nb\nc<|im_end|>"));
}

#[test]
fn parts_that_are_no_text_are_named() {
    let image = json!({"type": "image_url", "image_url": {"url": "data:,"}});
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "user", "content": [{"type": "text", "text": "a"}, image]}]);
    let error = template("chatml").render(&conversation(messages)).unwrap_err().to_string();
    assert!(error.contains("messages[1].content[1]") && error.contains("`image_url`"), "{error}");
    for odd in [json!(["Hi"]), json!([{"role": "user", "content": [{"type": "text"}]}])] {
        assert!(matches!(template("chatml").render(&conversation(odd)), Err(Error::Conversation(_))));
    }
}

#[test]
fn system_messages_reach_templates_without_a_system_role() {
    let with_system =
        |role: &str| json!([{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    for role in ["system", "developer"] {
        assert_eq!(prompt(STRICT, with_system(role)), "<s><user>Be brief.\n\nHi\n");
        assert!(prompt("chatml", with_system(role)).starts_with("<|im_start|>system\nBe brief.<|im_end|>"));
        for name in template_names() {
            assert!(prompt(name, with_system(role)).contains("Be brief."), "{name} {role}");
        }
    }
    // Alone, or before an answer, a system message becomes the user's.
    assert_eq!(prompt(STRICT, json!([{"role": "system", "content": "Be brief."}])), "<s><user>Be brief.\n");
    // A template that knows developers gets their messages.
    let knows =
        "{% for m in messages %}{% if m.role == 'developer' %}D{% endif %}{{ m.content }}{% endfor %}";
    assert_eq!(prompt(knows, with_system("developer")), "DBe brief.Hi");
}

#[test]
fn messages_of_one_role_are_joined_where_roles_must_alternate() {
    let twice = json!([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}]);
    assert_eq!(prompt(STRICT, twice.clone()), "<s><user>a\n\nb\n");
    assert_eq!(prompt("{% for m in messages %}{{ m.role }};{% endfor %}", twice), "user;user;");
    // A template's errors for other reasons are passed on.
    let first = json!([{"role": "assistant", "content": "a"}]);
    let error = template(STRICT).render(&conversation(first)).unwrap_err().to_string();
    assert!(error.contains("roles must alternate"), "{error}");
}

#[test]
fn null_contents_are_nothing() {
    let call =
        json!({"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "content": "result", "tool_call_id": "abcdefghi", "name": "f"},
        {"role": "user", "content": "b"},
    ]);
    for name in template_names().chain([STRICT, PARTS]) {
        let text = prompt(name, messages.clone());
        assert!(!text.contains("None") && !text.contains("null") && !text.contains("none"), "{name}: {text}");
        assert!(text.contains("b") && text.contains("result"), "{name}: {text}");
    }
    // A template that tests whether there is a content still can.
    let asks = "{% for m in messages %}{% if m.content is none %}nothing{% else %}{{ m.content }}{% endif %}{% endfor %}{{ tool_calls }}";
    assert_eq!(prompt(asks, messages), "Hinothingresultb");
}

#[test]
fn arguments_of_calls_are_objects_or_texts_as_the_template_takes_them() {
    let messages = |arguments: Value| {
        let call =
            json!({"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": arguments}});
        json!([{"role": "user", "content": "w"}, {"role": "assistant", "content": null, "tool_calls": [call]}])
    };
    let each = |body: &str| {
        format!(
            "{{% for m in messages if m.tool_calls %}}{{% set f = m.tool_calls[0].function %}}{body}{{% endfor %}}"
        )
    };
    let as_text = each("{{ f.name + ' ' + f.arguments }}");
    let as_object = each("{{ f.name }} {{ f.arguments | tojson }}");
    let as_items = each("{{ f.name }}{% for k, v in f.arguments.items() %} {{ k }}={{ v }}{% endfor %}");
    for arguments in [json!({"a": 1}), json!("{\"a\": 1}")] {
        assert_eq!(prompt(&as_text, messages(arguments.clone())), "f {\"a\": 1}");
        assert_eq!(prompt(&as_object, messages(arguments.clone())), "f {\"a\": 1}");
        assert_eq!(prompt(&as_items, messages(arguments)), "f a=1");
    }
    // If a template accepts both, the arguments stay unchanged, and so do arguments that are not objects.
    let both = each(
        "{{ f.name }} {% if f.arguments is string %}{{ f.arguments }}{% else %}{{ f.arguments | tojson }}{% endif %}",
    );
    assert_eq!(prompt(&both, messages(json!("{\"a\":1}"))), "f {\"a\":1}");
    assert_eq!(prompt(&as_object, messages(json!("broken {"))), "f \"broken {\"");
    // A template without tool calls gets them as text.
    let text = prompt("vicuna", messages(json!("{\"a\": 1}")));
    assert!(text.contains("{\"name\": \"f\", \"arguments\": "), "{text}");
}

#[test]
fn an_assistants_words_are_gone_on_with() {
    let go_on = |messages: Value| Conversation { continue_final_message: true, ..conversation(messages) };
    let said =
        |words: &str| json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": words}]);
    for name in template_names() {
        let template = template(name);
        let whole = template.render(&conversation(said("Once upon"))).unwrap().text;
        let cut = template.render(&go_on(said("Once upon"))).unwrap().text;
        assert!(cut.ends_with("Once upon") && whole.starts_with(&cut), "{name}: {cut}");
        // MiniCPM's template has no end of answers.
        assert!(whole.len() > cut.len() || name == "minicpm", "{name}");
    }
    // White space at the end stays if the template keeps it.
    assert!(template("chatml").render(&go_on(said("Once "))).unwrap().text.ends_with("\nOnce "));
    assert!(template("llama3").render(&go_on(said("Once "))).unwrap().text.ends_with("\n\nOnce"));
    let parts = json!([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
    assert!(template("chatml").render(&go_on(parts.clone())).unwrap().text.ends_with("a\nb"));
    assert!(template(PARTS).render(&go_on(parts)).unwrap().text.ends_with("ab"));
    // An empty beginning counts, too: nothing follows it.
    assert!(template("chatml").render(&go_on(said(""))).unwrap().text.ends_with("assistant\n"));
    let fails = |conversation: Conversation, source: &str, with: &str| {
        let error = template(source).render(&conversation).unwrap_err().to_string();
        assert!(error.contains(with), "{error}");
    };
    fails(go_on(json!([])), "chatml", "last message");
    fails(go_on(json!([{"role": "assistant", "content": 3}])), "chatml", "last message");
    fails(go_on(said("x")), "{{ messages[0].content }}", "leaves the last message out");
    fails(
        Conversation { add_generation_prompt: Some(true), ..go_on(said("x")) },
        "chatml",
        "leave one of them out",
    );
    // Variables of these names, which programs set, do the same.
    let mut variables = conversation(said("Once"));
    variables.variables.insert("continue_final_message".into(), true.into());
    assert!(template("chatml").render(&variables).unwrap().text.ends_with("Once"));
}

#[test]
fn the_generation_prompt_may_be_left_out() {
    let hi = conversation(json!([{"role": "user", "content": "Hi"}]));
    let without = Conversation { add_generation_prompt: Some(false), ..hi.clone() };
    assert!(template("chatml").render(&hi).unwrap().text.ends_with("<|im_start|>assistant\n"));
    assert!(template("chatml").render(&without).unwrap().text.ends_with("Hi<|im_end|>\n"));
}

#[test]
fn no_messages_are_as_the_template_says() {
    assert_eq!(prompt("{{ messages | length }}", json!([])), "0");
    let error = template("{{ messages[0].content }}").render(&conversation(json!([])));
    assert!(matches!(error, Ok(_) | Err(Error::Template(_))));
}

#[test]
fn a_template_that_can_not_be_parsed_is_said_when_it_is_needed() {
    let broken = [
        Raw::String("{% for r in %}".into()),
        Raw::String("{{ ".into()),
        Raw::U32(7),
        Raw::Bool(true),
        Raw::String("x".repeat(2 << 20)),
    ];
    for value in broken {
        let metadata =
            common::changed("smollm2-135m-instruct-q4_1", &[("tokenizer.chat_template", Some(value))]);
        let template = ChatTemplate::from_metadata(&metadata, SpecialTexts::default()).unwrap();
        let error = template.render(&conversation(json!([{"role": "user", "content": "Hi"}]))).unwrap_err();
        assert!(matches!(error, Error::BrokenTemplate(_)), "{error}");
        assert!(
            error.to_string().contains("`chat_template`") && error.to_string().contains("chatml"),
            "{error}"
        );
    }
    // A broken template for tools does not affect conversations without tools.
    let key = "tokenizer.chat_template.tool_use";
    let metadata =
        common::changed("smollm2-135m-instruct-q4_1", &[(key, Some(Raw::String("{% if %}".into())))]);
    let template = ChatTemplate::from_metadata(&metadata, SpecialTexts::default()).unwrap();
    let hi = conversation(json!([{"role": "user", "content": "Hi"}]));
    assert!(template.render(&hi).is_ok());
    assert!(template.render(&Conversation { tools: vec![json!({"name": "f"})], ..hi }).is_err());
    // A template that the application gives is checked at once.
    assert!(ChatTemplate::new("{% if %}", SpecialTexts::default()).is_err());
    let error = ChatTemplate::new("chat-ml", SpecialTexts::default()).err().unwrap().to_string();
    assert!(error.contains("chatml") && error.contains("`chat-ml`"), "{error}");
}

#[test]
fn builtin_templates_write_what_models_know() {
    let messages = json!([{"role": "system", "content": "S"}, {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"}, {"role": "user", "content": "V"}]);
    for (name, wanted) in [
        (
            "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]"),
        ("mistral", "<s>[INST] S\n\nU[/INST] A</s>[INST] V[/INST]"),
        (
            "gemma",
            "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "phi3",
            "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
        ),
        (
            "zephyr",
            "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n<|assistant|>\n",
        ),
        ("vicuna", "S\n\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:"),
        ("deepseek3", "<s>S\n\n<｜User｜>U<｜Assistant｜>A</s><｜User｜>V<｜Assistant｜>"),
        (
            "command-r",
            "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        (
            "openchat",
            "<s>S<|end_of_turn|>GPT4 Correct User: U<|end_of_turn|>GPT4 Correct Assistant: A<|end_of_turn|>GPT4 Correct User: V<|end_of_turn|>GPT4 Correct Assistant:",
        ),
        (
            "granite",
            "<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>U<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>A<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>V<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        ),
        ("glm4", "[gMASK]<sop><|system|>\nS<|user|>\nU<|assistant|>\nA<|user|>\nV<|assistant|>"),
        (
            "exaone3",
            "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n[|user|]V\n[|assistant|]",
        ),
    ] {
        assert_eq!(prompt(name, messages.clone()), wanted, "{name}");
    }
    assert!(template_names().is_sorted());
}
