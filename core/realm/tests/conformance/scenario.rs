//! Scenarios, step by step.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::folder;
use crate::matching::{mismatch, resolve};
use crate::operations::Runner;

/// Runs one file of scenarios, but for those that `left_out` gives a reason for. Returns the number of those
/// that were run.
pub(crate) fn run(
    area: &str,
    mut runner: Runner,
    left_out: impl Fn(&Value) -> Option<&'static str>,
) -> usize {
    let text = std::fs::read_to_string(folder().join(area).with_extension("json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let mut failures = Vec::new();
    let (mut runs, mut reasons) = (0, Vec::new());
    for scenario in file["scenarios"].as_array().unwrap() {
        if let Some(why) = left_out(scenario) {
            reasons.push(format!("left out, {why}: {}", scenario["name"]));
            continue;
        }
        runs += 1;
        runner.begin();
        for (i, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
            if let Err(why) = perform(&mut runner, step) {
                failures.push(format!("{}, step {i} (`{}`): {why}", scenario["name"], step["op"]));
                break;
            }
        }
    }
    println!("{}", reasons.join("\n"));
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    runs
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
