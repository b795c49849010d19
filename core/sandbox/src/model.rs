//! A model as programs see it.

use std::sync::Arc;

use realm_engine::{Adapter, Engine, Grammar, Sampling};
use realm_model::Weights;
use realm_tokenizer::{ChatTemplate, Conversation, Rendered, Tokenizer};

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
