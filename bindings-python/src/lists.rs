//! Lists of prompts and texts.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PyString};
use realm::Request;

use crate::arguments::Tokens;
use crate::array::Array;
use crate::processors::Keep;
use crate::request::{options, prompt};
use crate::results::Completion;
use crate::text::text;

/// Returns a request for each prompt, all with the same options.
pub(crate) fn requests(
    prompts: &Bound<'_, PyAny>,
    asked: Option<&Bound<'_, PyDict>>,
) -> PyResult<(Vec<Request>, Keep)> {
    let (template, keep) = options(realm::Prompt::Text(String::new()), asked)?;
    let one = |each: Bound<'_, PyAny>| Ok(Request { prompt: prompt(&each)?, ..template.clone() });
    let requests = items(prompts, "prompts", "generate")?.map(|each| one(each?)).collect::<PyResult<_>>()?;
    Ok((requests, keep))
}

/// Returns a list of token ids for each text or list of token ids; texts are encoded by `encode`, without the
/// GIL.
pub(crate) fn token_lists(
    texts: &Bound<'_, PyAny>,
    single: &str,
    encode: impl Fn(&str) -> Vec<u32> + Sync,
) -> PyResult<Vec<Vec<u32>>> {
    items(texts, "texts", single)?
        .map(|each| {
            let each = each?;
            match each.cast::<PyString>() {
                Ok(string) => {
                    let words = text(string)?;
                    Ok(each.py().detach(|| encode(&words)))
                }
                Err(_) => each.extract::<Tokens>().map(|tokens| tokens.0).map_err(|error| match error
                    .is_instance_of::<PyTypeError>(
                    each.py(),
                ) {
                    true => PyTypeError::new_err("texts are a list of str or of token ids"),
                    false => error,
                }),
            }
        })
        .collect()
}

fn items<'py>(
    list: &Bound<'py, PyAny>,
    what: &str,
    single: &str,
) -> PyResult<impl Iterator<Item = PyResult<Bound<'py, PyAny>>> + use<'py>> {
    let one = list.is_instance_of::<PyString>()
        || list.is_instance_of::<PyBytes>()
        || list.cast::<PyMapping>().is_ok();
    if one {
        return Err(PyTypeError::new_err(format!("{what} is a list; for a single one there is `{single}`")));
    }
    list.try_iter()
        .map_err(|_| PyTypeError::new_err(format!("{what} is a list; for a single one there is `{single}`")))
}

/// Returns completions, with exceptions in place of those that failed.
pub(crate) fn each<'py>(
    py: Python<'py>,
    results: Vec<Result<realm::Completion, realm::Error>>,
    keep: &Keep,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for result in results {
        match result {
            Ok(completion) => list.append(Completion::convert(py, completion)?)?,
            Err(error) => list.append(keep.raised.instead_of(error).into_value(py))?,
        }
    }
    Ok(list)
}

/// Returns all completions.
pub(crate) fn all(py: Python<'_>, completions: Vec<realm::Completion>) -> PyResult<Bound<'_, PyList>> {
    let completions =
        completions.into_iter().map(|each| Completion::convert(py, each)).collect::<PyResult<Vec<_>>>()?;
    PyList::new(py, completions)
}

/// Returns vectors as one matrix with `columns` columns.
pub(crate) fn matrix(vectors: Vec<Vec<f32>>, columns: usize) -> Array {
    Array::matrix(vectors.concat(), columns)
}
