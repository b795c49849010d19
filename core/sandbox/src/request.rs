//! A request to a program, and the memory that requests and their JSON take.

use realm_engine::{Adapter, Grammar, Prompt, Sampling};
use serde_json::Value;

/// A request to a program.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt to continue.
    pub prompt: Prompt,
    /// Temperature and the other options that choose tokens.
    pub sampling: Sampling,
    /// The most tokens to generate.
    pub max_tokens: Option<usize>,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// The grammar that the text has to follow.
    pub grammar: Option<Grammar>,
    /// True to continue after an end token.
    pub ignore_eos: bool,
    /// Further input of the application for the program.
    pub input: Value,
    /// The adapter of the sequences that the program opens, unless it names another.
    pub adapter: Option<(Adapter, f32)>,
    /// The number of tokens at the beginning of a sequence that may be shared with other tenants that mark
    /// the same tokens.
    pub shared_prefix: usize,
}

impl Request {
    /// Returns the bytes of memory that the request takes.
    pub(crate) fn memory(&self) -> usize {
        let prompt = match &self.prompt {
            Prompt::Text(text) => text.capacity(),
            Prompt::Tokens(tokens) => tokens.capacity() * size_of::<u32>(),
            Prompt::Chat(chat) => {
                let variables = chat.variables.iter().map(|(key, value)| key.capacity() + json_memory(value));
                let lists = chat.messages.iter().chain(&chat.tools).map(json_memory);
                lists.chain(variables).sum()
            }
        };
        let stop: usize = self.stop.iter().map(|stop| stop.capacity() + size_of::<String>()).sum();
        let grammar = match &self.grammar {
            Some(Grammar::JsonSchema(schema)) => json_memory(schema),
            Some(Grammar::Regex(text) | Grammar::Lark(text)) => text.capacity(),
            // A kind that programs cannot be given ends the run before it holds the request.
            Some(_) | None => 0,
        };
        size_of::<Self>() + prompt + self.sampling.memory() + stop + grammar + json_memory(&self.input)
    }
}

/// Returns the bytes of memory that a JSON value takes, itself included.
pub(crate) fn json_memory(value: &Value) -> usize {
    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text_memory(text),
        Value::Array(values) => {
            let spare = values.capacity() - values.len();
            values.iter().map(json_memory).sum::<usize>() + spare * size_of::<Value>() + ALLOCATION
        }
        Value::Object(map) => {
            let inner =
                |(key, value): (&String, &Value)| text_memory(key) + json_memory(value) - size_of::<Value>();
            object_memory(map.len()) + map.iter().map(inner).sum::<usize>()
        }
    };
    size_of::<Value>() + inner
}

/// The bytes that the allocator adds to an allocation.
const ALLOCATION: usize = 16;

fn text_memory(text: &String) -> usize {
    text.capacity() + ALLOCATION
}

/// Returns the bytes of an object's table with this number of entries: a hash, a key and a value for each,
/// room to grow, and an index whose size is a power of two.
fn object_memory(entries: usize) -> usize {
    if entries == 0 {
        return 0;
    }
    let places = (entries * 8).div_ceil(7).next_power_of_two().max(4);
    let entry = size_of::<u64>() + size_of::<String>() + size_of::<Value>();
    places * 7 / 8 * entry + places * (size_of::<usize>() + 1) + 2 * ALLOCATION
}

/// Returns the most memory that the value of a JSON text may take, judged by its brackets and commas.
pub(crate) fn json_bound(text: &str) -> usize {
    let (mut bytes, mut quoted, mut escaped) = (text.len() + size_of::<Value>(), false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => {
                quoted = !quoted;
                bytes += if quoted { ALLOCATION } else { 0 };
            }
            b'{' if !quoted => bytes += object_memory(1),
            // One more entry, in a table that may just have doubled.
            b',' if !quoted => bytes += object_memory(1) * 2 / 3,
            b'[' if !quoted => bytes += 4 * size_of::<Value>() + ALLOCATION,
            _ => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_json_takes_more_than_its_text_lets_expect() {
        let texts = [
            "[[],[],[],[]]".to_owned(),
            format!("[{}0]", r#"{"a":0},"#.repeat(1000)),
            format!("[{}0]", "0,".repeat(1025)),
            format!("{{{}\"z\":0}}", (0..1025).map(|i| format!("\"{i}\":[],")).collect::<String>()),
            r#"["{,,,[[[\"{{{", "\\"]"#.to_owned(),
        ];
        for text in texts {
            let value = serde_json::from_str(&text).unwrap();
            let (real, bound) = (json_memory(&value), json_bound(&text));
            assert!(real <= bound, "{real} of {bound}: {}", &text[..text.len().min(60)]);
        }
        // Quoted brackets count as text only.
        assert!(json_bound(&format!("\"{}\"", "{[,".repeat(1000))) < 4000);
    }
}
