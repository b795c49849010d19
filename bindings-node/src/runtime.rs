//! The runtime.

use std::sync::Arc;

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm::unblock;
use serde::Deserialize;

use crate::error::failed;
use crate::handle::Handle;
use crate::hub::NativeHub;
use crate::load::{Callback, Long, NativeLoad, progress};
use crate::options::{limits, load_options, read};
use crate::tenant::{NativeProgram, NativeTenant};
use crate::tokenizer::NativeTokenizer;

/// The options of a runtime, as in `ts/types.ts`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RealmOptions {
    threads: Option<usize>,
    device: Option<String>,
    cache_folder: Option<String>,
}

/// The runtime.
#[napi]
pub struct NativeRealm {
    pub(crate) handle: Handle<realm::Realm>,
}

#[napi]
impl NativeRealm {
    /// Starts the runtime.
    #[napi(constructor)]
    pub fn new(options: String, snapshot_key: Option<Buffer>) -> Result<Self> {
        let options: RealmOptions = read(&options)?;
        let mut builder = realm::Realm::builder();
        if let Some(threads) = options.threads {
            builder = builder.threads(threads);
        }
        if let Some(device) = options.device {
            builder = builder.device(device);
        }
        if let Some(folder) = options.cache_folder {
            builder = builder.cache_folder(folder);
        }
        if let Some(key) = snapshot_key {
            builder = builder.snapshot_key(key);
        }
        Ok(Self { handle: Handle::new("Realm", builder.build().map_err(failed)?) })
    }

    /// Starts to load a model.
    #[napi]
    pub fn load_model(
        &self,
        model: String,
        options: String,
        #[napi(ts_arg_type = "((stage: string, what: string, done: number, total?: number) => void) | null")]
        callback: Option<Callback<'_>>,
    ) -> Result<NativeLoad> {
        let (realm, options) = (self.handle.get()?, load_options(&options)?);
        let given_up = Arc::default();
        let mut progress = progress(callback, &given_up)?;
        let load = unblock(move || realm.load_model_with(&model, &options, &mut progress));
        Ok(NativeLoad(Long::new(load, given_up)))
    }

    /// Loads only a tokenizer.
    #[napi]
    pub async fn load_tokenizer(&self, model: String) -> Result<NativeTokenizer> {
        let realm = self.handle.get()?;
        let tokenizer = unblock(move || realm.load_tokenizer(&model)).await.map_err(failed)?;
        Ok(NativeTokenizer::alone(tokenizer))
    }

    /// Creates a tenant with limits of its own.
    #[napi]
    pub fn tenant(&self, name: String, limits: String) -> Result<NativeTenant> {
        let tenant = self.handle.get()?.tenant(&name, self::limits(&limits)?).map_err(failed)?;
        Ok(NativeTenant::new(tenant))
    }

    /// Compiles a program from a file.
    #[napi]
    pub async fn load_program(&self, path: String) -> Result<NativeProgram> {
        let realm = self.handle.get()?;
        let program = unblock(move || realm.load_program(path)).await.map_err(failed)?;
        Ok(NativeProgram::new(program))
    }

    /// Compiles a program from bytes.
    #[napi]
    pub async fn compile_program(&self, wasm: Buffer) -> Result<NativeProgram> {
        let realm = self.handle.get()?;
        let program = unblock(move || realm.compile_program(&wasm)).await.map_err(failed)?;
        Ok(NativeProgram::new(program))
    }

    /// Returns the metrics of all loaded models, for Prometheus.
    #[napi]
    pub fn prometheus(&self) -> Result<String> {
        Ok(self.handle.get()?.prometheus())
    }

    /// Returns the hub, which fetches models and keeps them on disk.
    #[napi]
    pub fn hub(&self) -> Result<NativeHub> {
        Ok(NativeHub(self.handle.get()?.hub().clone()))
    }

    /// True if a server computes.
    #[napi(getter)]
    pub fn is_remote(&self) -> Result<bool> {
        Ok(self.handle.get()?.is_remote())
    }

    /// Releases the runtime.
    #[napi]
    pub fn close(&self) {
        self.handle.close();
    }
}

/// Connects to a server.
#[napi]
pub async fn connect(url: String, key: String) -> Result<NativeRealm> {
    let realm = unblock(move || realm::Realm::connect(&url, &key)).await.map_err(failed)?;
    Ok(NativeRealm { handle: Handle::new("Realm", realm) })
}

/// Runs the `realm` command and returns its exit status. Blocks.
#[napi]
pub fn command(arguments: Vec<String>) -> u8 {
    realm_cli::run(arguments.into_iter().map(Into::into))
}
