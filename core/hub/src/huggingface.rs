//! Fetches a file of a Hugging Face repository.
//!
//! The crate hf-hub gives URLs and headers with the user's token. Its own download is not used: it keeps a
//! second cache with its own names, and waits forever on a silent network. Here the byte stream is written to
//! the model's place, from the first missing byte on.
//!
//! Users have the same settings as in other clients of the hub: `HF_TOKEN` (or the token that `hf auth login`
//! stored), `HF_ENDPOINT`, and `ALL_PROXY` or `HTTPS_PROXY` with `NO_PROXY`. A server at an `http://` address
//! is asked directly: the client asks a proxy only for tunnels, and few proxies open one to such a server.

use std::env;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use hf_hub::Cache;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::{Body, RequestBuilder};

use crate::cache::Place;
use crate::error::Reason;
use crate::partial::{Partial, Wanted, is_sha256};
use crate::reference::{HubFile, HubRepository};

/// The longest time that the hub may take for an answer or the next bytes, in seconds.
const SILENCE: u64 = 60;

/// The number of attempts in a row that may fail without progress.
const ATTEMPTS: u32 = 3;

/// The number of bytes that are read at once.
const CHUNK: usize = 1 << 17;

/// The reason why an attempt failed.
enum Trouble {
    /// Another attempt may succeed.
    Passing(Reason),
    /// Further attempts would fail, too.
    Lasting(Reason),
}

/// The fields of the hub's answer about a repository that are used here.
#[derive(Deserialize)]
struct Info {
    siblings: Vec<Sibling>,
}

/// A file of the repository.
#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

/// The record of a file that is too large for git, as models are.
#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

/// Fetches `file` from `endpoint` (`None`: `HF_ENDPOINT`, else the public one), puts it in place, and returns
/// its hash. Calls `advanced` with the number of bytes so far and the total.
pub(crate) fn fetch(
    endpoint: Option<&str>,
    file: &HubFile,
    place: &Place,
    wanted: &Wanted,
    advanced: &mut dyn FnMut(u64, Option<u64>),
) -> Result<String, Reason> {
    let repository = repository(endpoint, repository_of(file))?;
    let (size, sha256) = insist(|_| look_up(&repository, file))?;
    let wanted = agree(wanted, size, sha256)?;
    let mut partial = Partial::resume(&place.partial)?;
    // Bytes beyond the end belong to another file.
    if partial.bytes() > size {
        partial.restart()?;
    }
    advanced(partial.bytes(), wanted.size);
    let mut most = partial.bytes();
    insist(|failures| {
        let result = stream(&repository, file, &mut partial, size, &wanted, advanced);
        if partial.bytes() > most {
            (most, *failures) = (partial.bytes(), 0);
        }
        result
    })?;
    partial.finish(&place.model, &wanted)
}

/// Returns the names of all files of a repository.
pub(crate) fn files(endpoint: Option<&str>, repository: &HubRepository) -> Result<Vec<String>, Reason> {
    let api = self::repository(endpoint, repository.to_string())?;
    let info: Info = insist(|_| {
        let response = answer(request(&api).query("blobs", "true"), &repository.to_string())?;
        response.into_body().read_json().map_err(|e| said("the hub", e))
    })?;
    Ok(info.siblings.into_iter().map(|sibling| sibling.rfilename).collect())
}

/// Returns hf-hub's handle of a repository.
fn repository(endpoint: Option<&str>, name: String) -> Result<ApiRepo, Reason> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    // By itself hf-hub knows only the stored token, and panics without a home folder.
    let home = variable("HF_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| PathBuf::from(folder).join("huggingface")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache").join("huggingface")));
    let stored = home.as_ref().and_then(|home| Cache::new(home.join("hub")).token());
    let kept = || fs::read_to_string(variable("HF_TOKEN_PATH")?).ok();
    let token = variable("HF_TOKEN").or_else(kept).map(|token| token.trim().to_owned());
    let token = token.filter(|token| !token.is_empty()).or(stored);
    let implicit = variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_none();
    let cache = Cache::new(home.unwrap_or_default().join("hub"));
    let mut builder = ApiBuilder::from_cache(cache).with_token(token.filter(|_| implicit));
    if let Some(endpoint) = endpoint.map(str::to_owned).or_else(|| variable("HF_ENDPOINT")) {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let api = builder.build().map_err(|e| Reason::Hub(e.to_string()))?;
    Ok(api.model(name))
}

/// Makes attempts until one succeeds, or [`ATTEMPTS`] in a row have failed. An attempt that made progress
/// sets the count that it is given back to 0.
fn insist<T>(mut attempt: impl FnMut(&mut u32) -> Result<T, Trouble>) -> Result<T, Reason> {
    let mut failures = 0;
    loop {
        match attempt(&mut failures) {
            Ok(value) => return Ok(value),
            Err(Trouble::Lasting(reason)) => return Err(reason),
            Err(Trouble::Passing(reason)) => {
                failures += 1;
                if failures >= ATTEMPTS {
                    return Err(reason);
                }
            }
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Returns the size of `file` in bytes, and its SHA-256 if the hub knows it.
fn look_up(repository: &ApiRepo, file: &HubFile) -> Result<(u64, Option<String>), Trouble> {
    let response =
        answer(request(repository).query("blobs", "true"), &repository_of(file)).map_err(|trouble| {
            match trouble {
                // A server that did not answer once is not asked again: the model may have another source.
                Trouble::Passing(reason @ Reason::Silent(_)) => Trouble::Lasting(reason),
                trouble => trouble,
            }
        })?;
    let info: Info = response.into_body().read_json().map_err(|e| said("the hub", e))?;
    let found = info.siblings.into_iter().find(|sibling| sibling.rfilename == file.file());
    let lasting = |message: String| Trouble::Lasting(Reason::Hub(message));
    let found = found
        .ok_or_else(|| lasting(format!("{} is not in {}/{}", file.file(), file.owner(), file.repo())))?;
    let size = found.size.ok_or_else(|| lasting("the hub does not say how large the file is".to_owned()))?;
    Ok((size, found.lfs.and_then(|lfs| lfs.sha256).filter(|sha256| is_sha256(sha256))))
}

/// Combines the expected size and hash with the hub's. Fails if they differ: the repository's file may be
/// another one by now.
fn agree(wanted: &Wanted, size: u64, sha256: Option<String>) -> Result<Wanted, Reason> {
    let other = |what: String| Reason::Hub(format!("the repository's file is another one: {what}"));
    if let Some(expected) = wanted.size.filter(|&expected| expected != size) {
        return Err(other(format!("{size} bytes instead of {expected}")));
    }
    match (&wanted.sha256, &sha256) {
        (Some(expected), Some(actual)) if expected != actual => {
            Err(other(format!("its SHA-256 is {actual} instead of {expected}")))
        }
        (expected, _) => Ok(Wanted { size: Some(size), sha256: expected.clone().or(sha256) }),
    }
}

/// Appends the missing bytes up to `size`, over one connection.
fn stream(
    repository: &ApiRepo,
    file: &HubFile,
    partial: &mut Partial,
    size: u64,
    wanted: &Wanted,
    advanced: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Trouble> {
    let lasting = |e: std::io::Error| Trouble::Lasting(e.into());
    let from = partial.bytes();
    if from == size {
        return Ok(());
    }
    let mut request = request(repository).uri(repository.url(file.file()));
    if from > 0 {
        request = request.header("range", format!("bytes={from}-{}", size - 1));
    }
    let response = answer(request, &repository_of(file))?;
    // A server may disregard the range and send the whole file.
    if from > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
        partial.restart().map_err(lasting)?;
    }
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; CHUNK];
    while partial.bytes() < size {
        let n = body.read(&mut buffer).map_err(|e| said("the hub", e.into()))?;
        if n == 0 {
            let message = format!("the connection ended after {} of {size} bytes", partial.bytes());
            return Err(Trouble::Passing(Reason::Hub(message)));
        }
        partial.append(&buffer[..n], wanted).map_err(Trouble::Lasting)?;
        advanced(partial.bytes(), Some(size));
    }
    Ok(())
}

/// Creates a request for the repository's metadata, with hf-hub's headers.
fn request(repository: &ApiRepo) -> RequestBuilder<WithoutBody> {
    let silence = Some(Duration::from_secs(SILENCE));
    let config = repository
        .info_request()
        .config()
        // The operating system's certificates, which include that of a company's own proxy.
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        // A compressed stream could not resume at a byte of the file.
        .accept_encoding("identity")
        .http_status_as_error(false)
        .timeout_resolve(silence)
        .timeout_connect(silence)
        .timeout_recv_response(silence)
        .timeout_per_write(silence)
        .timeout_per_read(silence);
    if repository.url("").starts_with("http:") { config.proxy(None).build() } else { config.build() }
}

fn repository_of(file: &HubFile) -> String {
    format!("{}/{}", file.owner(), file.repo())
}

/// Sends `request` about `repository`; returns the response only if its status is a success.
fn answer(request: RequestBuilder<WithoutBody>, repository: &str) -> Result<Response<Body>, Trouble> {
    let server = request.uri_ref().and_then(|uri| uri.host()).unwrap_or("the hub").to_owned();
    let response = request.call().map_err(|e| said(&server, e))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let reason = Reason::Hub(match status.as_u16() {
        // Without the right token the hub does not tell the two cases apart.
        401 | 404 => {
            format!("{repository} does not exist, or HF_TOKEN is no token that may see it ({status})")
        }
        403 => format!("{repository} is for those who asked for it on its page: set HF_TOKEN ({status})"),
        _ => format!("the hub answered {status}"),
    });
    let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
    Err(if passing { Trouble::Passing(reason) } else { Trouble::Lasting(reason) })
}

/// Words the client's error for a reader who does not know the client.
fn said(server: &str, error: ureq::Error) -> Trouble {
    Trouble::Passing(match error {
        ureq::Error::Timeout(_) => Reason::Silent(SILENCE),
        ureq::Error::Io(e) => Reason::Hub(format!("{server}: {e}")),
        error => Reason::Hub(format!("{server}: {error}")),
    })
}
