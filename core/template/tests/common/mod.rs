//! Templates and conversations that several tests share.
#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]

use std::path::PathBuf;

use realm_template::{Error, Input, Limits, Rendered, Template};
use serde_json::{Map, Value, json};

/// The time at which jinja2's answers were recorded.
const CLOCK: &str = "2026-03-09T07:05:02.000123+00:00[UTC]";

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/differential")
}

pub fn read_json(name: &str) -> Value {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

pub fn limits() -> Limits {
    Limits { clock: Some(CLOCK.parse().expect("a time")), ..Limits::default() }
}

pub fn render(
    template: &str,
    foreign: &Map<String, Value>,
    trusted: &Map<String, Value>,
) -> Result<Rendered, Error> {
    Template::parse(template)?.render(&Input { trusted, foreign }, &limits())
}

/// Returns the chat templates by name.
pub fn styles() -> Vec<(String, String)> {
    let mut styles: Vec<_> = std::fs::read_dir(folder().join("styles"))
        .expect("the folder of templates")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jinja"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("a template"))
        })
        .collect();
    styles.sort();
    styles
}

pub struct Conversation {
    pub name: String,
    pub foreign: Map<String, Value>,
    pub trusted: Map<String, Value>,
}

/// Returns every shape of messages with every set of options, in the order of `ci/template_differential.py`.
pub fn conversations() -> Vec<Conversation> {
    let data = read_json("conversations.json");
    let mut conversations = Vec::new();
    for (shape, messages) in data["shapes"].as_object().expect("shapes") {
        for options in data["options"].as_array().expect("options") {
            let tools = if options["tools"] == true { data["tools"].clone() } else { Value::Null };
            let foreign = json!({"messages": messages, "documents": null, "tools": tools});
            let mut foreign = foreign.as_object().expect("an object").clone();
            foreign.extend(options["variables"].as_object().cloned().unwrap_or_default());
            let mut trusted = data["trusted"].as_object().expect("an object").clone();
            trusted.insert("add_generation_prompt".into(), options["add_generation_prompt"].clone());
            let name = format!("{shape}, {}", options["name"].as_str().expect("a name"));
            conversations.push(Conversation { name, foreign, trusted });
        }
    }
    conversations
}
