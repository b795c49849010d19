//! Converts keyword arguments to a request.

use std::collections::HashMap;

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMapping, PySequence, PySet,
    PyString, PyTuple,
};
use realm::{Grammar, Message, Prompt, Request, SharedPrefix, ToolChoice};
use serde_json::{Map, Value};

use crate::adapter::Adapter;
use crate::arguments::{Tokens, chosen, given, named, unexpected};
use crate::errors::invalid;
use crate::processors::{Keep, processors};
use crate::text::{Text, texts, without_surrogates};

/// Builds a request from a prompt (text, messages or token ids) and the keyword arguments of
/// `Model.generate`.
///
/// # Errors
/// `TypeError` for a value of another type and for an unknown argument, `invalid-argument` for an invalid
/// value.
pub(crate) fn request(
    prompt: &Bound<'_, PyAny>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<(Request, Keep)> {
    self::options(self::prompt(prompt)?, options)
}

/// Same as [`request`], with a prompt that is converted already.
pub(crate) fn options(prompt: Prompt, options: Option<&Bound<'_, PyDict>>) -> PyResult<(Request, Keep)> {
    let (mut request, mut keep) = (Request::new(prompt), Keep::default());
    let mut guides = Vec::new();
    for argument in given(options, &OPTIONS) {
        let (key, value) = argument?;
        if let "response_format" | "json_schema" | "json" | "regex" | "grammar" = key {
            guides.push(key);
        }
        if key == "logits_processors" {
            request.logits_processors = processors(&value, &mut keep)?;
            continue;
        }
        let applied = number(key, &value).and_then(|()| apply(request, key, &value));
        request = applied.map_err(|error| named(value.py(), key, error))?;
    }
    if guides.len() > 1 {
        return Err(invalid(&format!("only one of {} can guide a text", guides.join(", "))));
    }
    Ok((request, keep))
}

const OPTIONS: [&str; 36] = [
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "repetition_window",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "seed",
    "logprobs",
    "logit_bias",
    "banned_tokens",
    "response_format",
    "json_schema",
    "json",
    "regex",
    "grammar",
    "tools",
    "tool_choice",
    "template_variables",
    "add_generation_prompt",
    "continue_final_message",
    "special",
    "enable_thinking",
    "reasoning_effort",
    "reasoning_format",
    "ignore_eos",
    "shared_prefix",
    "adapter",
    "adapter_scale",
    "input",
    "speculation",
    "logits_processors",
];

/// Refuses True and False as numbers, which Python treats as 1 and 0.
fn number(key: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let takes_flags = matches!(
        key,
        "json"
            | "ignore_eos"
            | "input"
            | "json_schema"
            | "response_format"
            | "tools"
            | "special"
            | "add_generation_prompt"
            | "continue_final_message"
            | "enable_thinking"
    );
    if !takes_flags && value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err("a bool is no number"));
    }
    Ok(())
}

fn apply(mut request: Request, key: &str, value: &Bound<'_, PyAny>) -> PyResult<Request> {
    let sampling = &mut request.sampling;
    match key {
        "max_tokens" => request.max_tokens = Some(value.extract()?),
        "temperature" => sampling.temperature = value.extract()?,
        "top_p" => sampling.top_p = value.extract()?,
        "top_k" => sampling.top_k = value.extract()?,
        "min_p" => sampling.min_p = value.extract()?,
        "typical_p" => sampling.typical_p = value.extract()?,
        "repetition_penalty" => sampling.repetition_penalty = value.extract()?,
        "repetition_window" => sampling.repetition_window = value.extract()?,
        "frequency_penalty" => sampling.frequency_penalty = value.extract()?,
        "presence_penalty" => sampling.presence_penalty = value.extract()?,
        "seed" => sampling.seed = Some(value.extract()?),
        "logit_bias" => sampling.logit_bias = value.extract::<HashMap<u32, f32>>()?,
        "banned_tokens" => sampling.banned_tokens = value.extract()?,
        "stop" if value.is_instance_of::<PyString>() => request.stop = vec![value.extract::<Text>()?.0],
        "stop" => request.stop = texts(value)?,
        "logprobs" => request.logprobs = Some(value.extract()?),
        "response_format" => {
            request = request.response_format(&json(value)?).map_err(|e| crate::errors::exception(&e))?;
        }
        "json_schema" => request.grammar = Some(Grammar::JsonSchema(json(value)?)),
        "json" if value.extract()? => request.grammar = Some(Grammar::JsonObject),
        "json" => {}
        "regex" => request.grammar = Some(Grammar::Regex(value.extract::<Text>()?.0)),
        "grammar" => request.grammar = Some(Grammar::Lark(value.extract::<Text>()?.0)),
        "tools" => request.tools = list(value)?,
        "tool_choice" => {
            request.tool_choice =
                ToolChoice::try_from(&json(value)?).map_err(|e| crate::errors::exception(&e))?;
        }
        "template_variables" => request.template_variables = object(value)?,
        "add_generation_prompt" => request.add_generation_prompt = Some(value.extract()?),
        "continue_final_message" => request.continue_final_message = value.extract()?,
        "special" => request.special = value.extract()?,
        "enable_thinking" => request.enable_thinking = Some(value.extract()?),
        "reasoning_effort" => request.reasoning_effort = Some(value.extract()?),
        "reasoning_format" => request.reasoning_format = chosen(value)?,
        "ignore_eos" => request.ignore_eos = value.extract()?,
        "shared_prefix" => request.shared_prefix = shared_prefix(value)?,
        "adapter" => request.adapter = Some(value.cast::<Adapter>()?.get().handle.get()?),
        "adapter_scale" => request.adapter_scale = value.extract()?,
        "input" => request.input = json(value)?,
        "speculation" => request.speculation = Some(chosen(value)?),
        _ => return Err(unexpected(key)),
    }
    Ok(request)
}

pub(crate) fn prompt(value: &Bound<'_, PyAny>) -> PyResult<Prompt> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Prompt::Text(crate::text::text(text)?));
    }
    match value.extract::<Tokens>() {
        Ok(tokens) => return Ok(Prompt::Tokens(tokens.0)),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {}
        Err(error) => return Err(error),
    }
    match list(value) {
        Ok(messages) if messages.iter().all(Value::is_object) => {
            Ok(Prompt::Chat(messages.into_iter().map(Message::from).collect()))
        }
        _ => Err(PyTypeError::new_err(
            "a prompt is a str, a list of messages such as {'role': 'user', 'content': '...'}, or a list of token ids",
        )),
    }
}

/// Converts a Python value to JSON.
///
/// # Errors
/// `TypeError` for values that JSON cannot express, including NaN and infinities, which would otherwise
/// become null.
pub(crate) fn json(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    checked(value, 0)?;
    let read = |value: &Bound<'_, PyAny>| match value.cast::<PyList>() {
        // One by one, so that other threads run while a long list is read.
        Ok(items) if items.len() > MANY => {
            let mut values = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                if i % MANY == MANY - 1 {
                    value.py().detach(|| {});
                }
                values.push(pythonize::depythonize(&item)?);
            }
            Ok(Value::Array(values))
        }
        _ => pythonize::depythonize(value),
    };
    let not_json = |error: pythonize::PythonizeError| PyTypeError::new_err(format!("not JSON: {error}"));
    match read(value) {
        Ok(json) => Ok(json),
        Err(error) => {
            let error = PyErr::from(error);
            if error.is_instance_of::<PyUnicodeEncodeError>(value.py()) {
                return read(&without_surrogates(value)?).map_err(not_json);
            }
            Err(PyTypeError::new_err(format!("not JSON: {}", error.value(value.py()))))
        }
    }
}

/// Refuses Python values that are not JSON: NaN and infinities, and values nested too deeply, such as a list
/// that contains itself, which would overflow the stack.
fn checked(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    /// The deepest nesting of a JSON text.
    const DEPTH: usize = 128;
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyInt>() || value.is_none() {
        return Ok(());
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return match number.value().is_finite() {
            true => Ok(()),
            false => {
                Err(PyTypeError::new_err(format!("not JSON: {} is no number of JSON's", number.value())))
            }
        };
    }
    let inside = |value: &Bound<'_, PyAny>| {
        if depth >= DEPTH {
            return Err(PyTypeError::new_err(format!(
                "not JSON: more than {DEPTH} values stand inside each other"
            )));
        }
        checked(value, depth + 1)
    };
    if let Ok(dict) = value.cast::<PyDict>() {
        return dict.iter().try_for_each(|(_, value)| inside(&value));
    }
    if value.is_instance_of::<PyList>()
        || value.is_instance_of::<PyTuple>()
        || value.is_instance_of::<PySet>()
        || value.is_instance_of::<PyFrozenSet>()
    {
        return value.try_iter()?.try_for_each(|item| inside(&item?));
    }
    if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() {
        return Ok(());
    }
    if let Ok(mapping) = value.cast::<PyMapping>() {
        return mapping.values()?.iter().try_for_each(|value| inside(&value));
    }
    if value.cast::<PySequence>().is_ok() {
        return value.try_iter()?.try_for_each(|item| inside(&item?));
    }
    Ok(())
}

/// The number of list items that are read at once.
const MANY: usize = 500;

pub(crate) fn list(value: &Bound<'_, PyAny>) -> PyResult<Vec<Value>> {
    match json(value)? {
        Value::Array(values) => Ok(values),
        _ => Err(PyTypeError::new_err("a list is needed")),
    }
}

fn object(value: &Bound<'_, PyAny>) -> PyResult<Map<String, Value>> {
    match json(value)? {
        Value::Object(map) => Ok(map),
        _ => Err(PyTypeError::new_err("a dict is needed")),
    }
}

fn shared_prefix(value: &Bound<'_, PyAny>) -> PyResult<SharedPrefix> {
    if let Ok(text) = value.cast::<PyString>() {
        return match text.to_str()? {
            "system" => Ok(SharedPrefix::System),
            other => Err(invalid(&format!("shared_prefix is 'system' or a number of tokens, not '{other}'"))),
        };
    }
    Ok(SharedPrefix::Tokens(value.extract()?))
}
