use realm_tokenizer::Conversation;
use serde_json::{Value, json};

use super::*;

fn told(messages: Value) -> Vec<Value> {
    let mut chat = Conversation {
        messages: messages.as_array().unwrap().clone(),
        tools: vec![json!({"type": "function", "function": {"name": "weather"}})],
        ..Conversation::default()
    };
    instruct(&mut chat);
    assert!(chat.tools.is_empty());
    chat.messages
}

#[test]
fn instructions_go_into_the_system_message() {
    let messages = told(json!([{"role": "user", "content": "Hi"}]));
    assert_eq!((messages.len(), &messages[0]["role"]), (2, &json!("system")));
    let content = messages[0]["content"].as_str().unwrap();
    assert!(content.contains("\n{\"type\":\"function\",\"function\":{\"name\":\"weather\"}}\n"));
    for role in ["system", "developer"] {
        let messages =
            told(json!([{"role": role, "content": "Be short."}, {"role": "user", "content": "Hi"}]));
        assert_eq!((messages.len(), &messages[0]["role"]), (2, &json!(role)));
        assert_eq!(messages[0]["content"], format!("Be short.\n\n{content}"));
    }
    let parts = told(json!([{"role": "system", "content": [{"type": "text", "text": "Be short."}]}]));
    assert_eq!(parts[0]["content"][1]["text"], content);
    // A value that is not a message stays, for the template to report.
    assert_eq!(told(json!(["odd"])).len(), 2);
}
