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
mod sessions;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use matching::{mismatch, resolve};
use operations::Runner;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance")
}

/// Runs one file of scenarios, unless it is about programs and this build runs none.
fn run(area: &str) {
    if area == "programs" && cfg!(not(feature = "sandbox")) {
        return;
    }
    let text = fs::read_to_string(folder().join(area).with_extension("json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let mut runner = Runner::new();
    let mut failures = Vec::new();
    for scenario in file["scenarios"].as_array().unwrap() {
        runner.begin();
        for (i, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
            if let Err(why) = perform(&mut runner, step) {
                failures.push(format!("{}, step {i} (`{}`): {why}", scenario["name"], step["op"]));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Runs one step: the operation, and the check of its outcome against the scenario.
fn perform(runner: &mut Runner, step: &Value) -> Result<(), String> {
    let arguments = resolve(step, runner.values())?;
    let patience = if step["eventually"] == true { Duration::from_secs(10) } else { Duration::ZERO };
    let began = Instant::now();
    loop {
        let outcome = check(runner, step, &arguments);
        if outcome.is_ok() || began.elapsed() >= patience {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn check(runner: &mut Runner, step: &Value, arguments: &Value) -> Result<(), String> {
    match (runner.operate(arguments), &arguments["error"]) {
        (Ok(result), Value::Null) => {
            if let Some(name) = step["as"].as_str() {
                runner.keep(name, result.clone());
            }
            // Expectations may refer to this step's own result.
            let expected = resolve(&step["expect"], runner.values())?;
            if expected.is_null() { Ok(()) } else { mismatch(&result, &expected).map_or(Ok(()), Err) }
        }
        (Ok(result), _) => Err(format!("an error was expected, not {result}")),
        (Err(error), Value::Null) => Err(error.to_string()),
        (Err(error), expected) => {
            let said = json!({"code": error.code().as_str(), "message": error.message()});
            mismatch(&said, expected).map_or(Ok(()), Err)
        }
    }
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
