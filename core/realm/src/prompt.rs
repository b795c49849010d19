//! Prompts: a conversation rendered by the model's chat template, and tokens.

use realm_engine::Prompt as EnginePrompt;
use realm_handover::block_on;
use realm_tokenizer::Conversation;

use crate::error::ErrorCode;
use crate::model::{Inner, LocalModel};
use crate::tools::instruct;
use crate::{Error, Message, Model, Prompt, Request, SharedPrefix, ToolChoice};

impl Model {
    /// Renders a conversation with the model's chat template, ending with the start of the assistant's
    /// answer. The text is for reading only: it no longer shows which words are the template's and which a
    /// user's. Encoding it again would either let a user's words forge control tokens, or turn the template's
    /// control tokens into plain text. For tokens to give to the model, use
    /// [`render_tokens`](Self::render_tokens) or a request with the conversation.
    ///
    /// # Errors
    /// `unsupported` for a model without a template, `invalid-argument` with the template's own error.
    pub fn apply_chat_template(&self, messages: &[Message]) -> Result<String, Error> {
        self.render(&Request::chat(messages.iter().cloned()))
    }

    /// Same as [`apply_chat_template`](Self::apply_chat_template), with the tools, variables and other
    /// options of a request for [`Prompt::Chat`].
    ///
    /// # Errors
    /// Same as [`apply_chat_template`](Self::apply_chat_template), and `invalid-argument` for another kind of
    /// prompt.
    pub fn render(&self, request: &Request) -> Result<String, Error> {
        request.check_prompt()?;
        let model = match &self.inner {
            Inner::Local(model) => model,
            Inner::Remote(model) => {
                return Ok(block_on(model.served.render(model.equipped(request.clone())?))?.0);
            }
        };
        match model.engine_prompt(request)? {
            EnginePrompt::Chat(conversation) => Ok(model.loaded.render(&conversation)?.text),
            _ => Err(not_a_conversation()),
        }
    }

    /// Returns the token ids of a conversation, those that a request with it continues. Only the template can
    /// spell control tokens; messages, tools and documents cannot.
    ///
    /// # Errors
    /// Same as [`render`](Self::render).
    pub fn render_tokens(&self, request: &Request) -> Result<Vec<u32>, Error> {
        request.check_prompt()?;
        let model = match &self.inner {
            Inner::Local(model) => model,
            Inner::Remote(model) => {
                return Ok(block_on(model.served.render(model.equipped(request.clone())?))?.1);
            }
        };
        match model.engine_prompt(request)? {
            prompt @ EnginePrompt::Chat(_) => Ok(model.loaded.tokenize(&prompt)?),
            _ => Err(not_a_conversation()),
        }
    }
}

impl LocalModel {
    /// Returns the tokens that a request continues.
    pub(crate) fn prompt_tokens(&self, request: &Request) -> Result<Vec<u32>, Error> {
        let prompt = self.engine_prompt(request)?;
        self.prepare(request.prompt.bytes(), || Ok(self.loaded.tokenize(&prompt)?))
    }

    /// Prepares a request's prompt or grammar of this many bytes, in the tenant's turn if it is long.
    pub(crate) fn prepare<T: Send>(&self, bytes: usize, prepare: impl FnOnce() -> T + Send) -> T {
        self.frontend.background.prepare(&self.tenant.preparing, bytes, prepare)
    }

    /// Same as [`prompt_tokens`](Self::prompt_tokens), for a request that is about to start: a prompt far
    /// longer than the context is refused before all of it is tokenized.
    pub(crate) fn fitting_tokens(&self, request: &Request) -> Result<Vec<u32>, Error> {
        self.prepare(request.prompt.bytes(), || match &request.prompt {
            // Checked before they are copied: there may be far too many.
            Prompt::Text(text) => self.text_tokens(text, request.special),
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
            Prompt::Chat(_) => {
                Ok(self.loaded.tokenize_at_most(&self.engine_prompt(request)?, self.most_tokens())?)
            }
        })
    }

    /// Encodes a text, unless it is far too long.
    fn text_tokens(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        Ok(self.loaded.encode_at_most(text, special, self.most_tokens())?)
    }

    /// The most tokens of a prompt that are counted; the error for a longer one does not state its length.
    fn most_tokens(&self) -> usize {
        self.context_of_tenant().saturating_mul(4)
    }

    /// Returns the prompt of a request that the engine answers, with tools described in words where the
    /// template does not know them. A tenant's program gets the tools themselves and describes them as it
    /// likes.
    fn engine_prompt(&self, request: &Request) -> Result<EnginePrompt, Error> {
        Ok(match self.prompt(request)? {
            EnginePrompt::Chat(conversation) => EnginePrompt::Chat(self.describe_tools(conversation)),
            prompt => prompt,
        })
    }

    /// Returns the prompt of a request, as programs see it.
    pub(crate) fn prompt(&self, request: &Request) -> Result<EnginePrompt, Error> {
        Ok(match &request.prompt {
            Prompt::Text(text) if request.special => {
                EnginePrompt::Tokens(self.prepare(request.prompt.bytes(), || self.text_tokens(text, true))?)
            }
            Prompt::Text(text) => EnginePrompt::Text(text.clone()),
            Prompt::Tokens(tokens) => EnginePrompt::Tokens(tokens.clone()),
            Prompt::Chat(messages) => EnginePrompt::Chat(Conversation {
                messages: messages.iter().map(|m| m.0.clone()).collect(),
                tools: shown_tools(request).to_vec(),
                add_generation_prompt: request.add_generation_prompt,
                continue_final_message: request.continue_final_message,
                variables: request.variables(),
            }),
        })
    }

    /// Describes the tools in words, if the template has no place for them.
    fn describe_tools(&self, mut conversation: Conversation) -> Conversation {
        if !conversation.tools.is_empty() && !self.frontend.knows_tools {
            instruct(&mut conversation);
        }
        conversation
    }

    /// Returns the number of the prompt's tokens that may be shared with other tenants.
    pub(crate) fn shared_prefix(&self, request: &Request, prompt: &[u32]) -> Result<usize, Error> {
        match (request.shared_prefix, &request.prompt) {
            (SharedPrefix::Nothing, _) => Ok(0),
            (SharedPrefix::Tokens(tokens), _) => Ok(tokens.min(prompt.len())),
            (SharedPrefix::System, Prompt::Chat(messages)) => {
                let system: Vec<_> = messages.iter().take_while(|m| m.is_system()).cloned().collect();
                if system.is_empty() {
                    return Ok(0);
                }
                // The tokens that are the same for any user message.
                let mut shared = prompt.len();
                for word in ["a", "1"] {
                    let messages = system.iter().cloned().chain([Message::user(word)]);
                    let other = Request { prompt: Prompt::Chat(messages.collect()), ..request.clone() };
                    let other = self.prompt_tokens(&other)?;
                    shared = prompt.iter().zip(&other).take(shared).take_while(|(a, b)| a == b).count();
                }
                Ok(shared)
            }
            (SharedPrefix::System, _) => {
                let why = "only a conversation has a system message to share; say how many tokens instead";
                Err(Error::new(ErrorCode::InvalidArgument, why))
            }
        }
    }
}

impl Request {
    /// Refuses options that belong to another kind of prompt.
    pub(crate) fn check_prompt(&self) -> Result<(), Error> {
        let chat = matches!(self.prompt, Prompt::Chat(_));
        if !chat && (self.add_generation_prompt.is_some() || self.continue_final_message) {
            let why = "`add_generation_prompt` and `continue_final_message` are for conversations, and the prompt is none";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if self.special && !matches!(self.prompt, Prompt::Text(_)) {
            let why = "`special` is for a text: in a conversation the template's control tokens are parsed anyway, and what \
                       others say is never; token ids are taken as they are";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        Ok(())
    }
}

fn not_a_conversation() -> Error {
    Error::new(ErrorCode::InvalidArgument, "only a conversation can be rendered")
}

/// Returns the tools that the model sees.
pub(crate) fn shown_tools(request: &Request) -> &[serde_json::Value] {
    if request.tool_choice == ToolChoice::None { &[] } else { &request.tools }
}
