//! `include/realm.h` is of this crate's sources. `REALM_UPDATE=1` writes it.

use std::fs;
use std::path::Path;

#[test]
fn the_header_is_of_these_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_root_or_default(root);
    let mut text = Vec::new();
    cbindgen::Builder::new().with_config(config).with_crate(root).generate().unwrap().write(&mut text);
    let header = root.join("include/realm.h");
    if std::env::var_os("REALM_UPDATE").is_some() {
        fs::write(&header, &text).unwrap();
    }
    let there = fs::read(&header).unwrap_or_default();
    assert!(there == text, "realm.h is of other sources: run this test with REALM_UPDATE=1 and commit it");
}
