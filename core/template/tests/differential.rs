//! The same templates give the same texts as jinja2 with the settings of transformers.
//! `ci/template-differential --update` writes jinja2's answers into `tests/differential`.

mod common;

use std::path::Path;

use common::{folder, read_json, render};
use realm_template::{Input, Template};
use serde_json::{Map, Value};

/// Reads lines of JSON.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Collects the differences between answers; where jinja2 gives an error, Realm has to give an error.
fn compare(
    differences: &mut Vec<String>,
    name: &str,
    right: &Value,
    got: Result<String, realm_template::Error>,
) {
    match (right.as_str(), got) {
        (Some(right), Ok(got)) if right == got => {}
        (None, Err(_)) => {}
        (right, got) => differences.push(format!("{name}\n  right {right:?}\n  got   {got:?}")),
    }
}

fn report(differences: &[String], of: usize) {
    assert!(of > 0, "nothing was compared");
    let shown = differences.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} of {of} differ from jinja2:\n{shown}", differences.len());
}

#[test]
fn expressions_give_what_jinja2_gives() {
    let variables = read_json("variables.json");
    let nothing = Map::new();
    let part = |name: &str| variables[name].as_object().unwrap_or(&nothing);
    let cases = lines(&folder().join("expressions.jsonl"));
    let mut differences = Vec::new();
    for case in &cases {
        let template = case["template"].as_str().expect("a template");
        let got = render(template, part("foreign"), part("trusted")).map(|rendered| rendered.text);
        compare(&mut differences, template, &case["text"], got);
    }
    assert!(cases.len() > 1000);
    report(&differences, cases.len());
}

#[test]
fn chat_templates_give_what_jinja2_gives() {
    let mut differences = Vec::new();
    let mut count = 0;
    for (style, source) in common::styles() {
        let template = Template::parse(&source).unwrap_or_else(|e| panic!("{style}: {e}"));
        let answers = lines(&folder().join("styles").join(format!("{style}.jsonl")));
        let conversations = common::conversations();
        assert_eq!(answers.len(), conversations.len(), "{style}");
        for (answer, conversation) in answers.iter().zip(conversations) {
            assert_eq!(answer["name"], conversation.name, "{style}");
            let input = Input { trusted: &conversation.trusted, foreign: &conversation.foreign };
            let got = template.render(&input, &common::limits()).map(|rendered| rendered.text);
            compare(&mut differences, &format!("{style}: {}", conversation.name), &answer["text"], got);
            count += 1;
        }
    }
    report(&differences, count);
}
