//! Chat templates render the same as in Hugging Face, and hostile ones end.

mod common;

use realm_tokenizer::{ChatTemplate, Conversation, Error, SpecialTexts};
use serde_json::{Value, json};

fn render(source: &str, conversation: &Conversation) -> Result<String, Error> {
    ChatTemplate::new(source, SpecialTexts::new("<s>", "</s>"))?
        .render(conversation)
        .map(|rendered| rendered.text)
}

fn conversation(messages: Value) -> Conversation {
    Conversation { messages: messages.as_array().unwrap().clone(), ..Conversation::default() }
}

#[test]
fn pythons_habits_work() {
    let chat = conversation(json!([{"role": "user", "content": "  Hi there "}]));
    let cases = [
        ("{{ messages[0]['content'].strip() }}", "Hi there"),
        ("{{ messages[0].content | trim }}{{ eos_token }}", "Hi there</s>"),
        ("{{ messages[0].content.split(' ')[2] }}", "Hi"),
        ("{{ messages[-1]['role'] ~ bos_token }}", "user<s>"),
        ("{% for m in messages[::-1] %}{{ loop.index0 }}{{ m.role.upper() }}{% endfor %}", "0USER"),
        (
            "{% set ns = namespace(n=1) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "4",
        ),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% if tools is none %}none{% endif %}{% if tools is not defined %}undefined{% endif %}", "none"),
        ("{% generation %}x{% endgeneration %}{%- generation -%} y {%- endgeneration -%}", "xy"),
        (
            "{% if messages[0].content is string and messages is iterable and messages[0] is mapping %}ok{% endif %}",
            "ok",
        ),
        ("{% for k, v in messages[0].items() %}{{ k }};{% endfor %}", "role;content;"),
        ("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f('a') }}", "[a]"),
        ("a\n{% if true %}\n  b\n{% endif %}\nc", "a\n  b\nc"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ {'a': [1, 'é<']} | tojson }}", "{\"a\": [1, \"é<\"]}"),
        ("{{ {'b': 1, 'a': {}} | tojson(indent=2) }}", "{\n  \"b\": 1,\n  \"a\": {}\n}"),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ messages[0].missing }}|{{ '<b>' }}", "|<b>"),
    ];
    for (source, wanted) in cases {
        assert_eq!(render(source, &chat).unwrap_or_else(|e| panic!("{source}: {e}")), wanted, "{source}");
    }
}

#[test]
fn tools_reach_the_qwen_template() {
    let tool = json!({"type": "function", "function": {"name": "weather", "description": "It's \"now\"",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}});
    let template = common::template("qwen2.5-coder-0.5b-instruct-q4_k_m").unwrap();
    let chat = Conversation {
        tools: vec![tool],
        ..conversation(json!([{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Köln"}}}]},
            {"role": "tool", "content": "yes"}]))
    };
    let prompt = template.render(&chat).unwrap().text;
    let line = r#"{"type": "function", "function": {"name": "weather", "description": "It's \"now\"", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}"#;
    assert!(prompt.contains(line), "{prompt}");
    assert!(prompt.contains(r#"{"name": "weather", "arguments": {"city": "Köln"}}"#), "{prompt}");
    assert!(prompt.contains("<tool_response>\nyes\n</tool_response>"), "{prompt}");
    assert!(prompt.ends_with("<|im_start|>assistant\n"), "{prompt}");
}

#[test]
fn a_template_that_raises_says_why() {
    let error =
        render("{{ raise_exception('Roles must alternate') }}", &Conversation::default()).unwrap_err();
    assert!(error.to_string().contains("Roles must alternate"), "{error}");
    let error = render("{% if %}", &Conversation::default()).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn hostile_templates_end_in_an_error() {
    let hostile = [
        "{% for a in range(100000) %}{% for b in range(100000) %}{{ a * b }}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(99999999999) %}{% endfor %}",
        "{% set x = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}",
        "{% set x = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set x.s = x.s + x.s %}{% endfor %}",
        "{% set x = namespace(l=[1]) %}{% for i in range(60) %}{% set x.l = x.l + x.l %}{% endfor %}",
        "{% set x = namespace(l=[messages]) %}{% for i in range(60) %}{% set x.l = [x.l, x.l] %}{% endfor %}{{ x.l }}",
        "{{ 'a' * 100000000000 }}",
        "{{ [1] * 100000000000 }}",
        "{{ 'a'.rjust(10000000000) }}{{ 'a' | center(10000000000) }}",
        "{{ 'a'.replace('', 'b' * 100000).replace('b', 'b' * 100000) }}",
        "{% set long = 'a' * 10000 %}{% for i in range(10000) %}{{ long }}{% endfor %}",
    ];
    for source in hostile {
        let result = render(source, &Conversation::default());
        println!("{source:.60}: {:?}", result.as_ref().map(String::len));
        assert!(result.is_err(), "{source}");
    }
    let deep = "{% if true %}".repeat(20_000);
    assert!(render(&deep, &Conversation::default()).is_err());
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000));
    assert!(render(&deep, &Conversation::default()).is_err());
}
