//! Loaded models, and requests to them.

use std::sync::Arc;

use realm_engine::{Engine, Metrics, Pooling, Speculation};
use realm_gguf::Gguf;
use realm_model::Weights;
use realm_tokenizer::Tokenizer;

use crate::answer::AnswerReader;
use crate::background::Background;
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

/// A loaded model, as one tenant sees it. A clone is cheap and is the same model. The weights are freed when
/// the last clone and the last generation have been dropped.
#[derive(Clone)]
pub struct Model {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tenant: Arc<Identity>,
    /// The adapter, with its factor, of every request that names no adapter of its own.
    pub(crate) adapter: Option<(realm_engine::Adapter, f32)>,
}

pub(crate) struct Shared {
    /// Engine, weights, tokenizer and template; the sandbox gives programs the same value.
    pub(crate) inner: Arc<realm_sandbox::Model>,
    pub(crate) info: ModelInfo,
    /// The spelling of tool calls that the chat template shows.
    pub(crate) tool_spelling: ToolSpelling,
    /// The marks of thoughts, if the chat template shows any.
    pub(crate) thought_spelling: Option<ThoughtSpelling>,
    /// True if the chat template shows tools to the model.
    pub(crate) knows_tools: bool,
    pub(crate) background: Background,
    /// The last field, so that it is dropped after the weights and the KV cache.
    pub(crate) _freed: Trim,
}

/// Asks the allocator to return a dropped model's memory to the system.
pub(crate) struct Trim;

impl Drop for Trim {
    fn drop(&mut self) {
        realm_compute::trim_memory();
    }
}

/// The warning of a request with tools whose chat template has no place for them.
const NO_TOOLS: &str = "the model's chat template knows no tools: Realm tells the model of them in words, which works less well than \
     a model that was trained to call tools";

impl std::ops::Deref for Shared {
    type Target = realm_sandbox::Model;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The name in the file, `general.name`.
    pub name: Option<String>,
    /// The architecture, such as `llama`.
    pub architecture: String,
    /// The number of weights.
    pub parameters: u64,
    /// The size of the file, in bytes.
    pub file_bytes: u64,
    /// The size of the vocabulary, in tokens.
    pub vocabulary: usize,
    /// The number of transformer layers.
    pub layers: usize,
    /// The longest context of one request, prompt and generation together, in tokens.
    pub context_length: usize,
    /// The longest context that the model was trained for, in tokens.
    pub trained_context_length: usize,
    /// The length of a hidden state, and so of an embedding.
    pub hidden: usize,
    /// The default pooling of embeddings: as the file says, or else the mean of the hidden states.
    pub pooling: Pooling,
    /// True if the model has a chat template.
    pub chat_template: bool,
    /// The device that the model runs on.
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

    /// Returns the same model for another tenant.
    pub(crate) fn seen_by(&self, tenant: &Arc<Identity>) -> Self {
        self.shared.engine.expect(&tenant.inner);
        Self { tenant: Arc::clone(tenant), ..self.clone() }
    }

    /// Returns the same model with an adapter, and a factor on what the adapter adds. Generations, scores,
    /// embeddings and sequences are then those of the adapted model. A request that names an adapter gets
    /// that adapter instead.
    pub fn adapted(&self, adapter: &Adapter, scale: f32) -> Self {
        Self { adapter: Some((adapter.inner.clone(), scale)), ..self.clone() }
    }

    /// The reference that the model was loaded by: a path, a catalog name or an `hf:` reference.
    pub fn reference(&self) -> &str {
        &self.shared.name
    }

    /// Facts about the model, such as its architecture and its context length.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// Reads the model's counters and gauges, over all tenants since it was loaded.
    pub fn metrics(&self) -> Metrics {
        self.shared.engine.metrics()
    }

    /// Encodes `text` into token ids, with the begin token if the model expects one. Control tokens spelled
    /// in the text are encoded as plain text; [`encode_special`](Self::encode_special) can parse them.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.shared.tokenizer.encode(text, false, true)
    }

    /// Encodes `text` into token ids. With `special`, control tokens spelled in the text become those tokens:
    /// use it only for text that no user wrote. With `boundaries`, the begin and end tokens are added if the
    /// model expects them.
    pub fn encode_special(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        self.shared.tokenizer.encode(text, special, boundaries)
    }

    /// Decodes `tokens` into text, leaving out control tokens.
    ///
    /// # Errors
    /// `invalid-argument` for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        Ok(self.shared.tokenizer.decode(tokens, false)?)
    }

    /// The tokenizer, for everything beyond `encode` and `decode`.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// Starts a request and returns its stream at once.
    ///
    /// # Errors
    /// `invalid-argument` and `limit-exceeded` say what is wrong with the request, or which limit of the
    /// tenant it reached; `overloaded` if too many requests wait already.
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
        // A prompt of plain text is not a conversation, so nothing in its continuation is a thought's mark.
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
                // Tool calls inside a thought are not calls, even if the template shows no thoughts.
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

    /// Returns the reader of tool calls, if the answer may have any; a required call becomes the request's
    /// grammar.
    fn tools(&self, request: &mut Request) -> Result<Option<ToolStream>, Error> {
        let spelling = &self.shared.tool_spelling;
        // Text guided by a schema is the answer itself, even if it looks like a call.
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

    /// Returns warnings about options that Realm can only serve in another way.
    fn warnings(&self, request: &Request) -> Vec<String> {
        let tells = matches!(request.prompt, Prompt::Chat(_)) && !shown_tools(request).is_empty();
        if tells && !self.shared.knows_tools {
            tracing::debug!(model = self.shared.name, "{NO_TOOLS}");
            return vec![NO_TOOLS.to_owned()];
        }
        Vec::new()
    }

    /// Returns the adapter of a request: its own, or else the model's.
    fn adapter_of(&self, request: &Request) -> Option<(realm_engine::Adapter, f32)> {
        match &request.adapter {
            Some(adapter) => Some((adapter.inner.clone(), request.adapter_scale)),
            None => self.adapter.clone(),
        }
    }

    /// Returns the longest sequence that the tenant may have, in tokens.
    pub(crate) fn context_of_tenant(&self) -> usize {
        let context = self.shared.info.context_length;
        self.tenant.inner.limits().kv_tokens.map_or(context, |tokens| tokens.min(context))
    }

    /// Runs a tenant's program to answer a request. The program's output is not searched for tool calls: the
    /// program may have called the tools itself and write about that.
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
    /// Same as [`stream`](Self::stream), and the error that ended the request early.
    pub fn generate(&self, request: Request) -> Result<Completion, Error> {
        self.stream(request)?.finish()
    }

    /// Runs a request to its end, for tasks.
    ///
    /// # Errors
    /// Same as [`generate`](Self::generate).
    pub async fn generate_async(&self, request: Request) -> Result<Completion, Error> {
        self.stream(request)?.finish_async().await
    }

    /// Creates an empty sequence that the caller drives, one forward pass at a time.
    ///
    /// # Errors
    /// `internal` if the engine has failed. With an [adapter](Self::adapted), `invalid-argument` if it
    /// belongs to another model and `limit-exceeded` if the tenant may not use it.
    pub fn sequence(&self) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.shared.engine.sequence(&self.tenant.inner, self.adapter.clone(), 0)?;
        Ok(Sequence::new(inner, Arc::clone(&self.shared)))
    }

    /// Restores a sequence from the bytes of [`Sequence::save`], written by this realm or by another one with
    /// the same [`snapshot_key`](crate::Builder::snapshot_key). A sequence saved with an
    /// [adapter](Self::adapted) needs a model with the same adapter and the same factor.
    ///
    /// # Errors
    /// `invalid-argument` for bytes that are not signed with the realm's key or were changed since, and for
    /// bytes of another model, device, cache type or adapter; `limit-exceeded` if the sequence is longer than
    /// the context.
    pub fn restore_sequence(&self, bytes: &[u8]) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.shared.engine.restore(&self.tenant.inner, self.adapter.clone(), bytes)?;
        Ok(Sequence::new(inner, Arc::clone(&self.shared)))
    }

    /// Restores a sequence that a realm with another key saved; for one with the same key use
    /// [`restore_sequence`](Self::restore_sequence). The format of the bytes is checked in full, so they
    /// cannot harm another request. But Realm cannot check that the keys and values in them are those that
    /// the model computes for the tokens. Therefore they never enter the prefix cache, where the tenant's
    /// other requests would find them, and saving the sequence again saves only its tokens.
    ///
    /// # Errors
    /// `invalid-argument` for anything but a saved sequence of this model, device, cache type and adapter;
    /// `limit-exceeded` if the sequence is longer than the context.
    pub fn restore_foreign_sequence(&self, bytes: &[u8]) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.shared.engine.restore_foreign(&self.tenant.inner, self.adapter.clone(), bytes)?;
        Ok(Sequence::new(inner, Arc::clone(&self.shared)))
    }
}

/// Returns the words that the answer continues, if the request asks for that.
fn final_words(request: &Request) -> Option<&str> {
    match &request.prompt {
        Prompt::Chat(messages) if request.continue_final_message => {
            Some(messages.last()?.0["content"].as_str().unwrap_or_default())
        }
        _ => None,
    }
}
