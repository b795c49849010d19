//! Fetching a file of a Hugging Face repository.
//!
//! hf-hub's own download keeps a second cache with its own names and, over plain HTTP, starts again after an
//! interruption. Here its byte stream is written where the model belongs, from the byte on that is missing.
//! Token, endpoint and proxy come from where hf-hub takes them: `HF_TOKEN`, `HF_ENDPOINT`, `HTTPS_PROXY`.

use std::error::Error as _;
use std::future::Future;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use hf_hub::repository::{HFRepository, RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFError};

use crate::cache::Place;
use crate::error::Reason;
use crate::partial::{Partial, Wanted};
use crate::reference::HubFile;

/// How long the hub may take for an answer or the next bytes, in seconds.
const SILENCE: u64 = 60;

/// How often in a row a connection may break without having brought anything.
const ATTEMPTS: u32 = 3;

/// What the network thread tells the thread that writes.
enum Message {
    /// The file's size in bytes, and whether what is in the partial file may stay.
    Size { size: u64, resume: bool },
    /// The next bytes.
    Bytes(Vec<u8>),
    /// There is no more; an error if that is too early.
    End(Result<(), Reason>),
}

/// Fetches `file` from `endpoint` (`None`: where hf-hub looks by itself) and puts it in place. `advanced` hears
/// of the bytes that are here and of the total.
pub(crate) fn fetch(
    endpoint: Option<&str>,
    file: &HubFile,
    place: &Place,
    wanted: &Wanted,
    advanced: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Reason> {
    let mut partial = Partial::resume(&place.partial)?;
    let mut wanted = wanted.clone();
    let (sender, receiver) = sync_channel(16);
    let (from, expected) = (partial.bytes(), wanted.size);
    // A thread of its own: the caller may be inside a tokio runtime, where another cannot be waited for.
    thread::scope(|scope| {
        scope.spawn(move || {
            let result = download(endpoint, file, from, expected, &sender);
            // The receiver is gone only where writing failed, and then that is the reason told.
            let _ = sender.send(Message::End(result));
        });
        for message in receiver {
            match message {
                Message::Size { size, resume } => {
                    wanted.size = Some(size);
                    if !resume {
                        partial.restart()?;
                    }
                    advanced(partial.bytes(), wanted.size);
                }
                Message::Bytes(bytes) => {
                    partial.append(&bytes, &wanted)?;
                    advanced(partial.bytes(), wanted.size);
                }
                Message::End(result) => return result,
            }
        }
        Err(Reason::Hub("the download ended without a result".to_owned()))
    })?;
    partial.finish(&place.model, &wanted)
}

/// Runs the transfer; `Ok` once all bytes are sent, or nobody wants them any more.
fn download(
    endpoint: Option<&str>,
    file: &HubFile,
    from: u64,
    expected: Option<u64>,
    sender: &SyncSender<Message>,
) -> Result<(), Reason> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut builder = HFClient::builder().retry_max_attempts(2).cache_enabled(false);
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint(endpoint);
        }
        let repository = builder.build().map_err(|e| said(&e))?.model(file.owner(), file.repo());
        let size = size(&repository, file).await?;
        if let Some(expected) = expected.filter(|&expected| expected != size) {
            let message = format!("the repository's file is another one: {size} bytes instead of {expected}");
            return Err(Reason::Hub(message));
        }
        // Bytes beyond the end are of another file.
        let resume = from <= size;
        let mut position = if resume { from } else { 0 };
        if sender.send(Message::Size { size, resume }).is_err() {
            return Ok(());
        }
        let mut attempt = 0;
        while position < size {
            attempt += 1;
            let before = position;
            match stream(&repository, file, &mut position, size, sender).await {
                Ok(()) => return Ok(()),
                Err(reason) if position == before && attempt >= ATTEMPTS => return Err(reason),
                Err(_) if position > before => attempt = 0,
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    })
}

/// The size of `file` in bytes.
async fn size(repository: &HFRepository<RepoTypeModel>, file: &HubFile) -> Result<u64, Reason> {
    let entries = answered(repository.get_paths_info().paths(vec![file.file().to_owned()]).send()).await?;
    let size = entries.map_err(|e| said(&e))?.into_iter().find_map(|entry| match entry {
        RepoTreeEntry::File { path, size, .. } if path == file.file() => Some(size),
        _ => None,
    });
    let missing = || Reason::Hub(format!("{} is not in {}/{}", file.file(), file.owner(), file.repo()));
    size.ok_or_else(missing)
}

/// Sends the bytes from `position` on, over one connection; `position` moves with them.
async fn stream(
    repository: &HFRepository<RepoTypeModel>,
    file: &HubFile,
    position: &mut u64,
    size: u64,
    sender: &SyncSender<Message>,
) -> Result<(), Reason> {
    let range = (*position > 0).then_some(*position..size);
    let request = repository.download_file_stream().filename(file.file()).maybe_range(range).send();
    let (_, mut stream) = answered(request).await?.map_err(|e| said(&e))?;
    while let Some(bytes) = answered(stream.next()).await? {
        let bytes = bytes.map_err(|e| said(&e))?;
        *position += bytes.len() as u64;
        if sender.send(Message::Bytes(bytes.to_vec())).is_err() {
            return Ok(());
        }
    }
    if *position < size {
        return Err(Reason::Hub(format!("the connection ended after {position} of {size} bytes")));
    }
    Ok(())
}

/// Waits for `future`, but not for ever: a network that drops packets says nothing at all.
async fn answered<F: Future>(future: F) -> Result<F::Output, Reason> {
    tokio::time::timeout(Duration::from_secs(SILENCE), future).await.map_err(|_| Reason::Silent(SILENCE))
}

/// hf-hub's error with its causes: the outermost alone is often only "error sending request".
fn said(error: &HFError) -> Reason {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    Reason::Hub(message)
}
