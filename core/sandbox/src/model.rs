//! A model as programs see it.

use std::sync::Arc;

use realm_engine::{Adapter, Engine, Grammar, Sampling};
use realm_model::Weights;
use realm_tokenizer::{ChatTemplate, Conversation, Rendered, Tokenizer};
use serde_json::Value;

use crate::Error;

/// A loaded model: what programs of all tenants share.
pub struct Model {
    /// What it was loaded by, which tenants' limits name.
    pub name: String,
    /// Batches everybody's work.
    pub engine: Engine,
    /// The weights and their shape.
    pub weights: Box<dyn Weights>,
    /// From text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// From conversations to text, where the model has a template.
    pub template: Option<ChatTemplate>,
}

impl Request {
    /// Bytes of memory that it takes.
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

/// Bytes of memory that a JSON value takes, itself included.
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

/// What the allocator adds to an allocation.
const ALLOCATION: usize = 16;

fn text_memory(text: &String) -> usize {
    text.capacity() + ALLOCATION
}

/// Bytes of memory of an object's table of so many entries: a hash, a key and a value for each, with room to grow, and places to find
/// them by, a power of two.
fn object_memory(entries: usize) -> usize {
    if entries == 0 {
        return 0;
    }
    let places = (entries * 8).div_ceil(7).next_power_of_two().max(4);
    let entry = size_of::<u64>() + size_of::<String>() + size_of::<Value>();
    places * 7 / 8 * entry + places * (size_of::<usize>() + 1) + 2 * ALLOCATION
}

/// The most memory that the value of a JSON text may take, as its brackets and commas say.
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
            // An entry more, in a table that may just have doubled.
            b',' if !quoted => bytes += object_memory(1) * 2 / 3,
            b'[' if !quoted => bytes += 4 * size_of::<Value>() + ALLOCATION,
            _ => {}
        }
    }
    bytes
}

impl Model {
    /// Numbers that logits have: tokens of the vocabulary, and perhaps some that stand for none.
    pub fn vocabulary(&self) -> usize {
        self.weights.config().vocab
    }

    /// The prompt that the chat template makes of a conversation, and which of it are others' words.
    ///
    /// # Errors
    /// `Unsupported` without a template, `InvalidArgument` with the template's complaint.
    pub fn render(&self, conversation: &Conversation) -> Result<Rendered, Error> {
        let template = self.template.as_ref().ok_or(realm_tokenizer::Error::NoTemplate)?;
        Ok(template.render(conversation)?)
    }

    /// The tokens that a prompt stands for.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, Error> {
        self.tokenize_at_most(prompt, usize::MAX)
    }

    /// As [`tokenize`](Self::tokenize), of a prompt that may have `most` tokens. A longer one is refused before all of it is
    /// tokenized.
    ///
    /// # Errors
    /// As above, and `LimitExceeded` for a longer one.
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

/// What is said of a prompt that was not tokenized to its end.
pub fn prompt_too_long(text: &str, most: usize) -> Error {
    let bytes = text.len();
    Error::limit(format!(
        "the prompt of {bytes} bytes has more than {most} tokens, far more than a request may have: shorten it"
    ))
}

/// What a request goes on from.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Text as it is.
    Text(String),
    /// A conversation for the chat template.
    Chat(Conversation),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// What a program is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to go on from.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens to generate at most.
    pub max_tokens: Option<usize>,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// What the text has to spell.
    pub grammar: Option<Grammar>,
    /// Go on after an end token.
    pub ignore_eos: bool,
    /// What else the application says to the program.
    pub input: serde_json::Value,
    /// The adapter of the sequences that the program opens, unless it names another.
    pub adapter: Option<(Adapter, f32)>,
    /// So many tokens at the beginning of sequences may be shared with other tenants who say the same.
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
        // What is quoted counts as text alone.
        assert!(json_bound(&format!("\"{}\"", "{[,".repeat(1000))) < 4000);
    }
}
