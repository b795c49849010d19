//! The worst modules of each kind, and the sizes of real programs.

use std::time::Instant;

#[allow(dead_code, unreachable_pub, reason = "the other tests use the rest")]
#[path = "../../tests/hostile/worst.rs"]
mod worst;

#[allow(dead_code, unreachable_pub, reason = "the other tests use the rest")]
#[path = "../../../../tests/hostile/src/status.rs"]
mod status;

use status::{peak, resident};
use worst::{KINDS, Worst};

use super::*;

/// Returns the largest module of a kind that passes.
fn largest(kind: &Worst) -> Vec<u8> {
    let (mut low, mut high) = (1, 2_000_000);
    while high - low > 1 + low / 50 {
        let middle = if high > 4 * low { 2 * low } else { (low + high) / 2 };
        match check(&kind.module(middle)) {
            Ok(_) => low = middle,
            Err(_) => high = middle,
        }
    }
    kind.module(low)
}

#[test]
fn what_takes_a_compiler_long_is_refused_by_name() {
    for (kind, size, words) in [
        (Worst { kind: "loops", width: 0 }, 5000, "loops in each other; it may have 200"),
        (Worst { kind: "blocks", width: 0 }, 5000, "blocks in each other; it may have 2000"),
        (Worst { kind: "live", width: 49_000 }, 1000, "locals; it may have 10000"),
        (Worst { kind: "live_stack", width: 49_000 }, 1000, "values on its stack; it may have 10000"),
        (Worst { kind: "live", width: 9_000 }, 3000, "steps"),
        (Worst { kind: "results", width: 1000 }, 900, "steps"),
        (Worst { kind: "params", width: 1000 }, 4000, "steps"),
        (Worst { kind: "block_params", width: 100 }, 1000, "steps"),
        (Worst { kind: "loops_locals", width: 2000 }, 150, "steps"),
        (Worst { kind: "ifs_use", width: 100 }, 1000, "steps"),
        (Worst { kind: "call_indirect", width: 0 }, 100_000, "steps"),
        (Worst { kind: "straight", width: 0 }, 1_100_000, "bytes of code; it may have 1048576"),
        (Worst { kind: "tiny", width: 0 }, 900_000, "functions; it may have 100000"),
        (Worst { kind: "types", width: 0 }, 30_000, "types; it may have 20000"),
        (Worst { kind: "imports", width: 0 }, 30_000, "imports; it may have 10000"),
        (Worst { kind: "exports", width: 0 }, 200_000, "exports; it may have 100000"),
        (Worst { kind: "elements", width: 1 }, 60_000, "segments"),
        (Worst { kind: "elements", width: 10_000 }, 200, "entries of tables; it may have 1000000"),
        (Worst { kind: "datas", width: 1 }, 60_000, "segments"),
        (Worst { kind: "many_globals", width: 0 }, 30_000, "globals; it may have 20000"),
    ] {
        let error = check(&kind.module(size)).expect_err(kind.kind);
        assert_eq!(error.kind(), ErrorKind::InvalidProgram);
        assert!(error.message().contains(words), "{}: {error}", kind.kind);
    }
    // Many functions, each of which passes.
    let most = Worst { kind: "ifs", width: 0 };
    let function = (1..).map(|k| k * 10_000).take_while(|&size| check(&most.module(size)).is_ok()).last();
    let error = check(&most.functions(function.expect("one"), 100)).unwrap_err();
    assert!(error.message().contains("the program would take too long"), "{error}");
}

#[test]
fn tags_items_of_components_and_all_code_together_are_counted() {
    let refused = |wasm: &[u8], words: &str| {
        let error = check(wasm).expect_err(words);
        assert!(error.kind() == ErrorKind::InvalidProgram && error.message().contains(words), "{error}");
    };
    // Sections with large counts: nothing after the count is read.
    let sections = |header: &[u8; 8], ids: &[u8], count: &[u8]| {
        let mut wasm = header.to_vec();
        for &id in ids {
            wasm.extend([id, count.len() as u8]);
            wasm.extend(count);
        }
        wasm
    };
    let (module, component) = (b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0");
    refused(&sections(module, &[13], &[0xe9, 0x07]), "1001 tags; it may have 1000");
    // Core types, aliases, types, functions lifted or lowered, imports and exports.
    let items = "50001 types, aliases, imports and exports of components; it may have 50000";
    for id in [3, 6, 7, 8, 10, 11] {
        refused(&sections(component, &[id], &[0xd1, 0x86, 0x03]), items);
    }
    // 30000 and 30000.
    refused(&sections(component, &[7, 11], &[0xb0, 0xea, 0x01]), "60000 types, aliases");
    let code = Worst { kind: "straight", width: 0 }.functions(1_000_000, 34);
    refused(&code, "bytes of code; it may have 33554432");
}

/// As many functions as JavaScript engines have, including interpreter loops of 100 KB, and the programs that
/// were built.
#[test]
fn what_real_programs_have_passes() {
    let engine = worst::realistic(20_000, 9 << 20);
    assert!(check(&engine).is_ok());
    let target = std::env::var_os("CARGO_TARGET_DIR").map(std::path::PathBuf::from);
    let target = target.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../target").into());
    let Ok(programs) = std::fs::read_dir(target.join("programs")) else { return };
    for program in programs.flatten().map(|entry| entry.path()) {
        if program.extension().is_some_and(|extension| extension == "wasm") {
            let checked = check(&std::fs::read(&program).unwrap());
            assert!(checked.is_ok_and(|steps| steps < PROGRAM_STEPS / 2), "{}", program.display());
        }
    }
}

/// Prints the cost of the worst modules of each kind that pass.
#[test]
fn any_module_that_passes_compiles_in_bounded_time() {
    let long = std::env::var_os("REALM_LONG").is_some();
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true).wasm_memory64(true).parallel_compilation(false);
    let engine = wasmtime::Engine::new(&config).unwrap();
    println!("{:16} {:>6} {:>10} {:>8} {:>8}", "kind", "width", "bytes", "seconds", "MiB");
    // Without the variable, only two kinds that used not to end.
    for kind in KINDS.iter().filter(|kind| long || ["loops", "block_params"].contains(&kind.kind)) {
        let module = largest(kind);
        // From here on the peak is counted again, on systems that can do that.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let (began, before) = (Instant::now(), resident() >> 20);
        let compiled = wasmtime::Module::new(&engine, &module);
        let (took, peak) = (began.elapsed().as_secs_f64(), (peak() >> 20).saturating_sub(before));
        println!("{:16} {:>6} {:>10} {took:>8.2} {peak:>8}", kind.kind, kind.width, module.len());
        assert!(compiled.is_ok(), "{}: {:?}", kind.kind, compiled.err());
        assert!(peak < 1024, "{}: {peak} MiB", kind.kind);
    }
}
