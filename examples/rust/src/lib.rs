//! What the examples share: where the programs that come with Realm are.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file of a program of `wasm-tenants/`. Builds them all if it is not there yet, which takes a minute or two.
///
/// # Errors
/// They can't be built here; the reason is on stderr.
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
