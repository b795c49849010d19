//! Shared code of the examples: finds the programs that come with Realm.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the file of a program of `wasm-tenants/`. If the file does not exist, builds all programs, which
/// takes a minute or two.
///
/// # Errors
/// The programs cannot be built on this machine; the reason is on stderr.
pub fn program(name: &str) -> Result<PathBuf, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let file = target.join("programs").join(name).with_extension("wasm");
    if !file.exists() {
        eprintln!("building the programs in wasm-tenants/ (once)");
        let status = Command::new(root.join("ci/build-programs")).arg("rust").status()?;
        if !status.success() || !file.exists() {
            let why = format!("ci/build-programs made no {}", file.display());
            return Err(Error::new(ErrorKind::NotFound, why));
        }
    }
    Ok(file)
}
