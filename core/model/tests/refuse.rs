//! Well-formed GGUF files that are not models are refused with a reason, and never crash the process that
//! loads them.

use std::path::PathBuf;
use std::sync::Arc;

use realm_compute::cpu::CpuBackend;
use realm_compute::{Batch, CacheType, Want};
use realm_gguf::Gguf;
use realm_model::{Architecture, Error, Transformer, Weights};

fn bytes(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny");
    std::fs::read(folder.join(name)).expect("a tiny model")
}

/// Loads a model from bytes and runs three tokens.
fn run(bytes: Vec<u8>, backend: &Arc<CpuBackend>) -> Result<(), Error> {
    let gguf = Gguf::from_bytes(bytes)?;
    let model = Arc::new(Transformer::load(Arc::clone(backend), &gguf, &mut |_, _| {})?);
    let groups = model.config().cache_layout().groups();
    let mut runner = model.runner(groups, CacheType::F32)?;
    let tables: Vec<[u32; 1]> = (0..groups as u32).map(|page| [page]).collect();
    let mut batch = Batch::default();
    batch.push(&[1, 2, 3], 0, &tables, Want::LastLogits);
    runner.forward(&batch)
}

/// Returns `bytes` with the first `from` replaced by `to`, which has the same length.
fn patched(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let backend = Arc::new(CpuBackend::new(1).unwrap());
    let llama = || bytes("llama-f32.gguf");
    run(llama(), &backend).unwrap();
    for (from, to, wanted) in [
        (
            "general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama",
            "general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0mamba",
            "mamba",
        ),
        ("blk.0.attn_q.weight", "blk.0.attn_x.weight", "blk.0.attn_q.weight"),
        ("output_norm.weight", "output_norm.weighs", "output_norm.weight"),
        ("llama.block_count", "llama.block_c0unt", "llama.block_count"),
    ] {
        let error = run(patched(llama(), from, to), &backend).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

/// The page of models lists every architecture, and every architecture has a small model that is compared
/// with float64.
#[test]
fn every_architecture_is_documented_and_compared() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/models.md")).expect("the page");
    let listed = page.split('|').filter(|cell| cell.trim_start().starts_with('`')).collect::<String>();
    let compared: Vec<String> = std::fs::read_dir(root.join("tests/reference/tiny"))
        .expect("the models")
        .map(|entry| Gguf::open(entry.expect("an entry").path()).expect("a model"))
        .map(|gguf| gguf.metadata().require_str("general.architecture").expect("a name").to_owned())
        .collect();
    for architecture in Architecture::all() {
        assert!(listed.contains(&format!("`{architecture}`")), "docs/models.md lacks `{architecture}`");
        assert!(compared.contains(&architecture.to_string()), "{architecture} has no small model");
    }
}

#[test]
fn layers_that_the_file_has_no_tensors_for_are_refused() {
    let mut bytes = bytes("llama-f32.gguf");
    let key = b"llama.block_count";
    let at = bytes.windows(key.len()).position(|window| window == key).expect("the key") + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&12_000_000u32.to_le_bytes());
    let error = run(bytes, &Arc::new(CpuBackend::new(1).unwrap())).unwrap_err().to_string();
    assert!(error.contains("12000000 layers are claimed"), "{error}");
}

#[test]
fn a_flipped_bit_in_the_header_never_crashes() {
    let backend = Arc::new(CpuBackend::new(1).unwrap());
    let (mut fine, mut refused) = (0, 0);
    for name in ["llama-f32.gguf", "gemma3-q5_k.gguf"] {
        let whole = bytes(name);
        let gguf = Gguf::from_bytes(whole.clone()).unwrap();
        let header = gguf.tensors().iter().map(|t| t.offset()).min().unwrap();
        drop(gguf);
        // A step without a common factor with the length visits bits all over the header.
        for i in 0..600 {
            let bit = (i * 7_919) % (header * 8);
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match run(bytes, &backend) {
                Ok(()) => fine += 1,
                Err(_) => refused += 1,
            }
        }
    }
    println!("{fine} ran, {refused} were refused");
    assert!(refused > 100);
}

/// NaN or infinity in the weights would silently make every text empty or noise, so loading looks for them.
#[test]
fn a_number_that_is_none_is_refused_with_its_tensor() {
    let backend = Arc::new(CpuBackend::new(1).unwrap());
    for file in ["llama-f32.gguf", "gemma3-q5_k.gguf"] {
        let whole = bytes(file);
        let gguf = Gguf::from_bytes(whole.clone()).unwrap();
        for tensor in gguf.tensors() {
            // NaN as a 32-bit float, and as the two 16-bit ones that begin a block of codes.
            let nan: [u8; 4] =
                if tensor.ty.block_len() > 1 { [0, 0x7e, 0, 0x7e] } else { f32::NAN.to_le_bytes() };
            for at in [0, tensor.bytes() - tensor.ty.block_bytes()] {
                let mut bytes = whole.clone();
                bytes[tensor.offset() + at..][..4].copy_from_slice(&nan);
                let error = run(bytes, &backend).unwrap_err().to_string();
                assert!(
                    error.contains(&*tensor.name) && error.contains("NaN"),
                    "{file} {}: {error}",
                    tensor.name
                );
            }
        }
    }
}
