//! What a request's prompt becomes: a conversation by the model's chat template, and tokens.

use realm_tokenizer::Conversation;

use crate::error::ErrorCode;
use crate::tools::instruct;
use crate::{Error, Message, Model, Prompt, Request, SharedPrefix, ToolChoice};

impl Model {
    /// The prompt that the model's chat template makes of a conversation, ending with the start of the
    /// assistant's answer, to look at. As text it no longer says which words are the template's and which a user's: encoded
    /// again, either a user's words could forge control tokens or the template's would be none. What the model is to read
    /// are the tokens, by [`render_tokens`](Self::render_tokens) or a request for the conversation.
    ///
    /// # Errors
    /// `unsupported` for a model without a template, `invalid-argument` with the template's own complaint.
    pub fn apply_chat_template(&self, messages: &[Message]) -> Result<String, Error> {
        self.render(&Request::chat(messages.iter().cloned()))
    }

    /// As [`apply_chat_template`](Self::apply_chat_template), with the tools, variables and other options of a request for
    /// [`Prompt::Chat`].
    ///
    /// # Errors
    /// As above, and `invalid-argument` for another kind of prompt.
    pub fn render(&self, request: &Request) -> Result<String, Error> {
        match self.told_prompt(request)? {
            realm_sandbox::Prompt::Chat(conversation) => Ok(self.shared.render(&conversation)?.text),
            _ => Err(not_a_conversation()),
        }
    }

    /// The token ids of what [`render`](Self::render) returns: what a request for the conversation goes on from. Control
    /// tokens are only those that the template spells, never what a message, a tool or a document does.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_tokens(&self, request: &Request) -> Result<Vec<u32>, Error> {
        match self.told_prompt(request)? {
            prompt @ realm_sandbox::Prompt::Chat(_) => Ok(self.shared.tokenize(&prompt)?),
            _ => Err(not_a_conversation()),
        }
    }

    /// The tokens that a request goes on from.
    pub(crate) fn prompt_tokens(&self, request: &Request) -> Result<Vec<u32>, Error> {
        Ok(self.shared.tokenize(&self.told_prompt(request)?)?)
    }

    /// As [`prompt_tokens`](Self::prompt_tokens), for a request that is about to start: a prompt that is far longer than the context
    /// is refused before all of it is tokenized.
    pub(crate) fn fitting_tokens(&self, request: &Request) -> Result<Vec<u32>, Error> {
        Self::check_prompt(request)?;
        match &request.prompt {
            // Without a copy first: they may be far too long.
            Prompt::Text(text) => self.text_tokens(text, request.special),
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
            Prompt::Chat(_) => {
                Ok(self.shared.tokenize_at_most(&self.told_prompt(request)?, self.most_tokens())?)
            }
        }
    }

    /// The tokens of a text that is not far too long.
    fn text_tokens(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let most = self.most_tokens();
        let tokens = self.shared.tokenizer.encode_at_most(text, special, true, most);
        Ok(tokens.ok_or_else(|| realm_sandbox::prompt_too_long(text, most))?)
    }

    /// Tokens of a prompt that are counted: of a longer one it is not said how long it is.
    fn most_tokens(&self) -> usize {
        self.context_of_tenant().saturating_mul(4)
    }

    /// The prompt of a request that the engine answers. A program sees the tools themselves, and tells the model of them as it
    /// likes.
    fn told_prompt(&self, request: &Request) -> Result<realm_sandbox::Prompt, Error> {
        Ok(match self.prompt(request)? {
            realm_sandbox::Prompt::Chat(told) => realm_sandbox::Prompt::Chat(self.tell_of_tools(told)),
            prompt => prompt,
        })
    }

    /// Refuses options that are for another kind of prompt.
    fn check_prompt(request: &Request) -> Result<(), Error> {
        let chat = matches!(request.prompt, Prompt::Chat(_));
        if !chat && (request.add_generation_prompt.is_some() || request.continue_final_message) {
            let why = "`add_generation_prompt` and `continue_final_message` are for conversations, and the prompt is none";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if request.special && !matches!(request.prompt, Prompt::Text(_)) {
            let why = "`special` is for a text: in a conversation the template's control tokens are parsed anyway, and what \
                       others say is never; token ids are taken as they are";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        Ok(())
    }

    /// The prompt of a request, as programs see it.
    pub(crate) fn prompt(&self, request: &Request) -> Result<realm_sandbox::Prompt, Error> {
        Self::check_prompt(request)?;
        Ok(match &request.prompt {
            Prompt::Text(text) if request.special => {
                realm_sandbox::Prompt::Tokens(self.text_tokens(text, true)?)
            }
            Prompt::Text(text) => realm_sandbox::Prompt::Text(text.clone()),
            Prompt::Tokens(tokens) => realm_sandbox::Prompt::Tokens(tokens.clone()),
            Prompt::Chat(messages) => realm_sandbox::Prompt::Chat(Conversation {
                messages: messages.iter().map(|m| m.0.clone()).collect(),
                tools: shown_tools(request).to_vec(),
                add_generation_prompt: request.add_generation_prompt,
                continue_final_message: request.continue_final_message,
                variables: request.variables(),
            }),
        })
    }

    /// Where the template knows no tools, has a conversation tell of them in words.
    fn tell_of_tools(&self, mut conversation: Conversation) -> Conversation {
        if !conversation.tools.is_empty() && !self.shared.knows_tools {
            instruct(&mut conversation);
        }
        conversation
    }

    /// How many tokens of a prompt may be shared with other tenants.
    pub(crate) fn shared_prefix(&self, request: &Request, prompt: &[u32]) -> Result<usize, Error> {
        match (request.shared_prefix, &request.prompt) {
            (SharedPrefix::Nothing, _) => Ok(0),
            (SharedPrefix::Tokens(tokens), _) => Ok(tokens.min(prompt.len())),
            (SharedPrefix::System, Prompt::Chat(messages)) => {
                let system: Vec<_> = messages.iter().take_while(|m| m.is_system()).cloned().collect();
                if system.is_empty() {
                    return Ok(0);
                }
                // What stays the same whatever the user says.
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

fn not_a_conversation() -> Error {
    Error::new(ErrorCode::InvalidArgument, "only a conversation can be rendered")
}

/// The tools that the model is told of.
pub(crate) fn shown_tools(request: &Request) -> &[serde_json::Value] {
    if request.tool_choice == ToolChoice::None { &[] } else { &request.tools }
}
