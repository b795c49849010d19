//! Models and their adapters.

use std::path::PathBuf;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use realm::{EmbedOptions, Pooling, Prompt, unblock};

use crate::adapter::Adapter;
use crate::arguments::{Tokens, count, token_list};
use crate::array::Array;
use crate::callbacks::{Callbacks, Granted};
use crate::errors::Result;
use crate::generation::Generation;
use crate::handle::{Handle, not_picklable};
use crate::info::{ModelInfo, Scored, scores};
use crate::lists;
use crate::metrics::Metrics;
use crate::processors::Keep;
use crate::request::{json, request};
use crate::results::Completion;
use crate::sequence::Sequence;
use crate::text::Text;
use crate::tokenizer::Tokenizer;
use crate::wait::{Awaitable, wait};

/// One set of weights, shared by all tenants, as one tenant sees it. The weights are freed when the model is
/// closed or dropped everywhere and the last generation has ended. Any number of threads and tasks may use it
/// at once.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Model {
    pub(crate) handle: Handle<realm::Model>,
    /// The owner of the functions that its tenant's programs may call.
    granted: Option<Py<Granted>>,
}

impl Model {
    pub(crate) fn new(model: realm::Model) -> Self {
        Self::granted(model, None)
    }

    /// Returns a model as a tenant sees it.
    pub(crate) fn granted(model: realm::Model, granted: Option<Py<Granted>>) -> Self {
        Self { handle: Handle::new("Model", model), granted }
    }

    /// Returns the functions that a request that starts now may call.
    pub(crate) fn granted_now(&self, py: Python<'_>) -> Option<Py<Callbacks>> {
        self.granted.as_ref().and_then(|granted| granted.get().now(py))
    }

    /// Builds a request from the keyword arguments, with the Python objects that it needs.
    fn ask(
        &self,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<(realm::Model, realm::Request, Keep)> {
        let (request, mut keep) = request(prompt, options)?;
        keep.callbacks.extend(self.granted_now(prompt.py()));
        Ok((self.handle.get()?, request, keep))
    }
}

/// Returns token ids; encodes a text.
fn tokens(model: &realm::Model, text: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    if let Ok(string) = text.cast::<PyString>() {
        let words = crate::text::text(string)?;
        return Ok(text.py().detach(|| model.encode(&words)));
    }
    text.extract::<Tokens>().map(|tokens| tokens.0).map_err(|error| {
        match error.is_instance_of::<PyTypeError>(text.py()) {
            true => PyTypeError::new_err(
                "a str or a list of token ids is needed; for several texts there are `embed_many` and `score_many`",
            ),
            false => error,
        }
    })
}

fn embed_options(pooling: Option<&str>, normalize: bool) -> Result<EmbedOptions> {
    let pooling = pooling.map(str::parse::<Pooling>).transpose().map_err(realm::Error::from)?;
    Ok(EmbedOptions { pooling, normalize })
}

#[pymethods]
impl Model {
    /// Answers a prompt, and waits for the whole answer.
    ///
    /// `prompt` is text, which is continued as it is; messages, dicts with `role` and `content`, which the
    /// model's chat template renders; or token ids. Halves of characters in texts (lone surrogates) become
    /// U+FFFD.
    ///
    /// Options; an option that is `None` counts as missing:
    ///
    /// - `max_tokens`: the most tokens to generate; by default as many as the context holds.
    /// - `temperature` (0.8): divides the logits; 0 takes the likeliest token each time.
    /// - `top_k` (40): only the k likeliest tokens; 0 for all. `top_p` (0.95): only the likeliest tokens
    ///   whose probabilities together reach p. `min_p` (0.05): only tokens at least p times as likely as the
    ///   likeliest. `typical_p` (1): only the most typical tokens up to a probability of p together.
    /// - `repetition_penalty` (1) on tokens among the last `repetition_window` (64); `frequency_penalty` (0)
    ///   for each time and `presence_penalty` (0) once for a token that was generated.
    /// - `seed`: the same seed gives the same text; by default another one each time.
    /// - `stop`: a text, or several, that end the answer and are not part of it.
    /// - `logprobs`: the number of likely tokens to return with each token, with their log-probabilities in
    ///   nats.
    /// - `logit_bias`: a dict of token ids and the numbers added to their logits. `banned_tokens`: ids that
    ///   are never generated.
    /// - `logits_processors`: functions `f(ids, logits)`, called before each token is chosen. `ids` is a list
    ///   of the tokens so far, `logits` an array of 32-bit floats, one for each token of the vocabulary: a
    ///   NumPy array, or a `realm.Array` without NumPy. A function changes it in place and returns `None`, or
    ///   returns another one; -infinity excludes a token. The functions run on a thread of their own, so that
    ///   no other request waits for them, before penalties and temperature. An exception ends the request and
    ///   is raised here.
    /// - `response_format` (as in OpenAI's API), `json_schema` (a dict), `json` (`True`), `regex` or
    ///   `grammar` (Lark): the form that the text must have.
    /// - `tools`: definitions in OpenAI's format; `tool_choice`: `"auto"`, `"none"`, `"required"` or a
    ///   function's name in a dict.
    /// - `template_variables`: a dict of further variables for the chat template.
    /// - `add_generation_prompt` (`True`): end the prompt with the start of the assistant's answer.
    ///   `continue_final_message` (`False`): continue the last message.
    /// - `special` (`False`): parse control tokens that are spelled in a prompt of text.
    /// - `enable_thinking`: whether the model thinks before it answers, and `reasoning_effort`: how much
    ///   (usually `"low"`, `"medium"` or `"high"`), for templates with these variables.
    /// - `reasoning_format` (`"separate"`): return the thought as `reasoning`, or with `"inline"` as part of
    ///   the text.
    /// - `ignore_eos` (`False`): continue after an end token.
    /// - `shared_prefix`: `"system"` or a number of tokens that other tenants send, too, so that they are
    ///   computed once.
    /// - `adapter`, `adapter_scale` (1): a LoRA adapter, and a factor on what it adds.
    /// - `speculation`: `"auto"`, `"off"`, `"lookup"` or `"draft"`: the source of drafts, which do not change
    ///   the text.
    /// - `input`: any JSON, for a tenant's program.
    ///
    /// Raises `InvalidArgumentError` (a `ValueError`) for an invalid value, `LimitExceededError` for a prompt
    /// that is too long and if a tenant's limit ends the request, `OverloadedError` if too many requests
    /// wait, `TypeError` for a value of another type.
    #[pyo3(signature = (prompt, **options))]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Completion> {
        let (model, request, keep) = self.ask(prompt, options)?;
        let generation = py.detach(|| model.stream(request))?;
        Generation::new(generation, keep).finish(py)
    }

    /// Same as `generate`, with the same options, to be awaited.
    #[pyo3(signature = (prompt, **options))]
    fn generate_async(
        &self,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Awaitable> {
        let (model, request, Keep { callbacks, raised }) = self.ask(prompt, options)?;
        let future = async move {
            let generation =
                unblock(move || model.stream(request)).await.map_err(|e| crate::errors::exception(&e))?;
            generation.finish_async().await.map_err(|error| raised.instead_of(error))
        };
        Ok(Awaitable::new(future, Completion::convert).holding(callbacks))
    }

    /// Starts to answer a prompt, and returns the running request at once. Takes the options of `generate`.
    #[pyo3(signature = (prompt, **options))]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Generation> {
        let (model, request, keep) = self.ask(prompt, options)?;
        Ok(Generation::new(py.detach(|| model.stream(request))?, keep))
    }

    /// Same as `stream`, to be awaited: a long prompt is encoded, and a grammar compiled, on another thread
    /// than the event loop's.
    #[pyo3(signature = (prompt, **options))]
    fn stream_async(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Awaitable> {
        let (model, request, keep) = self.ask(prompt, options)?;
        let callbacks: Vec<_> = keep.callbacks.iter().map(|each| each.clone_ref(py)).collect();
        let convert = move |py: Python<'_>, generation| Generation::new(generation, keep).into_py_any(py);
        Ok(Awaitable::new(unblock(move || model.stream(request)), convert).holding(callbacks))
    }

    /// Answers many prompts, all with the same options, those of `generate`; the completions are in the order
    /// of the prompts. A window of requests runs at once, so a list of any length neither fills a queue nor
    /// delays others.
    ///
    /// The first error ends the call, and its message has the prompt's index. With `return_exceptions`, each
    /// prompt that fails has its exception in the list, and the others have their completions.
    #[pyo3(signature = (prompts, *, return_exceptions=false, **options))]
    fn generate_many<'py>(
        &self,
        py: Python<'py>,
        prompts: &Bound<'py, PyAny>,
        return_exceptions: bool,
        options: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyList>> {
        let (model, (requests, mut keep)) = (self.handle.get()?, lists::requests(prompts, options)?);
        keep.callbacks.extend(self.granted_now(py));
        if return_exceptions {
            let results = wait(py, model.generate_each_async(requests))?;
            return Ok(lists::each(py, results, &keep)?);
        }
        let all =
            wait(py, model.generate_many_async(requests))?.map_err(|error| keep.raised.instead_of(error))?;
        Ok(lists::all(py, all)?)
    }

    /// Same as `generate_many`, to be awaited.
    #[pyo3(signature = (prompts, *, return_exceptions=false, **options))]
    fn generate_many_async(
        &self,
        py: Python<'_>,
        prompts: &Bound<'_, PyAny>,
        return_exceptions: bool,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Awaitable> {
        let (model, (requests, mut keep)) = (self.handle.get()?, lists::requests(prompts, options)?);
        keep.callbacks.extend(self.granted_now(py));
        let callbacks: Vec<_> = keep.callbacks.iter().map(|each| each.clone_ref(py)).collect();
        if return_exceptions {
            let future = async move { Ok::<_, PyErr>(model.generate_each_async(requests).await) };
            let convert =
                move |py: Python<'_>, results| Ok(lists::each(py, results, &keep)?.into_any().unbind());
            return Ok(Awaitable::new(future, convert).holding(callbacks));
        }
        let raised = keep.raised;
        let future = async move {
            model.generate_many_async(requests).await.map_err(|error| raised.instead_of(error))
        };
        let convert = |py: Python<'_>, all| Ok(lists::all(py, all)?.into_any().unbind());
        Ok(Awaitable::new(future, convert).holding(callbacks))
    }

    /// Returns the embedding of a text or of token ids, `[hidden]`.
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

    /// Same as `embed`, to be awaited.
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

    /// Returns an embedding for each of many texts or lists of token ids, `[texts, hidden]`; thousands are
    /// fine. An error has the text's index.
    #[pyo3(signature = (texts, *, pooling=None, normalize=true))]
    fn embed_many(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        pooling: Option<&str>,
        normalize: bool,
    ) -> Result<Array> {
        let (model, options) = (self.handle.get()?, embed_options(pooling, normalize)?);
        let texts = lists::token_lists(texts, "embed", |text| model.encode(text))?;
        let vectors = wait(py, model.embed_many_async(texts, &options))??;
        Ok(lists::matrix(vectors, model.info().hidden))
    }

    /// Same as `embed_many`, to be awaited.
    #[pyo3(signature = (texts, *, pooling=None, normalize=true))]
    fn embed_many_async(
        &self,
        texts: &Bound<'_, PyAny>,
        pooling: Option<&str>,
        normalize: bool,
    ) -> PyResult<Awaitable> {
        let (model, options) = (self.handle.get()?, embed_options(pooling, normalize)?);
        let texts = lists::token_lists(texts, "embed", |text| model.encode(text))?;
        let hidden = model.info().hidden;
        let future = async move { model.embed_many_async(texts, &options).await };
        Ok(Awaitable::new(future, move |py, vectors| lists::matrix(vectors, hidden).into_py_any(py)))
    }

    /// Returns, for each token of a text or of token ids, the log-probability of the token that follows it,
    /// and the `top` likeliest in its place.
    #[pyo3(signature = (text, *, top=None))]
    fn score(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        top: Option<&Bound<'_, PyAny>>,
    ) -> Result<Vec<Scored>> {
        let (model, top) = (self.handle.get()?, count("top", top)?.unwrap_or(0));
        let tokens = tokens(&model, text)?;
        Ok(scores(py, wait(py, model.score_async(&tokens, top))??)?)
    }

    /// Same as `score`, to be awaited.
    #[pyo3(signature = (text, *, top=None))]
    fn score_async(&self, text: &Bound<'_, PyAny>, top: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let (model, top) = (self.handle.get()?, count("top", top)?.unwrap_or(0));
        let tokens = tokens(&model, text)?;
        let future = async move { model.score_async(&tokens, top).await };
        Ok(Awaitable::new(future, |py, found| scores(py, found)?.into_py_any(py)))
    }

    /// Same as `score`, for each of many texts or lists of token ids. An error has the text's index.
    #[pyo3(signature = (texts, *, top=None))]
    fn score_many(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        top: Option<&Bound<'_, PyAny>>,
    ) -> Result<Vec<Vec<Scored>>> {
        let (model, top) = (self.handle.get()?, count("top", top)?.unwrap_or(0));
        let texts = lists::token_lists(texts, "score", |text| model.encode(text))?;
        let found = wait(py, model.score_many_async(texts, top))??;
        Ok(found.into_iter().map(|each| scores(py, each)).collect::<PyResult<_>>()?)
    }

    /// Same as `score_many`, to be awaited.
    #[pyo3(signature = (texts, *, top=None))]
    fn score_many_async(
        &self,
        texts: &Bound<'_, PyAny>,
        top: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Awaitable> {
        let (model, top) = (self.handle.get()?, count("top", top)?.unwrap_or(0));
        let texts = lists::token_lists(texts, "score", |text| model.encode(text))?;
        let future = async move { model.score_many_async(texts, top).await };
        Ok(Awaitable::new(future, |py, found| {
            let found = found.into_iter().map(|each| scores(py, each)).collect::<PyResult<Vec<_>>>()?;
            found.into_py_any(py)
        }))
    }

    /// Returns the log-probability of each token of `continuation` after `prompt`, in nats; both are token
    /// ids.
    fn log_likelihood(&self, py: Python<'_>, prompt: Tokens, continuation: Tokens) -> Result<Vec<f32>> {
        let model = self.handle.get()?;
        Ok(wait(py, model.log_likelihood_async(&prompt.0, &continuation.0))??)
    }

    /// Same as `log_likelihood`, to be awaited.
    fn log_likelihood_async(&self, prompt: Tokens, continuation: Tokens) -> PyResult<Awaitable> {
        let model = self.handle.get()?;
        let future = async move { model.log_likelihood_async(&prompt.0, &continuation.0).await };
        Ok(Awaitable::new(future, |py, values| values.into_py_any(py)))
    }

    /// Encodes a text into token ids, with the begin token if the model expects one. With `special`, control
    /// tokens spelled in the text become those tokens: use it only for text that no user wrote. Without
    /// `boundaries`, no begin or end token is added.
    #[pyo3(signature = (text, *, special=false, boundaries=true))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: Text,
        special: bool,
        boundaries: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let model = self.handle.get()?;
        token_list(py, &py.detach(|| model.encode_special(&text.0, special, boundaries)))
    }

    /// Same as `encode`, for each of many texts.
    #[pyo3(signature = (texts, *, special=false, boundaries=true))]
    fn encode_many<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        special: bool,
        boundaries: bool,
    ) -> PyResult<Vec<Bound<'py, PyList>>> {
        let model = self.handle.get()?;
        let encode = |text: &str| model.encode_special(text, special, boundaries);
        lists::token_lists(texts, "encode", encode)?.iter().map(|tokens| token_list(py, tokens)).collect()
    }

    /// Decodes token ids into text. Control tokens are left out, unless `special`.
    #[pyo3(signature = (tokens, *, special=false))]
    fn decode(&self, py: Python<'_>, tokens: Tokens, special: bool) -> Result<String> {
        let model = self.handle.get()?;
        let text = py.detach(|| model.tokenizer().decode(&tokens.0, special));
        Ok(text.map_err(realm::Error::from)?)
    }

    /// Renders messages with the model's chat template, with the start of the assistant's answer; with
    /// `add_generation_prompt=False` without it, and with `continue_final_message=True` ending in the words
    /// of the last message.
    ///
    /// The text is for reading only: it no longer shows which words are the template's and which a user's, so
    /// parsing control tokens in it is not safe. With `tokenize=True` the result is the token ids that
    /// `generate` continues, in which only the template spells control tokens.
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
        let (mut request, _) = request(messages, None)?;
        // An empty list of messages looks like an empty list of tokens.
        if matches!(&request.prompt, Prompt::Tokens(tokens) if tokens.is_empty()) {
            request.prompt = Prompt::Chat(Vec::new());
        }
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

    /// Creates an empty sequence that the caller drives, one forward pass at a time.
    fn sequence(&self) -> Result<Sequence> {
        Ok(Sequence::new(self.handle.get()?.sequence()?))
    }

    /// Restores a sequence from the result of `Sequence.save`, in this realm or another one with the same
    /// `snapshot_key`.
    fn restore_sequence(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> Result<Sequence> {
        let (model, data) = (self.handle.get()?, data.as_bytes());
        Ok(Sequence::new(py.detach(|| model.restore_sequence(data))?))
    }

    /// Restores a sequence that a realm with another key saved. The format of the bytes is checked in full,
    /// but Realm cannot check that their keys and values are those that the model computes. Therefore the
    /// tenant's other requests do not use them.
    fn restore_foreign_sequence(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> Result<Sequence> {
        let (model, data) = (self.handle.get()?, data.as_bytes());
        Ok(Sequence::new(py.detach(|| model.restore_foreign_sequence(data))?))
    }

    /// Loads a LoRA adapter: a GGUF file, or the folder that PEFT saves.
    fn load_adapter(&self, py: Python<'_>, path: PathBuf) -> Result<Adapter> {
        let model = self.handle.get()?;
        let adapter = wait(py, unblock(move || model.load_adapter(path)))??;
        Ok(Adapter { handle: Handle::new("Adapter", adapter) })
    }

    /// Same as `load_adapter`, to be awaited.
    fn load_adapter_async(&self, path: PathBuf) -> PyResult<Awaitable> {
        let model = self.handle.get()?;
        Ok(Awaitable::new(unblock(move || model.load_adapter(path)), |py, adapter| {
            Adapter { handle: Handle::new("Adapter", adapter) }.into_py_any(py)
        }))
    }

    /// Returns the same model with an adapter, and a factor on what the adapter adds.
    #[pyo3(signature = (adapter, *, scale=1.0))]
    fn adapted(&self, py: Python<'_>, adapter: &Adapter, scale: f32) -> PyResult<Self> {
        let granted = self.granted.as_ref().map(|granted| granted.clone_ref(py));
        Ok(Self::granted(self.handle.get()?.adapted(&adapter.handle.get()?, scale), granted))
    }

    /// The model's tokenizer.
    #[getter]
    fn tokenizer(&self) -> PyResult<Tokenizer> {
        Ok(Tokenizer::of_model(self.handle.get()?))
    }

    /// The reference that it was loaded by.
    #[getter]
    fn reference(&self) -> PyResult<String> {
        Ok(self.handle.get()?.reference().to_owned())
    }

    /// Facts about the model.
    #[getter]
    fn info(&self) -> PyResult<ModelInfo> {
        Ok(self.handle.get()?.info().clone().into())
    }

    /// Reads the model's counters and gauges, over all tenants since it was loaded.
    fn metrics(&self, py: Python<'_>) -> PyResult<Metrics> {
        let model = self.handle.get()?;
        let metrics = py.detach(|| model.metrics());
        Metrics::new(py, metrics)
    }

    /// Releases the model. Running generations keep it until they end.
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        // The functions clear themselves.
        visit.call(&self.granted)
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
