//! The `realm` command as a user types it, with real models.

mod common;

use common::{realm, stderr_of_failure, stdout};
use serde_json::Value;

#[test]
fn the_readmes_first_command_answers() {
    let args = ["run", "qwen2.5-coder-0.5b", "What is the capital of France?", "--temperature", "0"];
    let output = realm(&args, "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "The capital of France is Paris.\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("tokens/s"));
}

#[test]
fn raw_text_goes_on_and_stops_where_asked() {
    let args = [
        "run",
        "gemma3-270m",
        "-",
        "--raw",
        "--temperature",
        "0",
        "--max-tokens",
        "24",
        "--stop",
        " France.",
    ];
    assert_eq!(stdout(&args, "The capital of France is"), " the capital of the country of\n");
    let error = stderr_of_failure(&["run", "gemma3-270m", "Hi"], "");
    assert!(error.contains("chat template") && error.contains("--raw"), "{error}");
    assert!(error.contains("--chat-template"), "{error}");
}

#[test]
fn a_chat_template_may_be_a_name_or_a_file() {
    fn asked(template: &str) -> Vec<&str> {
        let question = ["run", "smollm2-135m", "Once upon a", "--temperature", "0", "--max-tokens", "1"];
        [&question[..], &["--context", "256", "--chat-template", template]].concat()
    }
    // A template that renders only the messages makes the prompt plain text.
    let file = tempfile::NamedTempFile::with_suffix(".jinja").unwrap();
    std::fs::write(file.path(), "{{ messages[0].content }}").unwrap();
    assert_eq!(stdout(&asked(file.path().to_str().unwrap()), ""), " time\n");
    assert_eq!(stdout(&asked("{{ messages[0].content }}"), ""), " time\n");
    assert!(realm(&asked("chatml"), "").status.success());
    let error = stderr_of_failure(&asked("no-such-template"), "");
    assert!(error.contains("no-such-template") && error.contains("chatml"), "{error}");
}

#[test]
fn a_longer_context_than_trained_is_said() {
    let args = [
        "run",
        "smollm2-135m",
        "Hi",
        "--raw",
        "--max-tokens",
        "1",
        "--context",
        "8300",
        "--cache-type",
        "q8_0",
    ];
    let output = realm(&args, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("trained for 8192"), "{said}");
}

#[test]
fn the_same_seed_prints_the_same_text() {
    let run = |seed| {
        let args = ["run", "smollm2-135m", "Tell me a story.", "--max-tokens", "16", "--temperature", "1.5"];
        stdout(&[&args[..], &["--seed", seed]].concat(), "")
    };
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn an_answer_spells_what_a_grammar_allows() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let schema = r#"{"type": "object", "required": ["city"], "additionalProperties": false,
        "properties": {"city": {"type": "string", "maxLength": 20}}}"#;
    let run = |option: &str, value: &str| {
        let args = ["run", "smollm2-135m", "What is the capital of France?", "--temperature", "0"];
        stdout(&[&args[..], &[option, value]].concat(), "")
    };
    let (inline, read) = (run("--json-schema", schema), run("--json-schema", &file("schema.json", schema)));
    assert_eq!(inline, read);
    let value: Value = serde_json::from_str(&inline).unwrap();
    assert!(value["city"].is_string(), "{value}");
    let number = run("--regex", "[0-9]{4}");
    assert!(number.len() == 5 && number.trim().parse::<u32>().is_ok(), "{number}");
    let lark = "start: CITY \" or \" CITY\nCITY: \"Paris\" | \"Rome\"\n";
    assert!(run("--grammar", &file("city.lark", lark)).contains(" or "));
    let refused = stderr_of_failure(&["run", "smollm2-135m", "Hi", "--json-schema", "{\"not\": {}}"], "");
    assert!(refused.contains("the JSON schema is not supported") && refused.contains("not"), "{refused}");
    let refused = stderr_of_failure(&["run", "smollm2-135m", "Hi", "--json-schema", "no-such-file"], "");
    assert!(refused.contains("no-such-file"), "{refused}");
}

#[test]
fn what_is_wrong_is_said_with_what_would_be_right() {
    let error = stderr_of_failure(&["run", "smollm2-135m", "Hi", "--temperature", "-1"], "");
    assert!(error.contains("temperature is -1; it must be from 0"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let no_model = folder.path().join("no-model.gguf");
    std::fs::write(&no_model, "hello").unwrap();
    let no_model = no_model.to_str().unwrap();
    let error = stderr_of_failure(&["run", no_model, "Hi"], "");
    assert!(error.contains("no-model.gguf: ") && error.contains("it is no GGUF file"), "{error}");
    let error = stderr_of_failure(&["run", "smollm2-135m", "Hi", "--draft-model", no_model], "");
    assert!(error.contains("no-model.gguf: "), "{error}");
    #[cfg(feature = "sandbox")]
    {
        let error = stderr_of_failure(&["tenant", "inspect", no_model], "");
        assert!(error.contains("begin with `\\0asm`"), "{error}");
    }
    let short = realm(&["run", "smollm2-135m", "Tell me a story.", "--max-tokens", "2"], "");
    assert!(String::from_utf8_lossy(&short.stderr).contains("--max-tokens"));
}

#[test]
fn chat_remembers_what_was_said() {
    let args = ["chat", "smollm2-135m", "--temperature", "0", "--max-tokens", "24"];
    let out = stdout(&args, "My name is Ada.\nWhat is my name?\n/clear\n/exit\n");
    assert!(out.contains("Ada"), "{out}");
}

#[test]
fn tokenize_reads_and_writes_json_lines() {
    let text = "{\"text\": \"<|im_end|>\"}\n\n{\"text\": \"Hello, world!\"}\n";
    assert_eq!(
        stdout(&["tokenize", "smollm2-135m", "--special", "--json"], text),
        "{\"tokens\":[2]}\n{\"tokens\":[19556,28,905,17]}\n"
    );
    assert_eq!(
        stdout(&["tokenize", "gemma3-270m", "--bos"], "{\"text\": \"The capital of France is\"}"),
        "{\"tokens\":[2,818,5279,529,7001,563]}\n"
    );
    let error = stderr_of_failure(&["tokenize", "smollm2-135m"], "{\"text\": 1}");
    assert!(error.contains("line 1 of stdin"), "{error}");
}

#[test]
fn score_prints_the_likeliest_tokens_of_every_position() {
    let out = stdout(&["score", "smollm2-135m", "--json"], "{\"tokens\": [504, 3575, 282, 4649, 314]}");
    let value: Value = serde_json::from_str(&out).unwrap();
    let top = value["top"].as_array().unwrap();
    assert_eq!(top.len(), 5);
    assert_eq!(top[4].as_array().unwrap().len(), 5);
    assert_eq!(top[4][0][0], 7042);
    assert!((top[4][0][1].as_f64().unwrap() + 0.2644).abs() < 0.1, "{}", top[4]);
    let error = stderr_of_failure(&["score", "smollm2-135m"], "{\"tokens\": [99999999]}");
    assert!(error.contains("99999999"), "{error}");
}

#[test]
fn bench_prints_the_keys_of_its_peer() {
    let args =
        ["bench", "smollm2-135m", "--prompt", "32", "--generate", "4", "--batch", "1,2", "--repeat", "1"];
    let out = stdout(&[&args[..], &["--json"]].concat(), "");
    let value: Value = serde_json::from_str(&out).unwrap();
    for key in ["prefill_32", "decode_b1", "decode_b2", "load_s", "rss_loaded_mib", "rss_b2_mib"] {
        assert!(value[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {value}");
    }
}

#[test]
fn bench_of_contexts_prints_what_memory_allows_and_draws_it() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("plot.svg");
    let args = ["bench", "smollm2-135m", "--sweep", "--batch", "1,2", "--generate", "4", "--repeat", "1"];
    let lists = ["--contexts", "48,16,1000000", "--cache-types", "f32,q8_0", "--bandwidth", "0.01"];
    let out = stdout(&[&args[..], &lists, &["--svg", svg.to_str().unwrap(), "--json"]].concat(), "");
    let value: Value = serde_json::from_str(&out).unwrap();
    let points = value["points"].as_array().unwrap();
    // The context that no model has is left out.
    assert_eq!(points.len(), 8, "{value}");
    for point in points {
        let [decode, allows, prompt] =
            ["decode", "memory_allows", "prompt"].map(|key| point[key].as_f64().unwrap());
        assert!(decode > 0.0 && prompt > 0.0, "{point}");
        // Ten megabytes a second are so little that 32 more tokens of the cache show on any machine.
        let first = points
            .iter()
            .find(|first| ["cache_type", "sequences"].iter().all(|key| first[*key] == point[*key]))
            .unwrap();
        let shortest = first["decode"].as_f64().unwrap();
        assert!(
            if point["context"] == 16 { allows == shortest } else { allows < shortest },
            "{point} {first}"
        );
    }
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("2 sequences, q8_0"), "{drawn}");
    let error = stderr_of_failure(&[&args[..], &["--contexts", "1000000"]].concat(), "");
    assert!(error.contains("--contexts may be up to"), "{error}");
    // A file by its path, which is not in the cache folder.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
    let table = stdout(&[&["bench", file], &args[2..], &["--contexts", "16"]].concat(), "");
    assert!(table.lines().count() == 3 && table.contains("memory allows"), "{table}");
}

#[test]
fn bench_of_tenants_prints_one_object_and_its_live_view_stays_apart() {
    let args =
        ["bench", "smollm2-135m", "--tenants", "1,2", "--prefix", "40", "--generate", "16", "--repeat", "1"];
    let output = realm(&[&args[..], &["--json", "--live"]].concat(), "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    for count in ["1", "2"] {
        let tenants = &value["tenants"][count];
        for key in ["tokens_per_s", "fairness", "scheduler_share", "rss_mib", "kv_mib"] {
            assert!(tenants[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {value}");
        }
        for (key, percent) in
            ["ttft_s", "itl_s"].into_iter().flat_map(|k| ["p50", "p95", "p99"].map(|p| (k, p)))
        {
            assert!(tenants[key][percent].as_f64().is_some_and(|v| v > 0.0), "{key} {percent}: {value}");
        }
        assert!(tenants["scheduler_share"].as_f64().unwrap() < 1.0);
    }
    let table = stdout(&args, "");
    assert!(table.lines().count() == 3 && table.contains("fairness"), "{table}");
    let error = stderr_of_failure(&["bench", "smollm2-135m", "--tenants", "0"], "");
    assert!(error.contains("--tenants"), "{error}");
}

#[test]
fn models_are_listed_and_described() {
    let list = stdout(&["models", "list"], "");
    for name in ["smollm2-135m", "qwen2.5-coder-0.5b", "gemma3-270m"] {
        assert!(list.contains(name), "{list}");
    }
    let info = stdout(&["models", "info", "smollm2-135m"], "");
    assert!(info.contains("llama") && info.contains("49152 tokens") && info.contains("Q4_1"), "{info}");
    let error = stderr_of_failure(&["models", "pull", "no-such-model"], "");
    assert!(error.contains("not-found") || error.contains("no model is called"), "{error}");
}

#[test]
fn a_model_of_an_unknown_architecture_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    // Version 3, no tensors, one metadata entry: general.architecture = "martian".
    let mut file = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    for text in ["general.architecture", "martian"] {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
        if text.starts_with("general") {
            file.extend(8u32.to_le_bytes());
        }
    }
    std::fs::write(&path, file).unwrap();
    let error = stderr_of_failure(&["models", "info", path.to_str().unwrap()], "");
    assert!(error.contains("unsupported") && error.contains("martian"), "{error}");
}

#[test]
fn an_adapter_that_is_none_is_named() {
    let args = ["run", "smollm2-135m", "Hi", "--lora", "no-such-adapter.gguf=0.5"];
    let error = stderr_of_failure(&args, "");
    assert!(error.contains("no-such-adapter.gguf:") && error.contains("io"), "{error}");
}

#[test]
fn a_model_is_quantized_to_a_file_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("small.gguf");
    let out = out.to_str().unwrap();
    let [text, saved] = ["text.txt", "importances.gguf"].map(|name| folder.path().join(name));
    std::fs::write(&text, "The capital of France is Paris. The capital of Italy is Rome.").unwrap();
    let [text, saved] = [&text, &saved].map(|path| path.to_str().unwrap());
    let quantize = ["quantize", "smollm2-135m", out, "--type", "Q4_K_M"];
    let weighed = [&quantize[..], &["--imatrix-text", text, "--imatrix-save", saved]].concat();
    assert_eq!(stdout(&weighed, "").trim(), out);
    assert!(std::fs::read(saved).unwrap().starts_with(b"GGUF"));
    let both = [&quantize[..], &["--imatrix-text", text, "--imatrix", saved]].concat();
    assert!(stderr_of_failure(&both, "").contains("cannot be used with"));
    let info = stdout(&["models", "info", out], "");
    assert!(info.contains("Q6_K") && info.contains("Q5_0"), "{info}");
    let answer = stdout(
        &["run", out, "What is the capital of France? Answer in one sentence.", "--temperature", "0"],
        "",
    );
    assert!(answer.contains("Paris"), "{answer}");
    assert!(stderr_of_failure(&quantize, "").contains("remove it first"));
    let unknown = stderr_of_failure(&["quantize", "smollm2-135m", "x.gguf", "--type", "q9"], "");
    assert!(unknown.contains("`q9` is unknown") && unknown.contains("q4_k_m"), "{unknown}");
    let no_model = folder.path().to_str().unwrap();
    let error = stderr_of_failure(&["convert", no_model, "x.gguf"], "");
    assert!(error.contains("without config.json"), "{error}");
    assert!(stderr_of_failure(&["convert", out, "x.gguf"], "").contains("`realm quantize`"));
}
