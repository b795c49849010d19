//! Random programs: refused, or run to some end, without a panic of the host's and without leaving anything
//! behind.
//!
//! Valid programs with changed bytes, the same in each run; and modules and components by wasm-smith, from
//! the folder that `REALM_RANDOM_PROGRAMS` names (`core/sandbox/fuzz` writes it). `REALM_MUTATIONS` is the
//! number of changed programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use realm_sandbox::ErrorKind;

use crate::guest::{greedy, policy, program};
use crate::host::{Host, Who, anybody, finish, resident, with};

fn hurried() -> Who {
    with(|limits| {
        limits.program.cpu_time = Duration::from_millis(20);
        limits.program.memory = 16 << 20;
        limits.program.output = 1 << 20;
        limits.request_timeout = Some(Duration::from_millis(200));
    })
}

/// Tries programs; returns the numbers of all, of those that ran, and of those that succeeded.
fn try_all(programs: impl Iterator<Item = (String, Vec<u8>)>) -> (usize, usize, usize) {
    let host = Host::tiny();
    let (mut tried, mut ran, mut well, mut before) = (0, 0, 0, 0);
    for (name, wasm) in programs {
        tried += 1;
        match host.sandbox.compile(&wasm) {
            Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{name}: {error}"),
            Ok(program) => {
                ran += 1;
                match finish(host.start(&program, &hurried()).unwrap()) {
                    Ok(_) => well += 1,
                    Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{name}: {error}"),
                }
            }
        }
        if tried == 100 {
            before = resident();
        }
    }
    // All memory of the runs is freed.
    host.settle();
    let grown = resident().saturating_sub(before);
    eprintln!(
        "{tried} programs, {ran} ran, {well} of them well; {} MB more than after the first 100",
        grown >> 20
    );
    assert!(grown < 256 << 20, "{} MB", grown >> 20);
    assert_eq!(host.run(&greedy(5, 3), &anybody()).unwrap().tokens.len(), 3);
    (tried, ran, well)
}

#[test]
fn programs_with_changed_bytes_are_refused_or_run() {
    let count = std::env::var("REALM_MUTATIONS").map_or(300, |count| count.parse().expect("a number"));
    let mut right = vec![
        greedy(5, 3),
        program("(global.get $OK)", ""),
        policy("(call $logits.drop (local.get $logits)) (global.get $OK)", "(global.get $OK)"),
        wat::parse_str(
            r#"(module (import "realm" "encode" (func $encode (param i64 i64 i64 i64) (result i64))) (memory (export "memory") i64 1)
                (func (export "realm_run") (result i32) (drop (call $encode (i64.const 0) (i64.const 9) (i64.const 64) (i64.const 9))) i32.const 0))"#,
        )
        .unwrap(),
    ];
    // As components, so that every section is changed.
    for i in 0..3 {
        let encoded = wit_component::ComponentEncoder::default().module(&right[i]).unwrap().encode().unwrap();
        right.push(encoded);
    }
    // The repository's programs, if they were built.
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/programs");
    for name in ["chat", "policy-redact", "template"] {
        right.extend(std::fs::read(built.join(name).with_extension("wasm")).ok());
    }
    let mut chance = Chance(1);
    let changed = (0..count).map(|i| {
        let mut wasm = right[i % right.len()].clone();
        for _ in 0..=chance.below(2) {
            let other = &right[chance.below(right.len())];
            chance.change(&mut wasm, other);
        }
        (format!("mutation {i}"), wasm)
    });
    let (tried, ran, _) = try_all(changed);
    assert_eq!(tried, count);
    assert!(ran > 0 && ran < tried, "{ran} of {tried}");
}

#[test]
fn random_programs_are_refused_or_run() {
    let Ok(folder) = std::env::var("REALM_RANDOM_PROGRAMS") else {
        eprintln!("SKIPPED: REALM_RANDOM_PROGRAMS names no folder; core/sandbox/fuzz writes one");
        return;
    };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (tried, ran, well) =
        try_all(files.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap())));
    assert!(tried > 0 && ran > 0 && well > 0);
}

/// Returns the plain functions with the WebAssembly types of their parameters, as their source declares them.
fn plain_functions() -> Vec<(&'static str, Vec<&'static str>)> {
    let source = include_str!("../../src/raw/calls.rs");
    let (_, table) = source.split_once("functions! {").unwrap();
    let (table, _) = table.split_once("\n}").unwrap();
    let declared = table.split("\n    fn ").skip(1).map(|text| text.split_once('(').unwrap());
    let functions = declared.map(|(name, rest)| {
        let parameters = rest.split(')').next().unwrap().split(',').filter(|text| !text.is_empty());
        (name, parameters.map(|text| if text.ends_with(" f32") { "f32" } else { "i32" }).collect())
    });
    functions.collect()
}

/// A core module that calls plain functions with random arguments: addresses in and beyond its memory,
/// handles that earlier calls returned, and other numbers.
fn random_calls(chance: &mut Chance, functions: &[(&str, Vec<&str>)]) -> Vec<u8> {
    const RESULTS: usize = 8;
    let mut imports = String::new();
    for (name, parameters) in functions {
        let parameters = parameters.join(" ");
        imports.push_str(&format!(
            "(import \"realm\" \"{name}\" (func ${name} (param {parameters}) (result i64)))"
        ));
    }
    let mut calls = String::new();
    for _ in 0..60 {
        let (name, parameters) = &functions[chance.below(functions.len())];
        let mut arguments = String::new();
        for kind in parameters {
            let number = match chance.below(10) {
                0 => u32::MAX - chance.below(3) as u32,
                1 => 65_536 - chance.below(9) as u32,
                2 => chance.next() as u32,
                3..6 => chance.below(4) as u32,
                _ => chance.below(64) as u32,
            };
            arguments.push_str(&match *kind {
                "f32" => format!("(f32.reinterpret_i32 (i32.const {}))", chance.next() as u32 as i32),
                _ if chance.below(2) == 0 => {
                    format!("(i32.wrap_i64 (local.get $r{}))", chance.below(RESULTS))
                }
                _ => format!("(i32.const {})", number as i32),
            });
        }
        calls.push_str(&format!("(local.set $r{} (call ${name} {arguments}))", chance.below(RESULTS)));
    }
    let locals: String = (0..RESULTS).map(|i| format!("(local $r{i} i64)")).collect();
    let module = format!(
        r#"(module {imports} (memory (export "memory") 1) (data (i32.const 0) "the quick brown fox")
        (func (export "realm_run") (result i32) {locals} {calls} (i32.const 0)))"#
    );
    wat::parse_str(module).unwrap()
}

#[test]
fn random_calls_of_plain_functions_end_in_results_or_errors() {
    let count = std::env::var("REALM_MUTATIONS").map_or(150, |count| count.parse().expect("a number"));
    let functions = plain_functions();
    assert!(functions.len() > 30 && functions.iter().any(|&(name, _)| name == "matmul"));
    let mut chance = Chance(2);
    let (tried, ran, well) =
        try_all((0..count).map(|i| (format!("calls {i}"), random_calls(&mut chance, &functions))));
    // A call fails by its result and not by a trap, so that most modules come to their end.
    assert!(tried == count && ran == count && well > count / 2, "{well} of {ran} of {tried}");
}

/// Random numbers (SplitMix64), the same in each run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn change(&mut self, wasm: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(wasm.len());
        let len = 1 + self.below(16);
        let end = (at + len).min(wasm.len());
        match self.below(10) {
            0 | 6..10 if !wasm.is_empty() => wasm[at] ^= 1 << self.below(8),
            1 if !wasm.is_empty() => wasm[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            2 => drop(wasm.drain(at..end)),
            3 => {
                let again = wasm[at..end].to_vec();
                wasm.splice(at..at, again);
            }
            4 => {
                let from = self.below(other.len());
                let part = &other[from..(from + len).min(other.len())];
                wasm.splice(at..end, part.iter().copied());
            }
            _ if self.below(8) == 0 => wasm.truncate(at),
            _ => wasm.splice(at..at, [self.next() as u8]).for_each(drop),
        }
    }
}
