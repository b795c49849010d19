//! Tokenizers.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::arguments::{Tokens, token_list};
use crate::errors::Result;
use crate::text::Text;

/// A model's tokenizer. It needs no thread and no device, so it works in every process.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Tokenizer(Inner);

/// A model's tokenizer, shared with the model, or one that was loaded without a model.
enum Inner {
    OfModel(realm::Model),
    Alone(Arc<realm::Tokenizer>),
}

impl Tokenizer {
    pub(crate) fn of_model(model: realm::Model) -> Self {
        Self(Inner::OfModel(model))
    }

    pub(crate) fn alone(tokenizer: realm::Tokenizer) -> Self {
        Self(Inner::Alone(Arc::new(tokenizer)))
    }

    fn get(&self) -> &realm::Tokenizer {
        match &self.0 {
            Inner::OfModel(model) => model.tokenizer(),
            Inner::Alone(tokenizer) => tokenizer,
        }
    }
}

#[pymethods]
impl Tokenizer {
    /// Encodes a text into token ids. With `special`, control tokens spelled in the text become those tokens:
    /// use it only for text that no user wrote. Without `boundaries`, no begin or end token is added.
    #[pyo3(signature = (text, *, special=false, boundaries=true))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: Text,
        special: bool,
        boundaries: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        token_list(py, &py.detach(|| self.get().encode(&text.0, special, boundaries)))
    }

    /// Decodes token ids into text. Control tokens are left out, unless `special`.
    #[pyo3(signature = (tokens, *, special=false))]
    fn decode(&self, py: Python<'_>, tokens: Tokens, special: bool) -> Result<String> {
        Ok(py.detach(|| self.get().decode(&tokens.0, special)).map_err(realm::Error::from)?)
    }

    /// Returns the token with exactly this spelling, including control tokens.
    fn token_id(&self, text: Text) -> Option<u32> {
        self.get().token_id(&text.0)
    }

    /// The number of tokens.
    #[getter]
    fn vocabulary(&self) -> usize {
        self.get().vocabulary_len()
    }

    /// The begin-of-sequence token.
    #[getter]
    fn bos(&self) -> Option<u32> {
        self.get().bos()
    }

    /// The end-of-sequence token.
    #[getter]
    fn eos(&self) -> Option<u32> {
        self.get().eos()
    }

    /// True if the model expects the begin token before a text.
    #[getter]
    fn adds_bos(&self) -> bool {
        self.get().adds_bos()
    }

    /// The tokens that end a generation.
    #[getter]
    fn end_tokens(&self) -> Vec<u32> {
        self.get().end_tokens().to_vec()
    }
}
