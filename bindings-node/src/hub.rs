//! The hub: models of the catalog, and their files on disk.

use std::sync::Arc;

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm::hub::{Reference, State, Status};
use realm::unblock;
use serde_json::{Value, json};

use crate::error::failed;
use crate::load::{Callback, Long, NativePull, progress};

/// The models of a cache folder.
#[napi]
pub struct NativeHub(pub(crate) realm::hub::Hub);

fn status(status: &Status) -> Value {
    let (state, bytes) = match status.state {
        State::Absent => ("absent", 0),
        State::Partial(bytes) => ("partial", bytes),
        State::Present(bytes) => ("present", bytes),
    };
    let (description, license) = match &status.reference {
        Reference::Catalog(entry) => (Some(&entry.description), Some(&entry.license)),
        _ => (None, None),
    };
    json!({
        "name": status.reference.to_string(), "path": status.path, "state": state, "bytes": bytes,
        "description": description, "license": license,
    })
}

#[napi]
impl NativeHub {
    /// Returns the path of the cache folder.
    #[napi]
    pub fn cache_folder(&self) -> String {
        self.0.cache().display().to_string()
    }

    /// Lists the catalog's models, and every file from Hugging Face on disk, as JSON.
    #[napi]
    pub async fn list(&self) -> Result<String> {
        let hub = self.0.clone();
        let listed = unblock(move || Ok(hub.list()?)).await.map_err(failed)?;
        Ok(listed.iter().map(status).collect::<Value>().to_string())
    }

    /// Returns the state of one model on disk, as JSON.
    #[napi]
    pub async fn info(&self, model: String) -> Result<String> {
        let hub = self.0.clone();
        let info = unblock(move || Ok(hub.info(&Reference::parse(&model)?)?)).await.map_err(failed)?;
        Ok(status(&info).to_string())
    }

    /// Starts to fetch a model.
    #[napi]
    pub fn pull(
        &self,
        model: String,
        #[napi(ts_arg_type = "((stage: string, what: string, done: number, total?: number) => void) | null")]
        callback: Option<Callback<'_>>,
    ) -> Result<NativePull> {
        let hub = self.0.clone();
        let given_up = Arc::default();
        let mut progress = progress(callback, &given_up)?;
        let pull = unblock(move || {
            let path = hub.pull(&Reference::parse(&model)?, &mut progress)?;
            Ok(path.to_string_lossy().into_owned())
        });
        Ok(NativePull(Long::new(pull, given_up)))
    }

    /// Removes a model's file; returns the number of freed bytes.
    #[napi]
    pub async fn remove(&self, model: String) -> Result<f64> {
        let hub = self.0.clone();
        let freed = unblock(move || Ok(hub.remove(&Reference::parse(&model)?)?)).await;
        Ok(freed.map_err(failed)? as f64)
    }
}

/// Reads a GGUF file's header, as JSON.
#[napi]
pub async fn inspect(path: String) -> Result<String> {
    let info = unblock(move || realm::inspect(path.as_ref())).await.map_err(failed)?;
    let types = info.tensor_types.iter();
    let types = types.map(|(name, count, bytes)| json!({"name": name, "count": count, "bytes": bytes}));
    let info = json!({
        "name": info.name, "architecture": info.architecture, "parameters": info.parameters,
        "layers": info.layers, "vocabulary": info.vocabulary,
        "trainedContextLength": info.trained_context_length, "chatTemplate": info.chat_template,
        "tensorTypes": types.collect::<Value>(),
    });
    Ok(info.to_string())
}
