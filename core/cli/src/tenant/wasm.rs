//! Builds Rust programs for WebAssembly with the toolchain that the machine has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::steps::{narrated, step};
use crate::output::note;

const TARGET: &str = "wasm32-unknown-unknown";

/// A cargo that can build for the target, and the environment that it needs.
struct Toolchain {
    cargo: PathBuf,
    arguments: Vec<&'static str>,
    environment: Vec<(&'static str, PathBuf)>,
}

/// Builds the package in a folder; returns its WebAssembly file, which lies beside its `Cargo.toml`.
pub(super) fn build(folder: &Path) -> Result<PathBuf> {
    let manifest = folder.join("Cargo.toml");
    if !manifest.exists() {
        bail!("there is no {}; begin a program with `realm tenant new NAME`", manifest.display());
    }
    let toolchain = Toolchain::find()?;
    let first = !folder.join("target").join(TARGET).exists();
    let with_std = first && !toolchain.arguments.is_empty();
    note!(
        "building {} for {TARGET}{}",
        folder.display(),
        match (first, with_std) {
            (_, true) =>
                ": the first build compiles Rust's standard library and the SDK too, which takes a minute or two",
            (true, _) => ": the first build compiles the SDK too, which takes half a minute",
            _ => "",
        }
    );
    let mut cargo = toolchain.command();
    cargo
        .args(["build", "--release", "--target", TARGET, "--manifest-path"])
        .arg(&manifest)
        .args(&toolchain.arguments);
    let status = narrated(&mut cargo, "still compiling").context("cannot run cargo")?;
    if !status.success() {
        bail!(
            "the program does not build: mend what cargo says above, then run `realm tenant build {}` again",
            folder.display()
        );
    }
    let metadata = toolchain
        .command()
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    let metadata: Value = serde_json::from_slice(&metadata.stdout).context("cargo's metadata")?;
    let package = metadata["packages"][0]["name"].as_str().context("the folder has no package")?;
    let target = metadata["target_directory"].as_str().context("cargo has no target folder")?;
    let built =
        Path::new(target).join(TARGET).join("release").join(package.replace('-', "_")).with_extension("wasm");
    let file = folder.join(package).with_extension("wasm");
    std::fs::copy(&built, &file).with_context(|| {
        format!("cannot copy {}: `[lib] crate-type = [\"cdylib\"]` in Cargo.toml makes one", built.display())
    })?;
    Ok(file)
}

impl Toolchain {
    /// Finds rustup's target, installing it if needed, or else Debian's compiler with the sources of the
    /// standard library.
    fn find() -> Result<Self> {
        let sysroot = output("rustc", &["--print", "sysroot"]).context(
            "Rust is not installed, which `realm tenant build` compiles programs with: see https://rustup.rs",
        )?;
        let sysroot = Path::new(&sysroot);
        let has_target = || sysroot.join("lib/rustlib").join(TARGET).join("lib").exists();
        let add = || run("rustup", &["target", "add", TARGET]);
        let added =
            || run("rustup", &["--version"]) && step(&format!("fetching Rust's {TARGET} with rustup"), add);
        if has_target() || added() && has_target() {
            return Ok(Self { cargo: "cargo".into(), arguments: Vec::new(), environment: Vec::new() });
        }
        let packages = ["rustc-web", "cargo-web", "rust-web-src"];
        let debian = || Some((file_of("rustc-web", "/bin/rustc")?, file_of("cargo-web", "/bin/cargo")?));
        if debian().is_none() && run("apt-get", &["--version"]) {
            let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
            arguments.extend(packages);
            let what = format!("rustup has no {TARGET} here; installing Debian's {}", packages.join(", "));
            step(&what, || run("apt-get", &arguments));
        }
        let Some((rustc, cargo)) = debian() else {
            bail!(
                "there is no Rust for {TARGET}: run `rustup target add {TARGET}` or, on Debian as root, `apt-get install {}`",
                packages.join(" ")
            );
        };
        let linker = std::fs::read_dir(sysroot.join("lib/rustlib"))?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin/rust-lld")))
            .find(|linker| linker.exists())
            .context("this Rust has no rust-lld, which links WebAssembly")?;
        Ok(Self {
            cargo,
            arguments: vec!["-Zbuild-std=std,panic_abort"],
            environment: vec![
                ("RUSTC", rustc),
                ("RUSTC_BOOTSTRAP", "1".into()),
                ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker),
            ],
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        if !self.environment.is_empty() {
            // These variables of rustup's would send this cargo back to rustup's compiler.
            for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC_WRAPPER", "RUSTDOC"] {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().cloned());
        command
    }
}

/// Runs a program quietly; returns whether it exists and succeeded.
fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Returns the file of a Debian package whose path ends with `end`.
fn file_of(package: &str, end: &str) -> Option<PathBuf> {
    let files = output("dpkg", &["-L", package]).ok()?;
    files.lines().find(|file| file.ends_with(end)).map(PathBuf::from)
}
