//! Models and their adapters.

use std::path::PathBuf;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use realm::{EmbedOptions, Pooling, unblock};

use crate::array::Array;
use crate::errors::Result;
use crate::generation::{Completion, Generation, TokenLogprob, logprobs};
use crate::handle::{Handle, not_picklable};
use crate::metrics::Metrics;
use crate::record::record;
use crate::request::{json, request};
use crate::sequence::Sequence;
use crate::tokenizer::Tokenizer;
use crate::wait::{Awaitable, wait};

record! {
    /// What a model is.
    ModelInfo {
        /// `general.name` of the file.
        name: Option<String>,
        /// Such as `llama`.
        architecture: String,
        /// Number of weights.
        parameters: u64,
        /// Bytes of the file.
        file_bytes: u64,
        /// Tokens in the vocabulary.
        vocabulary: usize,
        /// Transformer layers.
        layers: usize,
        /// Tokens that one request may have, prompt and generation together.
        context_length: usize,
        /// Tokens that the model was trained for.
        trained_context_length: usize,
        /// Numbers in a hidden state, and so in an embedding.
        hidden: usize,
        /// How hidden states become an embedding: `"mean"`, `"last"` or `"cls"`.
        pooling: &'static str,
        /// Whether it has a chat template.
        chat_template: bool,
        /// Where it runs.
        device: String,
    }
}

record! {
    /// What a GGUF file holds.
    FileInfo {
        /// `general.name` of the file.
        name: Option<String>,
        /// Such as `llama`.
        architecture: String,
        /// Number of weights.
        parameters: u64,
        /// Transformer layers.
        layers: usize,
        /// Tokens in the vocabulary.
        vocabulary: usize,
        /// Tokens that the model was trained for.
        trained_context_length: usize,
        /// Whether it has a chat template.
        chat_template: bool,
        /// For each tensor type its name, number of tensors and bytes, largest first.
        tensor_types: Vec<(String, usize, u64)>,
    }
}

record! {
    /// What a model says of one position of a text.
    Scored {
        /// The log-probability of the token that follows in the text, in nats; `None` after the last one.
        next: Option<f32>,
        /// The likeliest tokens in its place, likeliest first.
        top: Vec<Py<TokenLogprob>>,
    }
}

/// Reads a GGUF file's header, without loading the model.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, path: PathBuf) -> Result<FileInfo> {
    let info = py.detach(|| realm::inspect(&path))?;
    let realm::FileInfo {
        name, architecture, parameters, layers, vocabulary, trained_context_length, ..
    } = info;
    let (chat_template, tensor_types) = (info.chat_template, info.tensor_types);
    Ok(FileInfo {
        name,
        architecture,
        parameters,
        layers,
        vocabulary,
        trained_context_length,
        chat_template,
        tensor_types,
    })
}

/// A LoRA adapter on a model. It is unloaded when nobody holds it any more and the last request that uses it has ended.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Adapter {
    pub(crate) handle: Handle<realm::Adapter>,
}

#[pymethods]
impl Adapter {
    /// What it was loaded by, which tenants' limits name.
    #[getter]
    fn name(&self) -> PyResult<String> {
        Ok(self.handle.get()?.name().to_owned())
    }

    /// Its largest rank.
    #[getter]
    fn rank(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.rank())
    }

    /// Bytes that its matrices take.
    #[getter]
    fn bytes(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.bytes())
    }

    /// Gives it back.
    fn close(&self, py: Python<'_>) {
        self.handle.close(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.handle.close(py);
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Adapter"))
    }
}

/// One set of weights, used by everybody, as one tenant sees it. The weights go when it is closed or dropped everywhere and the
/// last generation has ended. Any number of threads and tasks may ask it at once.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Model {
    pub(crate) handle: Handle<realm::Model>,
}

impl Model {
    pub(crate) fn new(model: realm::Model) -> Self {
        Self { handle: Handle::new("Model", model) }
    }
}

/// What a text or token ids are as tokens.
fn tokens(model: &realm::Model, text: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    match text.extract::<String>() {
        Ok(words) => Ok(text.py().detach(|| model.encode(&words))),
        Err(_) => text.extract().map_err(|_| PyTypeError::new_err("a str or a list of token ids is needed")),
    }
}

fn embed_options(pooling: Option<&str>, normalize: bool) -> Result<EmbedOptions> {
    let pooling = pooling.map(str::parse::<Pooling>).transpose().map_err(realm::Error::from)?;
    Ok(EmbedOptions { pooling, normalize })
}

fn scores(py: Python<'_>, scores: Vec<realm::Scored>) -> PyResult<Vec<Scored>> {
    scores.iter().map(|score| Ok(Scored { next: score.next, top: logprobs(py, &score.top)? })).collect()
}

#[pymethods]
impl Model {
    /// Answers a prompt: text, messages (dicts with `role` and `content`) or token ids.
    #[pyo3(signature = (prompt, **options))]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Completion> {
        let (model, request) = (self.handle.get()?, request(prompt, options)?);
        let generation = py.detach(|| model.stream(request))?;
        Generation::new(generation).finish(py)
    }

    /// As `generate`, to be awaited.
    #[pyo3(signature = (prompt, **options))]
    fn generate_async(
        &self,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Awaitable> {
        let (model, request) = (self.handle.get()?, request(prompt, options)?);
        let future = async move { unblock(move || model.stream(request)).await?.finish_async().await };
        Ok(Awaitable::new(future, Completion::convert))
    }

    /// Starts to answer a prompt, and returns at once what to iterate over.
    #[pyo3(signature = (prompt, **options))]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Generation> {
        let (model, request) = (self.handle.get()?, request(prompt, options)?);
        Ok(Generation::new(py.detach(|| model.stream(request))?))
    }

    /// As `stream`, to be awaited: a long prompt is encoded, and a grammar compiled, on another thread than the event loop's.
    #[pyo3(signature = (prompt, **options))]
    fn stream_async(
        &self,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Awaitable> {
        let (model, request) = (self.handle.get()?, request(prompt, options)?);
        Ok(Awaitable::new(unblock(move || model.stream(request)), Generation::convert))
    }

    /// One vector for a text or token ids, `[hidden]`.
    #[pyo3(signature = (text, *, pooling=None, normalize=true))]
    fn embed(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        pooling: Option<&str>,
        normalize: bool,
    ) -> Result<Array> {
        let (model, options) = (self.handle.get()?, embed_options(pooling, normalize)?);
        let tokens = tokens(&model, text)?;
        Ok(Array::vector(wait(py, model.embed_async(&tokens, &options))??))
    }

    /// As `embed`, to be awaited.
    #[pyo3(signature = (text, *, pooling=None, normalize=true))]
    fn embed_async(
        &self,
        text: &Bound<'_, PyAny>,
        pooling: Option<&str>,
        normalize: bool,
    ) -> PyResult<Awaitable> {
        let (model, options) = (self.handle.get()?, embed_options(pooling, normalize)?);
        let tokens = tokens(&model, text)?;
        let future = async move { model.embed_async(&tokens, &options).await };
        Ok(Awaitable::new(future, |py, values| Array::vector(values).into_py_any(py)))
    }

    /// For each token of a text, or of token ids, the log-probability of the one that follows, and the `top` likeliest.
    #[pyo3(signature = (text, *, top=0))]
    fn score(&self, py: Python<'_>, text: &Bound<'_, PyAny>, top: usize) -> Result<Vec<Scored>> {
        let model = self.handle.get()?;
        let tokens = tokens(&model, text)?;
        Ok(scores(py, wait(py, model.score_async(&tokens, top))??)?)
    }

    /// As `score`, to be awaited.
    #[pyo3(signature = (text, *, top=0))]
    fn score_async(&self, text: &Bound<'_, PyAny>, top: usize) -> PyResult<Awaitable> {
        let model = self.handle.get()?;
        let tokens = tokens(&model, text)?;
        let future = async move { model.score_async(&tokens, top).await };
        Ok(Awaitable::new(future, |py, found| scores(py, found)?.into_py_any(py)))
    }

    /// The log-probability of each token of `continuation` after `prompt`, in nats; both are token ids.
    fn log_likelihood(&self, py: Python<'_>, prompt: Vec<u32>, continuation: Vec<u32>) -> Result<Vec<f32>> {
        let model = self.handle.get()?;
        Ok(wait(py, model.log_likelihood_async(&prompt, &continuation))??)
    }

    /// As `log_likelihood`, to be awaited.
    fn log_likelihood_async(&self, prompt: Vec<u32>, continuation: Vec<u32>) -> PyResult<Awaitable> {
        let model = self.handle.get()?;
        let future = async move { model.log_likelihood_async(&prompt, &continuation).await };
        Ok(Awaitable::new(future, |py, values| values.into_py_any(py)))
    }

    /// Token ids of a text, with the begin token where the model expects one. With `special`, control tokens spelled in it become
    /// those tokens: only for text that no user wrote. Without `boundaries`, no begin or end token is added.
    #[pyo3(signature = (text, *, special=false, boundaries=true))]
    fn encode(&self, py: Python<'_>, text: &str, special: bool, boundaries: bool) -> PyResult<Vec<u32>> {
        let model = self.handle.get()?;
        Ok(py.detach(|| model.encode_special(text, special, boundaries)))
    }

    /// The text of token ids. Control tokens are left out, unless `special`.
    #[pyo3(signature = (tokens, *, special=false))]
    fn decode(&self, py: Python<'_>, tokens: Vec<u32>, special: bool) -> Result<String> {
        let model = self.handle.get()?;
        let text = py.detach(|| model.tokenizer().decode(&tokens, special));
        Ok(text.map_err(realm::Error::from)?)
    }

    /// The prompt that the model's chat template makes of messages, with the start of the assistant's answer; with
    /// `add_generation_prompt=False` without it, and with `continue_final_message=True` ending in the words of the last message.
    ///
    /// The text is to look at: it no longer says which words are the template's and which a user's, so that control tokens in it
    /// can't be parsed safely. With `tokenize=True` the result is the token ids, in which a user's words are words: what
    /// `generate` goes on from.
    #[pyo3(signature = (messages, *, tools=None, template_variables=None, add_generation_prompt=None, continue_final_message=false, tokenize=false))]
    #[allow(
        clippy::too_many_arguments,
        reason = "the keyword arguments of transformers' method of this name"
    )]
    fn apply_chat_template(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        template_variables: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: Option<bool>,
        continue_final_message: bool,
        tokenize: bool,
    ) -> Result<Py<PyAny>> {
        let model = self.handle.get()?;
        let mut request = request(messages, None)?;
        if let Some(serde_json::Value::Array(tools)) = tools.map(json).transpose()? {
            request.tools = tools;
        }
        if let Some(serde_json::Value::Object(variables)) = template_variables.map(json).transpose()? {
            request.template_variables = variables;
        }
        request.add_generation_prompt = add_generation_prompt;
        request.continue_final_message = continue_final_message;
        if tokenize {
            return Ok(py.detach(|| model.render_tokens(&request))?.into_py_any(py)?);
        }
        Ok(py.detach(|| model.render(&request))?.into_py_any(py)?)
    }

    /// An empty sequence that the caller drives forward by forward.
    fn sequence(&self) -> Result<Sequence> {
        Ok(Sequence::new(self.handle.get()?.sequence()?))
    }

    /// A sequence from what `Sequence.save` returned.
    fn restore_sequence(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> Result<Sequence> {
        let (model, data) = (self.handle.get()?, data.as_bytes());
        Ok(Sequence::new(py.detach(|| model.restore_sequence(data))?))
    }

    /// Loads a LoRA adapter: a GGUF file, or the folder that PEFT saves.
    fn load_adapter(&self, py: Python<'_>, path: PathBuf) -> Result<Adapter> {
        let model = self.handle.get()?;
        let adapter = wait(py, unblock(move || model.load_adapter(path)))??;
        Ok(Adapter { handle: Handle::new("Adapter", adapter) })
    }

    /// As `load_adapter`, to be awaited.
    fn load_adapter_async(&self, path: PathBuf) -> PyResult<Awaitable> {
        let model = self.handle.get()?;
        Ok(Awaitable::new(unblock(move || model.load_adapter(path)), |py, adapter| {
            Adapter { handle: Handle::new("Adapter", adapter) }.into_py_any(py)
        }))
    }

    /// The same model with an adapter, and a factor on what it adds.
    #[pyo3(signature = (adapter, *, scale=1.0))]
    fn adapted(&self, adapter: &Adapter, scale: f32) -> PyResult<Self> {
        Ok(Self::new(self.handle.get()?.adapted(&adapter.handle.get()?, scale)))
    }

    /// Its tokenizer.
    #[getter]
    fn tokenizer(&self) -> PyResult<Tokenizer> {
        Ok(Tokenizer::of_model(self.handle.get()?))
    }

    /// What it was loaded by.
    #[getter]
    fn reference(&self) -> PyResult<String> {
        Ok(self.handle.get()?.reference().to_owned())
    }

    /// What the model is.
    #[getter]
    fn info(&self) -> PyResult<ModelInfo> {
        let model = self.handle.get()?;
        let info = model.info().clone();
        Ok(ModelInfo {
            name: info.name,
            architecture: info.architecture,
            parameters: info.parameters,
            file_bytes: info.file_bytes,
            vocabulary: info.vocabulary,
            layers: info.layers,
            context_length: info.context_length,
            trained_context_length: info.trained_context_length,
            hidden: info.hidden,
            pooling: info.pooling.as_str(),
            chat_template: info.chat_template,
            device: info.device,
        })
    }

    /// What it has done for all tenants since it was loaded, and how it stands.
    fn metrics(&self, py: Python<'_>) -> PyResult<Metrics> {
        let model = self.handle.get()?;
        let metrics = py.detach(|| model.metrics());
        Metrics::new(py, metrics)
    }

    /// Gives it back. Generations that run keep it until they end.
    fn close(&self, py: Python<'_>) {
        self.handle.close(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.handle.close(py);
    }

    fn __repr__(&self) -> String {
        match self.handle.get() {
            Ok(model) => format!("<realm.Model {}>", model.reference()),
            Err(_) => "<realm.Model, closed>".into(),
        }
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Model"))
    }
}
