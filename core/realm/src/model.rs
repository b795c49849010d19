//! One set of weights, used by everybody.

use std::sync::Arc;

use realm_engine::{Engine, Metrics, Pooling, Speculation};
use realm_gguf::Gguf;
use realm_model::Weights;
use realm_tokenizer::Tokenizer;

use crate::answer::AnswerReader;
use crate::error::ErrorCode;
use crate::processors;
use crate::prompt::shown_tools;
use crate::tenant::Identity;
use crate::thought::{ThoughtSpelling, ThoughtStream};
use crate::tools::{ToolSpelling, ToolStream};
use crate::{
    Adapter, Completion, Error, Generation, Grammar, Program, Prompt, ReasoningFormat, Request, Sequence,
    SharedPrefix, ToolChoice,
};

/// A loaded model, as one tenant sees it. Cloning it is cheap and shares everything; the weights go when the last clone
/// and the last generation have gone.
#[derive(Clone)]
pub struct Model {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tenant: Arc<Identity>,
    /// What everything is seen through, unless a request names its own.
    pub(crate) adapter: Option<(realm_engine::Adapter, f32)>,
}

pub(crate) struct Shared {
    /// Engine, weights, tokenizer and template: what programs see too.
    pub(crate) inner: Arc<realm_sandbox::Model>,
    pub(crate) info: ModelInfo,
    /// How the chat template has tool calls spelled.
    pub(crate) tool_spelling: ToolSpelling,
    /// How it marks thoughts, where its chat template shows that.
    pub(crate) thought_spelling: Option<ThoughtSpelling>,
    /// Whether the chat template tells the model of tools.
    pub(crate) knows_tools: bool,
    /// Dropped last, when weights and KV cache are gone.
    pub(crate) _freed: Trim,
}

/// Has the allocator give back what a model left.
pub(crate) struct Trim;

impl Drop for Trim {
    fn drop(&mut self) {
        realm_compute::trim_memory();
    }
}

/// What a request with tools is told where the template knows none.
const NO_TOOLS: &str = "the model's chat template knows no tools: Realm tells the model of them in words, which works less well than \
     a model that was trained to call tools";

impl std::ops::Deref for Shared {
    type Target = realm_sandbox::Model;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

/// What a model is.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// `general.name` of the file.
    pub name: Option<String>,
    /// Such as `llama`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Tokens that one request may have, prompt and generation together.
    pub context_length: usize,
    /// Tokens that the model was trained for.
    pub trained_context_length: usize,
    /// Numbers in a hidden state, and so in an embedding.
    pub hidden: usize,
    /// How hidden states become an embedding: what the file says, or else their mean.
    pub pooling: Pooling,
    /// Whether it has a chat template.
    pub chat_template: bool,
    /// Where it runs.
    pub device: String,
}

impl ModelInfo {
    pub(crate) fn new(gguf: &Gguf, weights: &dyn Weights, engine: &Engine, chat_template: bool) -> Self {
        let config = weights.config();
        Self {
            name: config.name.clone(),
            architecture: config.architecture.to_string(),
            parameters: config.parameters,
            file_bytes: gguf.file_bytes(),
            vocabulary: config.vocab,
            layers: config.layers,
            context_length: engine.context_length(),
            trained_context_length: config.context_length,
            hidden: config.hidden,
            pooling: match config.pooling {
                Some(realm_model::Pooling::Cls) => Pooling::Cls,
                Some(realm_model::Pooling::Last) => Pooling::Last,
                Some(realm_model::Pooling::Mean) | None => Pooling::Mean,
            },
            chat_template,
            device: weights.device(),
        }
    }
}

impl Model {
    pub(crate) fn new(shared: Arc<Shared>, tenant: Arc<Identity>) -> Self {
        Self { shared, tenant, adapter: None }
    }

    /// The same model for another tenant.
    pub(crate) fn seen_by(&self, tenant: &Arc<Identity>) -> Self {
        self.shared.engine.expect(&tenant.inner);
        Self { tenant: Arc::clone(tenant), ..self.clone() }
    }

    /// The same model with an adapter, and a factor on what it adds: generations, scores, embeddings and sequences are the
    /// changed model's. A request that names an adapter has that one instead.
    pub fn adapted(&self, adapter: &Adapter, scale: f32) -> Self {
        Self { adapter: Some((adapter.inner.clone(), scale)), ..self.clone() }
    }

    /// What it was loaded by: a path, a catalog name or an `hf:` reference.
    pub fn reference(&self) -> &str {
        &self.shared.name
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// What it has done for all tenants since it was loaded, and how it stands.
    pub fn metrics(&self) -> Metrics {
        self.shared.engine.metrics()
    }

    /// Token ids of `text`, with the begin token where the model expects one. Control tokens spelled in the
    /// text are not parsed: see [`encode_special`](Self::encode_special).
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.shared.tokenizer.encode(text, false, true)
    }

    /// Token ids of `text`. With `special`, control tokens spelled in it become those tokens: only for text
    /// that no user wrote. With `boundaries`, the begin and end tokens are added where the model expects them.
    pub fn encode_special(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        self.shared.tokenizer.encode(text, special, boundaries)
    }

    /// The text of `tokens`; control tokens are left out.
    ///
    /// # Errors
    /// `invalid-argument` for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        Ok(self.shared.tokenizer.decode(tokens, false)?)
    }

    /// The tokenizer, for everything else.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// Starts a request and returns its stream at once.
    ///
    /// # Errors
    /// `invalid-argument` and `limit-exceeded` say what about the request is wrong, or which limit of the tenant it
    /// reached; `overloaded` if too many requests wait already.
    pub fn stream(&self, mut request: Request) -> Result<Generation, Error> {
        if !request.adapter_scale.is_finite() {
            let why = format!("adapter_scale is {}; it must be finite", request.adapter_scale);
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        realm_engine::check_stops(&request.stop)?;
        if let Some(program) = self.tenant.program() {
            return self.run_program(&program, request);
        }
        let tools = self.tools(&mut request)?;
        let warnings = self.warnings(&request);
        if !request.input.is_null() {
            let why = "`input` is for a program, and the tenant has none; see `Tenant::set_program`";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        let prompt = self.fitting_tokens(&request)?;
        let shared_prefix = self.shared_prefix(&request, &prompt)?;
        let adapter = self.adapter_of(&request);
        // Texts that nobody made a conversation of have no thoughts, and no marks of them.
        let spelling = self.shared.thought_spelling.as_ref();
        let spelling = spelling.filter(|_| matches!(request.prompt, Prompt::Chat(_)));
        let thought = spelling.and_then(|spelling| match final_words(&request) {
            Some(words) => spelling.going_on(words),
            None => Some(spelling.after(&prompt, &self.shared.tokenizer)),
        });
        let mut spelled = spelling.map_or_else(Vec::new, |spelling| spelling.control.clone());
        if tools.is_some() {
            spelled.extend(self.shared.tool_spelling.spelled());
        }
        let whole = request.reasoning_format == ReasoningFormat::Inline;
        let answer = AnswerReader {
            thought: match (spelling, &thought) {
                (Some(spelling), Some(thought)) => Some(ThoughtStream::new(spelling, thought.open, whole)),
                // What a model only thought of calling is no call, whatever its template shows.
                _ => tools.as_ref().map(|_| ThoughtStream::unknown()),
            },
            format: if thought.is_some() { request.reasoning_format } else { ReasoningFormat::Inline },
            tools,
            warnings,
            called: false,
        };
        let processors = std::mem::take(&mut request.logits_processors);
        let request = realm_engine::Request {
            prompt,
            sampling: request.sampling,
            max_tokens: request.max_tokens,
            stop: request.stop,
            logprobs: request.logprobs,
            grammar: request.grammar,
            ignore_eos: request.ignore_eos,
            special: false,
            spelled,
            thought,
            shared_prefix,
            adapter,
            speculation: request.speculation,
        };
        if !processors.is_empty() {
            return processors::start(self, request, processors, answer);
        }
        Ok(Generation::new(
            self.shared.engine.generate(&self.tenant.inner, request)?,
            answer,
            Arc::clone(&self.shared),
        ))
    }

    /// What reads calls out of the answer, where there may be some; a call that has to be becomes the grammar.
    fn tools(&self, request: &mut Request) -> Result<Option<ToolStream>, Error> {
        let spelling = &self.shared.tool_spelling;
        // What a schema guided is the answer that was asked for, even where it looks like a call.
        let answers = matches!(request.grammar, Some(Grammar::JsonSchema(_) | Grammar::JsonObject));
        if let Some(call) = request.tool_choice.grammar(&request.tools, spelling)?
            && request.grammar.replace(call).is_some()
        {
            let why = "tool_choice asks for a call, and the request has a grammar or a schema already";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if request.tools.is_empty() || request.tool_choice == ToolChoice::None || answers {
            return Ok(None);
        }
        Ok(Some(ToolStream::new(spelling, &request.tools)))
    }

    /// What a request asks for and is done in another way.
    fn warnings(&self, request: &Request) -> Vec<String> {
        let tells = matches!(request.prompt, Prompt::Chat(_)) && !shown_tools(request).is_empty();
        if tells && !self.shared.knows_tools {
            tracing::debug!(model = self.shared.name, "{NO_TOOLS}");
            return vec![NO_TOOLS.to_owned()];
        }
        Vec::new()
    }

    /// The adapter that a request is seen through: its own, or else the model's.
    fn adapter_of(&self, request: &Request) -> Option<(realm_engine::Adapter, f32)> {
        match &request.adapter {
            Some(adapter) => Some((adapter.inner.clone(), request.adapter_scale)),
            None => self.adapter.clone(),
        }
    }

    /// Tokens that a sequence of the tenant's may have.
    pub(crate) fn context_of_tenant(&self) -> usize {
        let context = self.shared.info.context_length;
        self.tenant.inner.limits().kv_tokens.map_or(context, |tokens| tokens.min(context))
    }

    /// Has a program of the tenant's answer a request.
    /// What it sends is its own, whatever tools the request has: it may have called them, and speak of that.
    fn run_program(&self, program: &Program, request: Request) -> Result<Generation, Error> {
        if matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Function(_)) {
            let why = "programs decide on calls themselves: leave `tool_choice` out, or tell them by `input`";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if !request.logits_processors.is_empty() {
            let why = "programs choose tokens themselves: leave `logits_processors` out";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if request.logprobs.is_some() || request.speculation.is_some_and(|s| s != Speculation::Off) {
            let why = "programs send no log-probabilities and decide on speculation themselves: leave `logprobs` and `speculation` out";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        let shared_prefix = match request.shared_prefix {
            SharedPrefix::Nothing => 0,
            _ => self.shared_prefix(&request, &self.fitting_tokens(&request)?)?,
        };
        let (prompt, adapter) = (self.prompt(&request)?, self.adapter_of(&request));
        let request = realm_sandbox::Request {
            prompt,
            sampling: request.sampling,
            max_tokens: request.max_tokens,
            stop: request.stop,
            grammar: request.grammar,
            ignore_eos: request.ignore_eos,
            input: request.input,
            adapter,
            shared_prefix,
        };
        let reply = program.run(Arc::clone(&self.shared.inner), &self.tenant, request)?;
        Ok(Generation::of_program(reply, Arc::clone(&self.shared)))
    }

    /// Runs a request to its end. Blocks.
    ///
    /// # Errors
    /// As [`stream`](Self::stream), and what ended the request early.
    pub fn generate(&self, request: Request) -> Result<Completion, Error> {
        self.stream(request)?.finish()
    }

    /// Runs a request to its end, for tasks.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub async fn generate_async(&self, request: Request) -> Result<Completion, Error> {
        self.stream(request)?.finish_async().await
    }

    /// An empty sequence that the caller drives forward by forward.
    ///
    /// # Errors
    /// `internal` if the engine has failed; with an [adapter](Self::adapted) `invalid-argument` for another model's and
    /// `limit-exceeded` for one that the tenant may not use.
    pub fn sequence(&self) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.shared.engine.sequence(&self.tenant.inner, self.adapter.clone(), 0)?;
        Ok(Sequence::new(inner, Arc::clone(&self.shared)))
    }

    /// A sequence from what [`Sequence::save`] wrote, in this realm or another one of the same
    /// [`snapshot_key`](crate::Builder::snapshot_key). If it was saved with an [adapter](Self::adapted), the model has to have the
    /// same one, equally scaled.
    ///
    /// # Errors
    /// `invalid-argument` for bytes that are not signed with the realm's key or were altered since, and for those of another
    /// model, device, cache type or adapter; `limit-exceeded` if it is longer than the context.
    pub fn restore_sequence(&self, bytes: &[u8]) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.shared.engine.restore(&self.tenant.inner, self.adapter.clone(), bytes)?;
        Ok(Sequence::new(inner, Arc::clone(&self.shared)))
    }

    /// As [`restore_sequence`](Self::restore_sequence), for bytes that a realm of another key saved. Their form is checked in full,
    /// so that they can harm no other request; whether their keys and values are what the model computes for their tokens, nobody
    /// can know. So the tenant's other requests find nothing of them in the prefix cache, and the sequence, saved again, is its
    /// tokens alone.
    ///
    /// # Errors
    /// `invalid-argument` for anything but a saved sequence of this model, device, cache type and adapter, `limit-exceeded` as
    /// above.
    pub fn restore_foreign_sequence(&self, bytes: &[u8]) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.shared.engine.restore_foreign(&self.tenant.inner, self.adapter.clone(), bytes)?;
        Ok(Sequence::new(inner, Arc::clone(&self.shared)))
    }
}

/// The words that the answer goes on with, where it does.
fn final_words(request: &Request) -> Option<&str> {
    match &request.prompt {
        Prompt::Chat(messages) if request.continue_final_message => {
            Some(messages.last()?.0["content"].as_str().unwrap_or_default())
        }
        _ => None,
    }
}
