//! Tests which bytes of a prompt come from the conversation.

mod common;

use common::{conversations, limits, render, styles};
use realm_template::{Input, Rendered, Template};
use serde_json::{Map, Value, json};

/// Renders with `u` as the user's text, and puts foreign parts in brackets: `a[b]c`.
fn marked(template: &str, foreign: &Value) -> String {
    let foreign = foreign.as_object().expect("an object");
    let trusted = json!({"bos_token": "<s>"});
    let rendered = render(template, foreign, trusted.as_object().expect("an object"))
        .unwrap_or_else(|e| panic!("{template}: {e}"));
    check(&rendered);
    let mut out = String::new();
    let mut at = 0;
    for run in &rendered.foreign {
        out += &rendered.text[at..run.start];
        out += "⟦";
        out += &rendered.text[run.clone()];
        out += "⟧";
        at = run.end;
    }
    out + &rendered.text[at..]
}

/// Checks that ranges are sorted, disjoint, not adjacent, not empty, and lie between characters.
fn check(rendered: &Rendered) {
    let mut end = None;
    for run in &rendered.foreign {
        assert!(run.start < run.end && end.is_none_or(|end| end < run.start), "{:?}", rendered.foreign);
        assert!(rendered.text.get(run.clone()).is_some(), "{:?}", rendered.foreign);
        end = Some(run.end);
    }
}

#[test]
fn operations_keep_the_origin_of_text() {
    let u = json!({"u": "ab cd", "v": "x", "list": ["p", "q"], "map": {"k": "w"}, "n": 5, "lines": "a\nb\n"});
    for (template, right) in [
        ("{{ u }}", "⟦ab cd⟧"),
        ("a{{ u }}b", "a⟦ab cd⟧b"),
        ("{{ 'a' + u + 'b' }}", "a⟦ab cd⟧b"),
        ("{{ 'a' ~ u ~ n ~ 'b' }}", "a⟦ab cd⟧5b"),
        ("{{ bos_token ~ v }}", "<s>⟦x⟧"),
        ("{{ (v ~ '-') * 2 }}", "⟦x⟧-⟦x⟧-"),
        ("{{ ('<' ~ u ~ '>')[0:3] }}", "<⟦ab⟧"),
        ("{{ ('<' ~ u ~ '>')[::-1] }}", ">⟦dc ba⟧<"),
        ("{{ ('<' ~ u)[1] }}{{ ('<' ~ u)[0] }}", "⟦a⟧<"),
        ("{% for c in '<' ~ v %}{{ c }}.{% endfor %}", "<.⟦x⟧."),
        ("{{ ('<a>' ~ u).split('a') | join('|') }}", "<|>|⟦b cd⟧"),
        ("{{ u.split() | join('|') }}", "⟦ab⟧|⟦cd⟧"),
        ("{{ 'a,b'.split(',') | join(v) }}", "a⟦x⟧b"),
        ("{{ (' ' ~ u ~ ' ') | trim }}", "⟦ab cd⟧"),
        ("{{ 'a-b'.replace('-', u) }}", "a⟦ab cd⟧b"),
        ("{{ u.replace(' ', '-') }}", "⟦ab⟧-⟦cd⟧"),
        ("{{ ('x' ~ u) | upper }}", "X⟦AB CD⟧"),
        ("{{ (u ~ 'x') | title }}", "⟦Ab Cd⟧x"),
        ("{{ ('x' ~ u) | capitalize }}", "X⟦ab cd⟧"),
        ("{{ '<%s|%d>' % (u, n) }}", "<⟦ab cd⟧|5>"),
        ("{{ '<%8s>' % v }}", "<       ⟦x⟧>"),
        ("{{ u % () }}", "⟦ab cd⟧"),
        ("{{ '<{}|{a:>3}>'.format(u, a=v) }}", "<⟦ab cd⟧|  ⟦x⟧>"),
        ("{{ '{:{}>3}'.format('a', v) }}", "⟦xx⟧a"),
        ("{{ '{!r}'.format(u) }}", "'⟦ab cd⟧'"),
        ("{{ '<%c>' % 60 }}", "<⟦<⟧>"),
        ("{{ list | join(', ') }}", "⟦p⟧, ⟦q⟧"),
        ("{{ ','.join(list) }}", "⟦p⟧,⟦q⟧"),
        ("{{ list }}", "['⟦p⟧', '⟦q⟧']"),
        ("{{ map }}", "{'⟦k⟧': '⟦w⟧'}"),
        ("{{ map | tojson }}", "{\"⟦k⟧\": \"⟦w⟧\"}"),
        ("{{ [u, 'a'] | tojson(indent=1) }}", "[\n \"⟦ab cd⟧\",\n \"a\"\n]"),
        ("{{ {'a': u} | tojson(separators=(v, ':')) }}", "{\"a\":\"⟦ab cd⟧\"}"),
        ("{{ '\"\n' | tojson }}", "\"\\\"\\n\""),
        ("{{ lines | tojson }}", "\"⟦a\\nb\\n⟧\""),
        ("{% for k, v in map.items() %}{{ k }}={{ v }}{% endfor %}", "⟦k⟧=⟦w⟧"),
        ("{% for k in map %}{{ k }}{% endfor %}", "⟦k⟧"),
        ("{{ lines | indent(2) }}", "⟦a\n⟧  ⟦b\n⟧"),
        ("{{ u | truncate(3, true, '…', 0) }}", "⟦ab⟧…"),
        ("{{ u | center(9) }}|", "  ⟦ab cd⟧  |"),
        ("{{ u | wordwrap(2) }}", "⟦ab⟧\n⟦cd⟧"),
        ("{{ v.zfill(3) }}", "00⟦x⟧"),
        ("{{ 'a'.ljust(3, v) }}", "a⟦xx⟧"),
        ("{{ ('<' ~ u).partition(' ') }}", "('<⟦ab⟧', '⟦ ⟧', '⟦cd⟧')"),
        ("{{ u | e }}{{ ('<' ~ u) | e }}", "⟦ab cd⟧&lt;⟦ab cd⟧"),
        ("{{ u | reverse }}", "⟦dc ba⟧"),
        ("{{ u | list | join }}", "⟦ab cd⟧"),
        ("{{ list | sort(reverse=true) | join }}", "⟦qp⟧"),
        ("{{ list | map('upper') | join('-') }}", "⟦P⟧-⟦Q⟧"),
        ("{{ u | default('z') }}{{ nope | default('z') }}", "⟦ab cd⟧z"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(u) }}{{ m('a') | upper }}", "<⟦ab cd⟧><A>"),
        (
            "{% macro m() %}<{{ caller(u) }}>{% endmacro %}{% call(x) m() %}{{ x }}.{% endcall %}",
            "<⟦ab cd⟧.>",
        ),
        ("{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(**map) }}", "{'⟦k⟧': '⟦w⟧'}"),
        ("{% set x %}<{{ u }}>{% endset %}{{ x }}{{ x[1:] }}", "<⟦ab cd⟧>⟦ab cd⟧>"),
        ("{% filter upper %}a{{ u }}{% endfilter %}", "A⟦AB CD⟧"),
        (
            "{% set ns = namespace(t='') %}{% for i in list %}{% set ns.t = ns.t ~ '<' ~ i %}{% endfor %}{{ ns.t }}",
            "<⟦p⟧<⟦q⟧",
        ),
        ("{% set ns = namespace(**map) %}{{ ns }}", "<Namespace {'⟦k⟧': '⟦w⟧'}>"),
        ("{{ dict(a=u) }}{{ {u: 1} }}", "{'a': '⟦ab cd⟧'}{'⟦ab cd⟧': 1}"),
        ("{{ u == 'ab cd' }}{{ 'ab cd' in [u] }}{{ u is string }}{{ u | length }}", "TrueTrueTrue5"),
        ("{{ {'ab cd': 'own'}[u] }}", "own"),
        ("{{ strftime_now('%Y') }}{{ strftime_now(v) }}", "2026⟦x⟧"),
        ("{{ u | urlencode }}", "⟦ab%20cd⟧"),
        ("{{ {'a': u} | xmlattr }}", " a=\"⟦ab cd⟧\""),
        ("{{ u | string | safe | trim | replace('ab', 'z') }}", "z⟦ cd⟧"),
        ("{{ ('a\t' ~ v).expandtabs(3) }}", "a  ⟦x⟧"),
        ("{{ '' ~ '' }}{{ '' if u else u }}", ""),
    ] {
        assert_eq!(marked(template, &u), right, "{template}");
    }
}

#[test]
fn a_plain_role_is_the_templates_and_no_other_text() {
    let template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m.content }}{{ m.name }}{% endfor %}";
    let of = |message: Value| marked(template, &json!({"messages": [message]}));
    assert_eq!(of(json!({"role": "user", "content": "a"})), "<|user|>⟦a⟧");
    assert_eq!(of(json!({"role": "ipython_2-x", "content": "a"})), "<|ipython_2-x|>⟦a⟧");
    assert_eq!(of(json!({"role": "a|><|b", "content": "a"})), "<|⟦a|><|b⟧|>⟦a⟧");
    assert_eq!(of(json!({"role": "üser", "content": "a"})), "<|⟦üser⟧|>⟦a⟧");
    assert_eq!(of(json!({"role": "x".repeat(33), "content": ""})), format!("<|⟦{}⟧|>", "x".repeat(33)));
    assert_eq!(of(json!({"role": "user", "content": {"role": "user"}})), "<|user|>{'⟦role⟧': '⟦user⟧'}");
    assert_eq!(of(json!({"role": ["user"], "content": ""})), "<|['⟦user⟧']|>");
    let elsewhere = json!({"turns": [{"role": "user"}], "messages": []});
    assert_eq!(marked("{{ turns[0].role }}", &elsewhere), "⟦user⟧");
}

/// Replaces every text of the conversation, except keys and roles, by one of the same length from a
/// private-use area.
fn private(value: &Value, key: &str) -> Value {
    match value {
        // Fields whose values templates compare stay.
        Value::String(_) if matches!(key, "role" | "type" | "id" | "tool_call_id") => value.clone(),
        Value::String(text) => Value::String(
            text.chars()
                .map(|c| {
                    if c.is_alphanumeric() { char::from_u32(0xe000 + c as u32 % 64) } else { Some(c) }
                        .unwrap_or(c)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(|item| private(item, key)).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), private(value, key))).collect())
        }
        other => other.clone(),
    }
}

/// Returns the positions of the conversation's words in a prompt, in characters.
fn foreign_chars(rendered: &Rendered) -> Vec<(usize, usize)> {
    let count = |text: &str| text.chars().count();
    rendered
        .foreign
        .iter()
        .map(|run| (count(&rendered.text[..run.start]), count(&rendered.text[run.clone()])))
        .collect()
}

#[test]
fn every_chat_template_marks_the_conversations_words_and_nothing_else() {
    let mut prompts = 0;
    let mut moved = Vec::new();
    for (style, source) in styles() {
        let template = Template::parse(&source).unwrap_or_else(|e| panic!("{style}: {e}"));
        for conversation in conversations() {
            let render = |foreign: &Map<String, Value>| {
                template.render(&Input { trusted: &conversation.trusted, foreign }, &limits())
            };
            let Ok(rendered) = render(&conversation.foreign) else { continue };
            check(&rendered);
            let Value::Object(replaced) = private(&Value::Object(conversation.foreign.clone()), "") else {
                continue;
            };
            let Ok(other) = render(&replaced) else { continue };
            check(&other);
            prompts += 1;
            // No replaced word may be outside of the foreign ranges.
            let mut at = 0;
            for run in other.foreign.iter().chain([&(other.text.len()..other.text.len())]) {
                let own = &other.text[at..run.start];
                assert!(
                    !own.contains(|c: char| ('\u{e000}'..='\u{e03f}').contains(&c)),
                    "{style}, {}: {own:?}",
                    conversation.name
                );
                at = run.end;
            }
            if foreign_chars(&rendered) != foreign_chars(&other) {
                moved.push(format!("{style}, {}", conversation.name));
            }
        }
    }
    assert!(prompts > 500, "{prompts} prompts");
    // Some templates inspect the messages' text (a thought, an argument that is JSON), so a few prompts may
    // differ.
    assert!(
        moved.len() * 5 < prompts,
        "{} of {prompts} moved: {:?}",
        moved.len(),
        &moved[..moved.len().min(20)]
    );
}
