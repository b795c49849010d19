//! Loading models and adapters, and compiling programs. All of it takes time: no thread of the reactor and no
//! holder of a lock calls it.

use std::sync::Arc;

use realm::{Adapter, Error, Model, OnProgress};

use crate::catalog::{Catalog, Compiled, Served, Work};
use crate::config::{AdapterConfig, ModelConfig};
use crate::state::State;

/// The most bytes of a program that a configuration names.
const LARGEST_PROGRAM: u64 = 64 << 20;

/// Loads a model, fetching it first if it is not on disk.
pub(crate) fn load_model(
    state: &State,
    name: &str,
    config: &ModelConfig,
    work: &Work,
) -> Result<Model, Error> {
    let source = config.source.as_deref().unwrap_or(name);
    let options = config.load_options(&state.load_options);
    let mut progress = OnProgress(|event| work.advanced(&event));
    state.catalog.realm().load_model_with(source, &options, &mut progress)
}

pub(crate) fn load_adapter(served: &Served, config: &AdapterConfig) -> Result<Adapter, Error> {
    served.model.load_adapter(&config.source)
}

/// Compiles a program on the account of its owner.
#[cfg(feature = "sandbox")]
pub(crate) fn compile(catalog: &Catalog, owner: &str, wasm: &[u8]) -> Result<Compiled, Error> {
    catalog.tenant(owner)?.tenant().compile_program(wasm)
}

/// Builds without the sandbox compile nothing.
#[cfg(not(feature = "sandbox"))]
pub(crate) fn compile(_: &Catalog, _: &str, _: &[u8]) -> Result<Compiled, String> {
    Err("this Realm was built without programs; use one with the feature `sandbox`".to_owned())
}

/// Reads a program's file.
pub(crate) fn read_program(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let in_file = |why: String| format!("{}: {why}", path.display());
    let bytes = std::fs::metadata(path).map_err(|error| in_file(error.to_string()))?.len();
    if bytes > LARGEST_PROGRAM {
        return Err(in_file(format!("it has {bytes} bytes; a program has at most {LARGEST_PROGRAM}")));
    }
    std::fs::read(path).map_err(|error| in_file(error.to_string()))
}

/// Returns SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in sha2::Sha256::digest(bytes) {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A catalog's models by name.
pub(crate) type Models = std::collections::BTreeMap<String, Arc<Served>>;
