//! The five examples that exist in every language print the same as in the other languages.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs an example, which is built with the tests, and returns its output.
fn run(name: &str, arguments: &[&Path], stdin: &str) -> String {
    let this = std::env::current_exe().unwrap();
    let built = this.ancestors().nth(2).unwrap().join("examples").join(name);
    let mut child =
        Command::new(built).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn hello_and_chat_say_paris() {
    assert_eq!(run("hello", &[], ""), "The capital of France is Paris.\n");
    assert_eq!(run("chat", &[], "What is the capital of France?\n"), "The capital of France is Paris.\n");
}

#[test]
fn tenants_are_answered_together() {
    assert_eq!(run("tenants", &[], ""), include_str!("../../../tests/conformance/tenants.txt"));
}

#[test]
fn a_program_calls_a_tool() {
    let agent = realm_examples::program("agent").unwrap();
    let printed = run("program", &[&agent], "");
    assert!(printed.contains("(the program asks for the weather in Paris)"), "{printed}");
    assert!(printed.contains("heavy snow"), "{printed}");
}

#[test]
fn guided_json_has_its_fields() {
    let printed = run("guided", &[], "");
    assert!(printed.contains("city: Paris\ncountry: France\n"), "{printed}");
}
