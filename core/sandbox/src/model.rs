//! A model as programs see it.

use std::sync::Arc;

use realm_engine::{Adapter, Engine, Grammar, Sampling};
use realm_model::Weights;
use realm_tokenizer::{ChatTemplate, Conversation, Rendered, Tokenizer};
use serde_json::Value;

use crate::Error;

/// A loaded model, which programs of all tenants share.
pub struct Model {
    /// The name that it was loaded by; tenants' limits use this name.
    pub name: String,
    /// The engine, which batches the work of all tenants.
    pub engine: Engine,
    /// The weights and their shape.
    pub weights: Box<dyn Weights>,
    /// Encodes text into tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Renders conversations as text, if the model has a template.
    pub template: Option<ChatTemplate>,
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
            None | Some(Grammar::JsonObject) => 0,
            Some(Grammar::JsonSchema(schema)) => json_memory(schema),
            Some(Grammar::Regex(text) | Grammar::Lark(text)) => text.capacity(),
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

impl Model {
    /// Returns the number of logits in a row: the tokens of the vocabulary, and in some models a few that
    /// stand for no token.
    pub fn vocabulary(&self) -> usize {
        self.weights.config().vocab
    }

    /// Renders a conversation with the chat template; the result marks which words are not the template's
    /// own.
    ///
    /// # Errors
    /// `Unsupported` without a template, `InvalidArgument` with the template's own error.
    pub fn render(&self, conversation: &Conversation) -> Result<Rendered, Error> {
        let template = self.template.as_ref().ok_or(realm_tokenizer::Error::NoTemplate)?;
        Ok(template.render(conversation)?)
    }

    /// Returns the tokens of a prompt.
    ///
    /// # Errors
    /// Same as [`render`](Self::render).
    pub fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, Error> {
        self.tokenize_at_most(prompt, usize::MAX)
    }

    /// Same as [`tokenize`](Self::tokenize), for a prompt of at most `most` tokens. A longer one is refused
    /// before all of it is tokenized.
    ///
    /// # Errors
    /// Same as [`tokenize`](Self::tokenize), and `LimitExceeded` for a longer prompt.
    pub fn tokenize_at_most(&self, prompt: &Prompt, most: usize) -> Result<Vec<u32>, Error> {
        Ok(match prompt {
            Prompt::Text(text) => {
                let tokens = self.tokenizer.encode_at_most(text, false, true, most);
                tokens.ok_or_else(|| prompt_too_long(text, most))?
            }
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Chat(conversation) => {
                let Rendered { text, foreign } = self.render(conversation)?;
                let tokens = self.tokenizer.encode_rendered_at_most(&text, &foreign, false, most);
                let mut tokens = tokens.ok_or_else(|| prompt_too_long(&text, most))?;
                // Most templates spell the begin token themselves.
                if let Some(bos) = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos())
                    && tokens.first() != Some(&bos)
                {
                    tokens.insert(0, bos);
                }
                tokens
            }
        })
    }
}

/// Returns the error for a prompt that was not tokenized to its end.
pub fn prompt_too_long(text: &str, most: usize) -> Error {
    let bytes = text.len();
    Error::limit(format!(
        "the prompt of {bytes} bytes has more than {most} tokens, far more than a request may have: shorten it"
    ))
}

/// The tokens or text that a request continues.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Text, as it is.
    Text(String),
    /// A conversation for the chat template.
    Chat(Conversation),
    /// Token ids.
    Tokens(Vec<u32>),
}

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
    pub input: serde_json::Value,
    /// The adapter of the sequences that the program opens, unless it names another.
    pub adapter: Option<(Adapter, f32)>,
    /// The number of tokens at the beginning of a sequence that may be shared with other tenants that mark
    /// the same tokens.
    pub shared_prefix: usize,
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
