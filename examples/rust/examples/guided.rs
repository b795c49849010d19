//! An answer that always fits a JSON schema.
//!
//!     cargo run --release -p realm-examples --example guided [MODEL]

use std::error::Error;

use realm::{Message, Realm, Request};
use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or("qwen2.5-coder-0.5b".into());
    let model = Realm::builder().build()?.load_model(&name)?;
    let schema = json!({
        "type": "object",
        "required": ["city", "country", "population"],
        "additionalProperties": false,
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "country": {"type": "string", "maxLength": 30},
            "population": {"type": "integer", "minimum": 0, "maximum": 100000000},
        },
    });
    let question = Request::chat([Message::user("Tell me about the capital of France, as JSON.")]);
    let answer = model.generate(question.temperature(0.0).max_tokens(200).json_schema(schema))?;
    let fields: Map<String, Value> = serde_json::from_str(&answer.text)?;
    for (key, value) in fields {
        println!("{key}: {}", value.as_str().map_or(value.to_string(), str::to_owned));
    }
    Ok(())
}
