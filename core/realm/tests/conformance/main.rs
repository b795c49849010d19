//! Runs the scenarios of `tests/conformance`, which every language's package runs, on the Rust API. Its
//! README describes the operations.

#[path = "../common/mod.rs"]
mod common;
mod files;
mod matching;
mod operations;
#[cfg(feature = "sandbox")]
mod programs;
mod request;
mod scenario;
mod sessions;

use std::fs;
use std::path::{Path, PathBuf};

use operations::Runner;
use realm::{LoadOptions, Realm};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance")
}

/// Runs one file of scenarios, unless it is about programs and this build runs none.
fn run(area: &str) {
    if area == "programs" && cfg!(not(feature = "sandbox")) {
        return;
    }
    let realm = Realm::builder().threads(2).device("cpu").build().unwrap();
    let options = LoadOptions { kv_tokens: Some(4096), ..LoadOptions::default() };
    let model = realm.load_model_with("smollm2-135m", &options, &mut ()).unwrap();
    let load =
        Box::new(|realm: &Realm, name: &str, options: &LoadOptions, progress: &mut operations::Progress| {
            realm.load_model_with(name, options, progress)
        });
    scenario::run(area, Runner::new(realm, model, load), |_| None);
}

macro_rules! areas {
    ($($area:ident),*) => {
        $(#[test] fn $area() { run(stringify!($area)); })*

        #[test]
        fn every_file_of_scenarios_is_run() {
            let mut areas = [$(stringify!($area)),*];
            areas.sort_unstable();
            let mut files: Vec<_> = fs::read_dir(folder()).unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|e| e == "json"))
                .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            files.sort_unstable();
            assert_eq!(files, areas);
        }
    };
}

areas!(
    adapters, chats, errors, generation, grammars, lists, models, processors, programs, prompts, reasoning,
    sampling, sequences, streams, tenants, tools, vectors
);
