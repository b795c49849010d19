//! The names that a user may give for a model.

use std::fmt;
use std::path::PathBuf;

use crate::cache::is_plain_name;
use crate::catalog::{Entry, catalog, find};
use crate::error::{Error, Result};

/// A name of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// A file or folder of the user's own.
    Path(PathBuf),
    /// A model of the catalog, or an [`Entry`] of your own.
    Catalog(Entry),
    /// A file of a Hugging Face repository.
    HuggingFace(HubFile),
    /// A Hugging Face repository, whose model is a folder as transformers saves it.
    Repository(HubRepository),
}

/// A Hugging Face repository, at its main branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRepository {
    owner: String,
    repo: String,
}

impl HubRepository {
    /// Parses `owner/repo`. Returns `None` for another form, or if a name has other characters than ASCII
    /// letters, digits, `.`, `-`, `_` and `+`.
    pub fn parse(text: &str) -> Option<HubRepository> {
        let (owner, repo) = text.split_once('/')?;
        let plain = is_plain_name(owner) && is_plain_name(repo);
        plain.then(|| HubRepository { owner: owner.to_owned(), repo: repo.to_owned() })
    }

    /// The user or organization.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's name without its owner.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// Returns a file of the repository; `None` if its name is not a plain one.
    pub(crate) fn file(&self, name: &str) -> Option<HubFile> {
        HubFile::parse(&format!("{self}/{name}"))
    }
}

impl fmt::Display for HubRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.repo)
    }
}

/// A file of a Hugging Face repository, at its main branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    owner: String,
    repo: String,
    file: String,
}

impl HubFile {
    /// Parses `owner/repo/file`, where the file may lie in folders. Returns `None` for another form, or if a
    /// name has other characters than ASCII letters, digits, `.`, `-`, `_` and `+`.
    pub fn parse(text: &str) -> Option<HubFile> {
        let mut parts = text.splitn(3, '/');
        let (owner, repo, file) = (parts.next()?, parts.next()?, parts.next()?);
        text.split('/').all(is_plain_name).then(|| HubFile {
            owner: owner.to_owned(),
            repo: repo.to_owned(),
            file: file.to_owned(),
        })
    }

    /// The user or organization.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's name without its owner.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The file's path in the repository.
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.owner, self.repo, self.file)
    }
}

impl Reference {
    /// Parses a catalog name, `hf:owner/repo/file.gguf`, `hf:owner/repo`, or a path: a name that exists as a
    /// file, has a separator in it or ends in `.gguf`. A catalog name wins over a file of that name; write
    /// `./name` for the file.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], which lists the catalog's names.
    pub fn parse(text: &str) -> Result<Reference> {
        let unknown = |reason| Error::UnknownModel {
            given: text.to_owned(),
            reason,
            names: catalog().iter().map(|entry| entry.name.clone()).collect(),
        };
        if let Some(entry) = find(text) {
            return Ok(Reference::Catalog(entry.clone()));
        }
        if let Some(file) = text.strip_prefix("hf:") {
            if let Some(repository) = HubRepository::parse(file) {
                return Ok(Reference::Repository(repository));
            }
            let file = HubFile::parse(file).filter(|file| file.file.ends_with(".gguf"));
            return file
                .map(Reference::HuggingFace)
                .ok_or_else(|| unknown(": after `hf:` comes owner/repo/file.gguf or owner/repo"));
        }
        let path = PathBuf::from(text);
        let looks_like_path = text.contains(std::path::is_separator) || text.ends_with(".gguf");
        if !text.is_empty() && (looks_like_path || path.exists()) {
            return Ok(Reference::Path(path));
        }
        Err(unknown(""))
    }
}

impl std::str::FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        Reference::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Path(path) => write!(f, "{}", path.display()),
            Reference::Catalog(entry) => f.write_str(&entry.name),
            Reference::HuggingFace(file) => write!(f, "hf:{file}"),
            Reference::Repository(repository) => write!(f, "hf:{repository}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_the_way_it_was_meant() {
        let parse = |text: &str| Reference::parse(text).expect(text);
        assert!(matches!(parse("smollm2-135m"), Reference::Catalog(e) if e.name == "smollm2-135m"));
        assert!(matches!(parse("./smollm2-135m"), Reference::Path(_)));
        assert!(matches!(parse("model.gguf"), Reference::Path(_)));
        assert!(matches!(parse("/models/anything"), Reference::Path(_)));
        assert!(matches!(parse("src"), Reference::Path(_)), "something that exists");
        let Reference::Repository(repository) = parse("hf:HuggingFaceTB/SmolLM3-3B") else {
            panic!("a repository")
        };
        assert_eq!((repository.owner(), repository.repo()), ("HuggingFaceTB", "SmolLM3-3B"));
        let Reference::HuggingFace(file) = parse("hf:Qwen/Qwen3-0.6B-GGUF/q8/model-Q8_0.gguf") else {
            panic!("a Hugging Face file")
        };
        assert_eq!(
            (file.owner(), file.repo(), file.file()),
            ("Qwen", "Qwen3-0.6B-GGUF", "q8/model-Q8_0.gguf")
        );
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_names_there_are() {
        for text in ["smollm2", "", "hf:Qwen", "hf:a/b/model.bin", "hf:a/../x.gguf", "hf:a/b//x.gguf"] {
            let message = Reference::parse(text).expect_err(text).to_string();
            for entry in catalog() {
                assert!(message.contains(&entry.name), "{message}");
            }
        }
    }
}
