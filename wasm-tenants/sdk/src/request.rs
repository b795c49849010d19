//! Requests, and how to make parts of them.

use crate::{Conversation, Error, Message, Prompt, Request, Result, Sampling};

impl Request {
    /// What the application said to the program beside the prompt, as a type of the program's. `T::default()` if it said
    /// nothing.
    ///
    /// # Errors
    /// `invalid-argument` that says where the JSON is not a `T`.
    #[cfg(feature = "json")]
    pub fn options<T: serde::de::DeserializeOwned + Default>(&self) -> Result<T> {
        if self.input.is_empty() || self.input == "null" {
            return Ok(T::default());
        }
        let unfit =
            |error| Error::invalid(format!("the request's input is not what this program takes: {error}"));
        serde_json::from_str(&self.input).map_err(unfit)
    }

    /// The conversation to answer; a text counts as what the user says.
    ///
    /// # Errors
    /// `invalid-argument` for a prompt of tokens.
    pub fn conversation(&self) -> Result<Conversation> {
        match &self.prompt {
            Prompt::Chat(conversation) => Ok(conversation.clone()),
            Prompt::Text(text) => Ok(Conversation::of([Message::user(text.as_str())])),
            Prompt::Tokens(_) => {
                Err(Error::invalid("this program answers conversations, and the prompt is tokens"))
            }
        }
    }
}

impl Conversation {
    /// A conversation without tools.
    pub fn of(messages: impl IntoIterator<Item = Message>) -> Self {
        let messages = messages.into_iter().collect();
        Self { messages, tools: String::new(), variables: String::new() }
    }
}

impl Message {
    /// A message of any role, without other fields.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), fields: String::new() }
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model is told beforehand.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            banned: Vec::new(),
            seed: None,
        }
    }

    /// The same, with the `n`th seed after this one: samples that differ, and are the same ones again where the request has a
    /// seed.
    pub fn reseeded(&self, n: u64) -> Self {
        Self { seed: self.seed.map(|seed| seed.wrapping_add(n)), ..self.clone() }
    }
}
