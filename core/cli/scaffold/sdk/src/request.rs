//! Requests, and constructors of their parts.

use crate::{Conversation, Error, Message, Prompt, Request, Result, Sampling};

impl Request {
    /// Returns the request's input, the application's message to the program beside the prompt, as a type of
    /// the program. Returns `T::default()` if there is none.
    ///
    /// # Errors
    /// `invalid-argument`, with the place where the JSON is not a `T`.
    #[cfg(feature = "json")]
    pub fn options<T: serde::de::DeserializeOwned + Default>(&self) -> Result<T> {
        if self.input.is_empty() || self.input == "null" {
            return Ok(T::default());
        }
        let unfit =
            |error| Error::invalid(format!("the request's input is not what this program takes: {error}"));
        serde_json::from_str(&self.input).map_err(unfit)
    }

    /// Returns the conversation to answer; a text prompt becomes a user message.
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
    /// Makes a conversation without tools.
    pub fn of(messages: impl IntoIterator<Item = Message>) -> Self {
        let messages = messages.into_iter().collect();
        Self { messages, tools: String::new(), variables: String::new() }
    }
}

impl Message {
    /// Makes a message of any role, without other fields.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), fields: String::new() }
    }

    /// Makes a user message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// Makes a system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// Makes an assistant message.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

impl Sampling {
    /// Always chooses the likeliest token.
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

    /// Returns the same sampling with the `n`th seed after this one: samples differ from each other, and are
    /// reproducible if the request has a seed.
    pub fn reseeded(&self, n: u64) -> Self {
        Self { seed: self.seed.map(|seed| seed.wrapping_add(n)), ..self.clone() }
    }
}
