//! Files that scenarios load besides models: programs and an adapter. They are generated here and committed,
//! since the other languages do not have the tools. This test fails if the files do not match their sources;
//! `REALM_UPDATE=1` rewrites them.

use std::fs;
use std::path::Path;

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::common::adapter;
use crate::folder;

#[test]
fn programs_and_the_adapter_are_of_their_sources() {
    for entry in fs::read_dir(folder().join("programs")).unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_some_and(|e| e == "wat") {
            same(&source.with_extension("wasm"), &program(&fs::read_to_string(&source).unwrap()));
        }
    }
    // Sizes of smollm2-135m.
    same(&folder().join("adapter/adapter_model.safetensors"), &adapter(1536, 576));
}

fn same(file: &Path, bytes: &[u8]) {
    if std::env::var_os("REALM_UPDATE").is_some() {
        fs::write(file, bytes).unwrap();
    }
    let there = fs::read(file).unwrap_or_default();
    let why = "is of other sources: run this test with REALM_UPDATE=1 and commit what it writes";
    assert!(there == bytes, "{} {why}", file.display());
}

/// Returns a module that imports plain functions as it is, and one that imports the contract's functions with
/// the metadata of a component.
fn program(text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    if text.contains("realm:tenant/") {
        let mut resolve = Resolve::default();
        let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/wit");
        let (package, _) = resolve.push_path(contract).unwrap();
        let world = resolve.select_world(&[package], Some("tenant-program")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    }
    module
}
