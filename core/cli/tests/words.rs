//! The command's arguments and output: numbers, prompts, errors, streams. Every test runs in a folder of its
//! own.

mod common;

use std::process::Stdio;

use common::{model_file, realm, realm_in, stderr_of_failure, stdout};

const QUICK: [&str; 4] = ["--temperature", "0", "--max-tokens", "4"];

#[test]
fn minus_one_means_what_it_means_elsewhere() {
    let run = |more: &[&str]| {
        let output = realm(&[&["run", "smollm2-135m", "Say hi."], more].concat(), "");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{more:?}: {stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    };
    // No limit: the text ends where the model ends it, or at the context.
    let (text, said) = run(&["--temperature", "0", "--max-tokens", "-1", "--context", "256", "--stop", "!"]);
    assert!(!text.is_empty() && !said.contains("-1: no limit"), "{said}");
    let all = run(&[&QUICK[..], &["--top-k", "-1"]].concat());
    assert_eq!(all.0, run(&[&QUICK[..], &["--top-k", "0"]].concat()).0);
    // A random seed every time.
    let seeded = || run(&["--temperature", "3", "--max-tokens", "24", "--seed", "-1"]).0;
    assert_ne!(seeded(), seeded());
    for option in [["--threads", "-1"], ["--threads", "0"], ["--gpu-layers", "-1"]] {
        run(&[&QUICK[..], &option].concat());
    }
    for (option, value) in [("--max-tokens", "-2"), ("--top-k", "-2"), ("--seed", "-7"), ("--context", "-2")]
    {
        let output = realm(&["run", "smollm2-135m", "Hi", option, value], "");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(option) && stderr.contains("-1"), "{stderr}");
    }
}

#[test]
fn a_context_of_zero_is_the_models_own() {
    for context in ["0", "-1"] {
        let args = [
            "run",
            "smollm2-135m",
            "Once upon a time",
            "--raw",
            "--context",
            context,
            "--cache-type",
            "q8_0",
        ];
        let output = realm(&[&args[..], &["--max-tokens", "9", "--temperature", "0"]].concat(), "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("generated 9 tokens"), "{stderr}");
    }
}

#[test]
fn a_prompt_may_begin_with_a_hyphen_and_needs_no_quotes() {
    let run = |prompt: &[&str]| {
        let args = [&["run", "smollm2-135m"], prompt, &["--temperature", "0", "--max-tokens", "6"]].concat();
        stdout(&args, "")
    };
    assert_eq!(run(&["-5 + 3 is?"]), run(&["-5", "+", "3", "is?"]));
    assert_eq!(run(&["- buy milk"]), run(&["-", "buy", "milk"]));
    // Options may stand on both sides.
    let args = ["run", "--temperature", "0", "smollm2-135m", "-5 + 3 is?", "--max-tokens", "6"];
    assert_eq!(stdout(&args, ""), run(&["-5 + 3 is?"]));
    // Words after `--` are the prompt, even if they look like options.
    let args = ["run", "smollm2-135m", "--temperature", "0", "--max-tokens", "6", "--", "--help"];
    assert!(!stdout(&args, "").contains("Usage"));
    assert_eq!(
        stdout(
            &["run", "smollm2-135m", "-", "--raw", "--temperature", "0", "--max-tokens", "2"],
            "One, two,"
        ),
        stdout(&["run", "smollm2-135m", "--raw", "--temperature", "0", "--max-tokens", "2"], "One, two,")
    );
}

#[test]
fn a_mistyped_option_is_no_prompt() {
    let commands =
        [&["run", "m", "Hi", "--temprature", "0"][..], &["tenant", "run", "p", "m", "--temprature=0", "Hi"]];
    for args in commands.into_iter().filter(|args| exists(args)) {
        let output = realm(args, "");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("'--temprature") && stderr.contains("'--temperature'"), "{stderr}");
    }
    let output = realm(&["run", "m", "Hi", "-ngl", "99"], "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("unexpected argument '-n'"));
}

#[test]
fn an_incomplete_file_is_called_incomplete() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.gguf");
    let whole = std::fs::metadata(model_file("smollm2-135m")).unwrap().len();
    for len in [50_000_000u64, 1_000, 0] {
        let mut from = std::fs::File::open(model_file("smollm2-135m")).unwrap();
        let mut to = std::fs::File::create(&cut).unwrap();
        std::io::copy(&mut std::io::Read::take(&mut from, len), &mut to).unwrap();
        for command in
            [&["run", "cut.gguf", "Hi"][..], &["models", "info", "cut.gguf"], &["tokenize", "cut.gguf"]]
        {
            let output = realm_in(folder.path(), command, "");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(
                stderr.contains("cut.gguf") && stderr.contains("the download was not finished"),
                "{stderr}"
            );
            if len == 50_000_000 {
                assert!(stderr.contains(&format!("the file ends at byte 50000000 of {whole}")), "{stderr}");
            }
        }
    }
}

#[test]
fn more_threads_than_cores_are_lowered_with_a_warning() {
    let output = realm(&[&["run", "smollm2-135m", "Hi", "--threads", "1000"], &QUICK[..]].concat(), "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let cores = std::thread::available_parallelism().unwrap();
    assert!(
        stderr.contains("warning: 1000 threads") && stderr.contains(&format!("{cores} cores")),
        "{stderr}"
    );
}

#[test]
fn a_model_that_memory_has_no_room_for_is_refused_with_figures() {
    let run = |memory: &str, more: &[&str]| {
        let args = [&["run", "smollm2-135m", "Hi"], &QUICK[..], more].concat();
        let output = common::command(&args).env("REALM_MEMORY", memory).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run("64MiB", &[]);
    assert!(code == Some(1) && said.contains("64 MiB of memory are available"), "{said}");
    assert!(said.contains("MiB for weights and ") && said.contains("smaller model"), "{said}");
    let (code, said) = run("200MiB", &["--context", "100000"]);
    assert!(code == Some(1) && said.contains("for the KV cache") && said.contains("`--context`"), "{said}");
    // The size that the error recommends does fit.
    let tokens: String =
        said.split("(`--context`) to ").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    let (code, said) = run("200MiB", &["--context", &tokens]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run("200MiB", &[]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn an_unknown_device_is_answered_with_what_there_is() {
    for device in ["abacus", "cuda:99", "gpu", "cuda:0,0", "CPU:1"] {
        let error = stderr_of_failure(&["run", "smollm2-135m", "Hi", "--device", device], "");
        assert!(error.contains(device) && error.contains("this machine has `cpu`"), "{error}");
    }
}

#[test]
fn a_full_conversation_forgets_its_oldest_turns_and_says_so() {
    let turn = "Tell me about the sea, the sky, the mountains, the rivers and the forests of the world.\n";
    let args = ["chat", "smollm2-135m", "--system", "You are Ada.", "--context", "256", "--max-tokens", "24"];
    let output = realm(&[&args[..], &["--temperature", "0"]].concat(), &turn.repeat(8));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("/clear forgets") && stderr.contains("// begins a text"), "{stderr}");
    assert!(
        stderr.contains("the context of 256 tokens is full: the 2 oldest messages are forgotten"),
        "{stderr}"
    );
    assert_eq!(stderr.matches("generated").count(), 8, "every turn is answered: {stderr}");
}

#[test]
fn chat_has_commands_and_takes_a_slash() {
    let args = ["chat", "smollm2-135m", "--temperature", "0", "--max-tokens", "8"];
    let output = realm(&args, "/help\n/cleer\n//etc/hosts is what?\n/clear\n/bye\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("there is no command /cleer"), "{stderr}");
    assert!(stderr.contains("the conversation is forgotten"), "{stderr}");
    assert_eq!(stderr.matches("generated").count(), 1, "{stderr}");
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let commands: [&[&str]; 6] = [
        &["models", "list"],
        &["models", "info", "smollm2-135m"],
        &["run", "smollm2-135m", "Tell me a story.", "--max-tokens", "64"],
        &["bench", "smollm2-135m", "--prompt", "8", "--generate", "2", "--batch", "1", "--repeat", "1"],
        &["help"],
        &["tenant", "new", "program"],
    ];
    for args in commands.into_iter().filter(|args| exists(args)) {
        let folder = tempfile::tempdir().unwrap();
        let mut child = common::command(args)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
    // A closed stderr does not matter either.
    let mut child = common::command(&["run", "smollm2-135m", "Hi", "--max-tokens", "2", "--threads", "999"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn results_go_to_stdout_and_nothing_else_does() {
    let output = realm(&[&["run", "smollm2-135m", "Hi", "--threads", "999"], &QUICK[..]].concat(), "");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!stdout.contains("warning") && !stdout.contains("tokens/s"), "{stdout}");
    // No bars and no colors without a terminal.
    assert!(!stderr.contains('\x1b') && !stderr.contains("loading"), "{stderr}");
    let version = realm(&["--version"], "");
    assert!(version.status.success() && version.stderr.is_empty());
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("realm {}\n", env!("CARGO_PKG_VERSION")));
    assert!(realm(&["help"], "").status.success() && realm(&["help", "run"], "").status.success());
    assert_eq!(realm(&["no-such-command"], "").status.code(), Some(2));
    assert_eq!(realm(&[], "").status.code(), Some(2));
}

/// Returns whether a command exists in this build: those with programs need the feature `sandbox`.
fn exists(args: &[&str]) -> bool {
    cfg!(feature = "sandbox") || args[0] != "tenant" && !args.contains(&"--program")
}

/// Every error in an empty folder says what to do next, and no error is a panic.
#[test]
fn every_error_says_what_to_do_next() {
    let cases: [(&[&str], &str); 24] = [
        (&["run", "no-such-model", "Hi"], "one of: "),
        (&["run", "./missing.gguf", "Hi"], "missing.gguf"),
        (&["run", ".", "Hi"], "is a folder"),
        (&["run", "hf:owner/repo", "Hi"], "hf:owner/repo"),
        (&["run", "", "Hi"], "one of: "),
        (&["run", "smollm2-135m", "", "--raw"], "no tokens"),
        (&["run", "gemma3-270m", "Hi"], "--raw"),
        (&["run", "smollm2-135m", "Hi", "--lora", "missing"], "missing"),
        (&["run", "smollm2-135m", "Hi", "--json-schema", "{"], "JSON schema"),
        (&["run", "smollm2-135m", "Hi", "--json-schema", "missing.json"], "missing.json"),
        (&["run", "smollm2-135m", "Hi", "--grammar", "missing.lark"], "missing.lark"),
        (&["run", "smollm2-135m", "Hi", "--regex", "("], "regular expression"),
        (&["run", "smollm2-135m", "Hi", "--ban", "99999999"], "99999999"),
        (&["run", "smollm2-135m", "Hi", "--draft-model", "missing"], "one of: "),
        (&["chat", "gemma3-270m"], "--raw"),
        (&["models", "pull", "./missing.gguf"], "missing.gguf"),
        (&["models", "rm", "./missing.gguf"], "missing.gguf"),
        (&["models", "info", "."], "is a folder"),
        (&["tenant", "build"], "realm tenant new"),
        (&["tenant", "build", "missing"], "realm tenant new"),
        (&["tenant", "inspect", "missing"], "ci/build-programs"),
        (&["tenant", "run", "missing", "smollm2-135m", "Hi"], "ci/build-programs"),
        (&["tenant", "new", "9 lives"], "letters, digits"),
        (&["bench", "smollm2-135m", "--tenants", "1", "--program", "missing"], "ci/build-programs"),
    ];
    for (args, hint) in cases.into_iter().filter(|(args, _)| exists(args)) {
        let folder = tempfile::tempdir().unwrap();
        let output = realm_in(folder.path(), args, "");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}: {:?} {stderr}", output.status);
        assert!(stderr.contains(hint) && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}
