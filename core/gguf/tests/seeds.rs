//! The committed initial files of the fuzzer equal those of the tests' writer.

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;

use common::samples::seeds;

/// `REALM_WRITE_SEEDS=1` writes the files again.
#[test]
fn the_fuzzer_starts_from_current_files() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/open");
    for (name, bytes) in seeds() {
        assert!(bytes.len() < 4096, "{name} has {} bytes", bytes.len());
        let path = folder.join(name);
        if std::env::var_os("REALM_WRITE_SEEDS").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let there = std::fs::read(&path).unwrap_or_default();
        assert!(there == bytes, "{} is out of date: see fuzz/README.md", path.display());
    }
    let files: BTreeSet<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, seeds().iter().map(|(name, _)| (*name).into()).collect());
}
