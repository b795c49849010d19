//! Reads a LoRA adapter that PEFT saved, from random bytes, and generates with what is accepted. An input is
//! the length of `adapter_config.json` in two bytes, that text, and the bytes of the safetensors file.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use realm_compute::cpu::CpuBackend;
use realm_engine::{Engine, Error, Output, Tenant};
use realm_engine_fuzz::{bystander, tenant, tiny};
use realm_model::{AdapterFile, Transformer, Weights};

struct Setup {
    engine: Engine,
    model: Arc<Transformer<CpuBackend>>,
    tenant: Arc<Tenant>,
    /// The expected result of another sequence's forward.
    wanted: Vec<f32>,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let (engine, model) = tiny();
    let wanted = bystander(&engine);
    Setup { engine, model, tenant: tenant("somebody"), wanted }
});

fuzz_target!(|input: &[u8]| {
    let setup = &*SETUP;
    let [low, high, rest @ ..] = input else { return };
    let (config, tensors) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    let Ok(config) = str::from_utf8(config) else { return };
    let file = match AdapterFile::from_peft(config, tensors.to_vec()) {
        Ok(file) => file,
        Err(error) => return assert!(error.to_string().len() < 4_000, "{error}"),
    };
    let weights = match setup.model.adapter(&file) {
        Ok(weights) => weights,
        Err(error) => return assert!(error.to_string().len() < 4_000, "{error}"),
    };
    let adapter = setup.engine.add_adapter("fuzz", weights).expect("an adapter of this model");
    let mut sequence = setup.engine.sequence(&setup.tenant, Some((adapter, 1.0)), 0).expect("a sequence");
    sequence.append(&[9, 8, 7]).expect("tokens");
    match sequence.forward(Output::LastLogits) {
        Ok(_) | Err(Error::NotFinite(_)) => {}
        Err(error) => panic!("{error}"),
    }
    assert!(bystander(&setup.engine) == setup.wanted, "another sequence's results have changed");
});
