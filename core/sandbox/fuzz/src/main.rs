//! Writes random components and modules, the same for the same numbers: `realm-sandbox-fuzz FOLDER COUNT`.
//! The test `random_programs_are_refused_or_run` reads them.

use std::error::Error;
use std::path::Path;

use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, count] = &arguments[..] else {
        return Err("usage: realm-sandbox-fuzz FOLDER COUNT".into());
    };
    std::fs::create_dir_all(folder)?;
    let count: u64 = count.parse()?;
    let (mut written, mut seed) = (0, 0);
    while written < count {
        seed += 1;
        // Some numbers make no program; the next ones are tried.
        let Ok(wasm) = make(seed) else { continue };
        std::fs::write(Path::new(folder).join(format!("{written:05}.wasm")), wasm)?;
        written += 1;
    }
    Ok(())
}

/// Makes a component, or a module: either one that imports nothing and exports what programs export, or any
/// module at all.
fn make(seed: u64) -> arbitrary::Result<Vec<u8>> {
    let numbers = numbers(seed, 512 + (seed as usize * 97) % 3000);
    let mut unstructured = Unstructured::new(&numbers);
    let mut config = Config {
        // Realm uses wasmtime without a garbage collector.
        reference_types_enabled: false,
        gc_enabled: false,
        wide_arithmetic_enabled: false,
        compact_imports_enabled: false,
        exceptions_enabled: false,
        threads_enabled: false,
        shared_everything_threads_enabled: false,
        max_memories: 1,
        max_components: 20,
        ..Config::default()
    };
    match seed % 4 {
        0 | 1 => Ok(Component::new(config, &mut unstructured)?.to_bytes()),
        2 => Ok(Module::new(config, &mut unstructured)?.to_bytes()),
        _ => {
            config.max_imports = 0;
            config.memory64_enabled = seed % 8 == 3;
            // A pattern for the exports: those of a program.
            config.exports = Some(PROGRAM.to_vec());
            Ok(Module::new(config, &mut unstructured)?.to_bytes())
        }
    }
}

/// `(module (memory (export "memory") 1) (func (export "realm_run") (result i32) i32.const 0))`
const PROGRAM: &[u8] = b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x16\x02\x06memory\x02\0\x09realm_run\0\0\x0a\x06\x01\x04\0\x41\0\x0b";

/// SplitMix64.
fn numbers(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
