//! Models: their text and tokens.

use std::sync::Arc;

use realm_engine::{LoadedModel, TextStream};
use wasmtime::component::Resource;

use crate::bindings::realm::tenant::models::{self as wit, ModelInfo, Piece};
use crate::bindings::realm::tenant::types;
use crate::convert::{check_text, prompt_from_wit};
use crate::error::HostError;
use crate::handles::{Model, TextDecoder};
use crate::request::json_bound;
use crate::state::State;
use crate::{Error, ErrorKind};

impl State {
    /// Returns the model behind a handle.
    pub(crate) fn model(&self, handle: &Resource<Model>) -> wasmtime::Result<&Arc<LoadedModel>> {
        Ok(&self.table.get(handle)?.0)
    }

    /// Creates a handle, for calls that cannot return an error for too many.
    fn new_handle<T: Send + 'static>(&mut self, value: T) -> wasmtime::Result<Resource<T>> {
        self.table.push(value).map_err(|error| HostError::from(error).fatal())
    }
}

impl wit::Host for State {}

impl wit::HostModel for State {
    fn current(&mut self) -> wasmtime::Result<Resource<Model>> {
        let model = Model(Arc::clone(&self.context.model));
        self.new_handle(model)
    }

    fn open(&mut self, name: String) -> Result<Resource<Model>, HostError> {
        let tenant = &self.context.tenant;
        if tenant.limits().models.is_some_and(|models| !models.contains(&name)) {
            let why = format!("tenant `{}` may not use the model `{name}`", tenant.name());
            return Err(Error::limit(why).into());
        }
        let none = || Error::new(ErrorKind::NotFound, format!("no model `{name}` is loaded"));
        let model = (self.context.models)(&name).ok_or_else(none)?;
        Ok(self.table.push(Model(model))?)
    }

    fn info(&mut self, this: Resource<Model>) -> wasmtime::Result<ModelInfo> {
        let model = self.model(&this)?;
        let config = model.weights.config();
        Ok(ModelInfo {
            name: model.name.clone(),
            architecture: config.architecture.to_string(),
            vocabulary: config.vocab as u32,
            layers: config.layers.len() as u32,
            hidden: config.hidden as u32,
            context_length: model.engine.context_length() as u32,
            bos: model.tokenizer.bos(),
            eos: model.tokenizer.eos(),
        })
    }

    async fn encode(&mut self, this: Resource<Model>, text: String) -> wasmtime::Result<Vec<u32>> {
        check_text(&text)?;
        self.context.budget.turn.step_aside(text.len()).await;
        Ok(self.model(&this)?.tokenizer.encode(&text, false, true))
    }

    async fn encode_piece(
        &mut self,
        this: Resource<Model>,
        text: String,
        special: bool,
    ) -> wasmtime::Result<Vec<u32>> {
        check_text(&text)?;
        self.context.budget.turn.step_aside(text.len()).await;
        Ok(self.model(&this)?.tokenizer.encode(&text, special, false))
    }

    fn decode(&mut self, this: Resource<Model>, tokens: Vec<u32>) -> Result<String, HostError> {
        check_tokens(&tokens)?;
        Ok(self.model(&this)?.tokenizer.decode(&tokens, false)?)
    }

    fn token_bytes(&mut self, this: Resource<Model>, token: u32) -> Result<Vec<u8>, HostError> {
        let mut bytes = Vec::new();
        self.model(&this)?.tokenizer.push_bytes(token, false, &mut bytes)?;
        Ok(bytes)
    }

    fn is_end(&mut self, this: Resource<Model>, token: u32) -> wasmtime::Result<bool> {
        Ok(self.model(&this)?.tokenizer.end_tokens().contains(&token))
    }

    async fn tokenize(
        &mut self,
        this: Resource<Model>,
        prompt: types::Prompt,
    ) -> Result<Vec<u32>, HostError> {
        // A template may make a long text of a short one.
        self.context.budget.turn.step_aside(usize::MAX).await;
        // The parsed prompt may take a hundred times as much memory.
        let _parsed = self.context.budget.charge(parsed_bound(&prompt))?;
        let model = self.model(&this)?;
        Ok(model.tokenize(&prompt_from_wit(prompt)?)?)
    }

    fn drop(&mut self, this: Resource<Model>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit::HostTextDecoder for State {
    fn new(&mut self, model: Resource<Model>, stop: Vec<String>) -> wasmtime::Result<Resource<TextDecoder>> {
        let model = Arc::clone(self.model(&model)?);
        realm_engine::check_stops(&stop).map_err(Error::from)?;
        // The decoder of so few bytes is small enough to be charged for after it is created.
        let stream = TextStream::new(&stop);
        let charge = self.context.budget.charge(size_of::<TextDecoder>() + stream.memory())?;
        self.new_handle(TextDecoder { stream, model, _charge: charge })
    }

    fn push(&mut self, this: Resource<TextDecoder>, token: u32) -> Result<Piece, HostError> {
        let TextDecoder { stream, model, .. } = self.table.get_mut(&this)?;
        if token as usize >= model.vocabulary() {
            return Err(unknown_token(token, model.vocabulary()).into());
        }
        let (text, stopped) = stream.push(token, &model.tokenizer, false);
        Ok(Piece { text, stopped })
    }

    fn finish(&mut self, this: Resource<TextDecoder>) -> wasmtime::Result<String> {
        Ok(self.table.get_mut(&this)?.stream.finish())
    }

    fn drop(&mut self, this: Resource<TextDecoder>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// The most tokens that one call works on: their text may be a hundred times as long.
const MAX_TOKENS: usize = 1 << 16;

pub(crate) fn unknown_token(token: u32, vocabulary: usize) -> Error {
    Error::invalid(format!("token {token} is not in the vocabulary of {vocabulary} tokens"))
}

/// Refuses a list of tokens that is too long to work on.
fn check_tokens(tokens: &[u32]) -> Result<(), Error> {
    if tokens.len() <= MAX_TOKENS {
        return Ok(());
    }
    Err(Error::limit(format!("{} tokens; one call takes {MAX_TOKENS} at most", tokens.len())))
}

/// Returns the most memory that the JSON of a prompt may take.
fn parsed_bound(prompt: &types::Prompt) -> usize {
    let types::Prompt::Chat(chat) = prompt else { return 0 };
    let fields = chat.messages.iter().map(|message| json_bound(&message.fields)).sum::<usize>();
    fields + json_bound(&chat.tools) + json_bound(&chat.variables)
}
