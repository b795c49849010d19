//! The capabilities of a chat template, found by rendering small conversations.

use realm_template::{Error, Input, Limits, Template};
use serde_json::{Map, Value, json};

use super::SpecialTexts;

/// Most steps that rendering a small conversation may take, and most bytes of its prompt.
const LIMITS: (u64, usize) = (200_000, 1 << 18);

const USER: &str = "Uq7x";
const OTHER: &str = "Oz3k";
const FUNCTION: &str = "fn_w5";
const KEY: &str = "key_j4";

/// The capabilities of a chat template. Conversations in OpenAI's format are converted to match them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Accepts a message's `content` as a string.
    pub text: bool,
    /// Accepts a message's `content` as a list of parts with `type` and `text`.
    pub parts: bool,
    /// Accepts messages of the role `system`. Otherwise they are put before the next user message.
    pub system: bool,
    /// Accepts messages of the role `developer`. Otherwise they become system messages.
    pub developer: bool,
    /// Uses the variable `tools`.
    pub tools: bool,
    /// Uses `tool_calls` of earlier messages. Otherwise calls are put into the message's text.
    pub tool_calls: bool,
    /// Accepts arguments of tool calls as objects.
    pub object_arguments: bool,
    /// Accepts arguments of tool calls as JSON in a string.
    pub text_arguments: bool,
    /// Accepts messages of the role `tool`. Otherwise a tool's result becomes a user message.
    pub tool_role: bool,
    /// Accepts a `content` of null in messages with tool calls. Otherwise it becomes an empty string.
    pub null_content: bool,
    /// Requires alternating roles. Consecutive messages of one role are joined.
    pub alternating: bool,
}

struct Probe<'a> {
    template: &'a Template,
    special: &'a SpecialTexts,
}

impl Capabilities {
    pub(super) fn of(template: &Template, source: &str, special: &SpecialTexts) -> Self {
        let probe = Probe { template, special };
        let user = json!({"role": "user", "content": USER});
        let text = probe.has(&[&user], &[USER]);
        let parts = probe.parts();
        let words = |words: &str| match text || !parts {
            true => json!(words),
            false => json!([{"type": "text", "text": words}]),
        };
        let said = |role: &str, content: &str| json!({"role": role, "content": words(content)});
        let user = said("user", USER);
        // A template that fails on these small conversations is assumed to accept everything.
        let unknown = probe.tried(&[&user]).is_none();
        let call = |arguments: Value, content: Value| {
            let function = json!({"name": FUNCTION, "arguments": arguments});
            let call = json!({"id": "abcdefghi", "type": "function", "function": function});
            json!({"role": "assistant", "content": content, "tool_calls": [call]})
        };
        let object = || json!({KEY: "value"});
        let spelled = || json!(object().to_string());
        let called = |arguments: Value, content: Value| probe.tried(&[&user, &call(arguments, content)]);
        let (as_object, as_text) = (called(object(), words("")), called(spelled(), words("")));
        let names_function =
            |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(FUNCTION));
        // An object printed in Python's format, or a string quoted once more, does not count as support.
        let object_arguments = as_object.as_ref().is_some_and(|text| {
            text.contains(FUNCTION) && text.contains(KEY) && !text.contains(&format!("'{KEY}'"))
        });
        let text_arguments = as_text.as_ref().is_some_and(|text| {
            text.contains(FUNCTION) && text.contains(KEY) && !text.contains(&format!("\\\"{KEY}"))
        });
        let arguments = || if object_arguments { object() } else { spelled() };
        let without = called(arguments(), Value::Null);
        let result =
            json!({"role": "tool", "content": words(OTHER), "name": FUNCTION, "tool_call_id": "abcdefghi"});
        let pair = [said("user", USER), said("user", OTHER)];
        let turns = [said("user", USER), said("assistant", OTHER), said("user", USER)];
        Self {
            text,
            parts,
            system: unknown || probe.has(&[&said("system", OTHER), &user], &[OTHER]),
            developer: source.contains("developer"),
            tools: probe.knows_tools(&user).unwrap_or_else(|| source.contains("tools")),
            tool_calls: unknown
                || source.contains("tool_calls")
                || [&as_object, &as_text, &without].into_iter().any(names_function),
            object_arguments,
            text_arguments,
            tool_role: unknown
                || ["'tool'", "\"tool\""].iter().any(|role| source.contains(role))
                || probe.has(&[&user, &call(arguments(), words("")), &result], &[OTHER]),
            null_content: match (called(arguments(), words("")), without) {
                (Some(empty), Some(null)) => {
                    empty == null || !(null.contains("None") || null.contains("null"))
                }
                (Some(_), None) => false,
                (None, _) => true,
            },
            alternating: probe.raises(&[&pair[0], &pair[1]])
                && probe.tried(&[&turns[0], &turns[1], &turns[2]]).is_some(),
        }
    }
}

impl Probe<'_> {
    /// Returns the prompt of some messages, if the template renders them.
    fn tried(&self, messages: &[&Value]) -> Option<String> {
        self.rendered(messages, Value::Null).ok()
    }

    /// Returns whether the template refuses some messages.
    fn raises(&self, messages: &[&Value]) -> bool {
        matches!(self.rendered(messages, Value::Null), Err(Error::Raised(_)))
    }

    fn rendered(&self, messages: &[&Value], tools: Value) -> Result<String, Error> {
        let mut foreign = Map::new();
        foreign.insert("messages".into(), messages.iter().map(|&message| message.clone()).collect());
        foreign.insert("tools".into(), tools);
        foreign.insert("documents".into(), Value::Null);
        let mut trusted = self.special.0.clone();
        trusted.insert("add_generation_prompt".into(), true.into());
        let limits = Limits { steps: LIMITS.0, bytes: LIMITS.1, ..Limits::default() };
        let rendered = self.template.render(&Input { trusted: &trusted, foreign: &foreign }, &limits)?;
        Ok(rendered.text)
    }

    /// Returns whether the prompt of some messages contains all of these words.
    fn has(&self, messages: &[&Value], words: &[&str]) -> bool {
        self.tried(messages).is_some_and(|text| words.iter().all(|word| text.contains(word)))
    }

    /// Returns whether lists of parts come out as their texts, rather than as a printed list, for every role.
    fn parts(&self) -> bool {
        let said = |role: &str, words: [&str; 2]| json!({"role": role, "content": words.map(|text| json!({"type": "text", "text": text}))});
        let words = [[USER, OTHER], ["Aa5b", "Ab6c"]];
        let text =
            self.tried(&[&said("user", words[0]), &said("assistant", words[1]), &said("user", words[0])]);
        text.is_some_and(|text| {
            words.iter().flatten().all(|word| text.contains(word))
                && !["'type'", "\"type\"", "'text'", "\"text\""].iter().any(|list| text.contains(list))
        })
    }

    /// Returns whether the prompt mentions a tool; `None` if there is no prompt.
    fn knows_tools(&self, user: &Value) -> Option<bool> {
        let parameters =
            json!({"type": "object", "properties": {KEY: {"type": "string"}}, "required": [KEY]});
        let function = json!({"name": FUNCTION, "description": OTHER, "parameters": parameters});
        let tools = json!([{"type": "function", "function": function}]);
        let text = self.rendered(&[user], tools).ok()?;
        Some(text.contains(FUNCTION) || text.contains(OTHER))
    }
}
