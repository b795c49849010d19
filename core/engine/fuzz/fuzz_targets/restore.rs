//! Restores a saved sequence with random changes, and continues it. No other sequence may be affected.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use realm_engine::{Engine, Error, Output, Tenant};
use realm_engine_fuzz::{bystander, tenant, tiny};

struct Setup {
    engine: Engine,
    tenant: Arc<Tenant>,
    saved: Vec<u8>,
    /// The expected result of another sequence's forward.
    wanted: Vec<f32>,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let (engine, tenant) = (tiny().0, tenant("somebody"));
    let mut sequence = engine.sequence(&tenant, None, 0).expect("a sequence");
    sequence.append(&(0..80).collect::<Vec<u32>>()).expect("tokens");
    sequence.forward(Output::Nothing).expect("a forward");
    let saved = sequence.save().expect("bytes");
    let wanted = bystander(&engine);
    Setup { engine, tenant, saved, wanted }
});

/// Applies changes. Each takes four bytes of input: position, kind, and value.
fn changed(saved: &[u8], input: &[u8]) -> Vec<u8> {
    let mut bytes = saved.to_vec();
    for &[low, high, kind, value] in input.as_chunks().0 {
        let at = usize::from(u16::from_le_bytes([low, high])) % (bytes.len() + 1);
        match kind % 4 {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value),
            1 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = value),
            2 => bytes.insert(at, value),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let setup = &*SETUP;
    let bytes = match input {
        [0, bytes @ ..] => bytes.to_vec(),
        input => changed(&setup.saved, input),
    };
    assert!(bytes == setup.saved || setup.engine.restore(&setup.tenant, None, &bytes).is_err());
    match setup.engine.restore_foreign(&setup.tenant, None, &bytes) {
        Ok(mut sequence) => {
            let len = usize::from(input.last().copied().unwrap_or_default());
            sequence.truncate(len).expect("an engine");
            sequence.append(&[5, 6]).expect("room for tokens");
            let mut fork = sequence.fork().expect("an engine");
            for sequence in [&mut sequence, &mut fork] {
                match sequence.forward(Output::LastLogits) {
                    Ok(_) | Err(Error::NotFinite(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        Err(Error::InvalidArgument(why) | Error::LimitExceeded(why)) => {
            assert!(!why.is_empty() && why.len() < 2_000, "{why}");
        }
        Err(error) => panic!("{error}"),
    }
    assert!(bystander(&setup.engine) == setup.wanted, "another sequence's results have changed");
});
