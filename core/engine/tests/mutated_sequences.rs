//! Saved sequences with random changes: they are refused, or run and end by themselves. Another tenant's text
//! stays the same. `REALM_MUTATIONS` gives their number for each cache type (300 by default).

mod common;

use std::sync::Arc;

use common::{Read, anybody, request};
use realm_compute::CacheType;
use realm_compute::cpu::CpuBackend;
use realm_engine::{Engine, EngineConfig, Error, Output, Sequence, SnapshotKey};
use realm_gguf::Gguf;
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;

/// The bytes before the adapter's name: see `snapshot.rs`.
const HEADER: usize = 8 + 32 + 6 * 4;

struct Setup {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
}

impl Setup {
    fn new(config: EngineConfig) -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
        let gguf = Gguf::open(path).unwrap();
        let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
        let backend = Arc::new(CpuBackend::new(1).unwrap());
        let model = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).unwrap());
        Self { engine: Engine::new(&model, Arc::clone(&tokenizer), &config).unwrap(), tokenizer }
    }

    /// Returns a saved sequence of 80 computed tokens.
    fn saved(&self) -> Vec<u8> {
        let mut sequence = self.engine.sequence(&anybody(), None, 0).unwrap();
        sequence.append(&self.tokens()).unwrap();
        sequence.forward(Output::Nothing).unwrap();
        sequence.save().unwrap()
    }

    fn tokens(&self) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode(&"abcdefgh ".repeat(40), true, true);
        tokens.truncate(80);
        assert_eq!(tokens.len(), 80);
        tokens
    }

    fn text(&self) -> String {
        Read::all(self.engine.generate(&anybody(), request(&self.tokenizer, "abc", 12)).unwrap()).text
    }
}

fn random(seed: &mut u64) -> usize {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)) as usize
}

/// Returns the bytes with one of several kinds of changes.
fn changed(saved: &[u8], seed: &mut u64) -> Vec<u8> {
    let mut bytes = saved.to_vec();
    // The flags of pages are after the tokens.
    let flags = HEADER + 4 * 80;
    match random(seed) % 8 {
        // NaN, infinity and very large numbers all over the pages.
        0 => bytes[flags + 8..].chunks_exact_mut(4).for_each(|number| {
            let odd = [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, 1e-45][random(seed) % 5];
            number.copy_from_slice(&odd.to_le_bytes());
        }),
        1 => (0..8).for_each(|_| bytes[random(seed) % (flags + 8)] = random(seed) as u8),
        2 => {
            let at = HEADER - 24 + 4 * (random(seed) % 6);
            let odd = [0, 1, 31, 32, 33, 79, 81, 96, u32::MAX][random(seed) % 9];
            bytes[at..at + 4].copy_from_slice(&odd.to_le_bytes());
        }
        3 => bytes.truncate(random(seed) % saved.len()),
        // The tokens differ from those that were computed.
        4 => bytes[HEADER..flags].chunks_exact_mut(4).for_each(|token| {
            token.copy_from_slice(&(random(seed) as u32 % 300).to_le_bytes());
        }),
        // No page follows at all, as in the sequence that once ended all tenants' requests.
        5 => {
            bytes.truncate(flags);
            bytes.extend([0; 64][..random(seed) % 64].iter());
        }
        6 => bytes[flags..flags + 3].iter_mut().for_each(|flag| *flag = (random(seed) % 3) as u8),
        _ => (0..64).for_each(|_| {
            let at = random(seed) % saved.len();
            bytes[at] = random(seed) as u8;
        }),
    }
    bytes
}

/// Uses a sequence as its owner may.
fn use_it(mut sequence: Sequence, seed: &mut u64) -> Result<(), Error> {
    let kind = random(seed) % 4;
    match kind {
        0 => sequence.truncate(random(seed) % 90)?,
        1 => sequence.truncate(usize::MAX)?,
        _ => {}
    }
    sequence.append(&[5, 6, 7])?;
    let mut fork = sequence.fork()?;
    let forwarded = sequence.forward(Output::LastLogits).map(drop);
    fork.append(&[9])?;
    fork.forward(Output::Hidden)?;
    // A sequence that was shortened to nothing is the engine's own work from there on.
    let again = fork.save()?;
    assert!(
        kind == 0 || again.len() < 2 * HEADER + 4 * fork.len(),
        "what nobody vouches for would be signed"
    );
    forwarded
}

#[test]
fn mutated_sequences_harm_no_other() {
    let count = std::env::var("REALM_MUTATIONS").map_or(300, |count| count.parse().expect("a number"));
    for cache_type in CacheType::ALL {
        let setup = Setup::new(EngineConfig { cache_type, ..EngineConfig::default() });
        let (saved, text) = (setup.saved(), setup.text());
        let (mut seed, mut refused) = (1, 0);
        for i in 0..count {
            let bytes = changed(&saved, &mut seed);
            assert!(bytes == saved || setup.engine.restore(&anybody(), None, &bytes).is_err(), "case {i}");
            match setup.engine.restore_foreign(&anybody(), None, &bytes) {
                Ok(sequence) => match use_it(sequence, &mut seed) {
                    Ok(()) | Err(Error::NotFinite(_)) => {}
                    Err(error) => panic!("case {i}: {error}"),
                },
                Err(Error::InvalidArgument(_) | Error::LimitExceeded(_)) => refused += 1,
                Err(error) => panic!("case {i}: {error}"),
            }
            if i % 50 == 49 {
                assert_eq!(setup.text(), text, "after case {i}");
            }
        }
        assert!(refused > 0 && refused < count, "{refused} of {count} were refused");
    }
}

/// Foreign pages with NaN are refused when they are restored, not by the first forward that computes with
/// them.
#[test]
fn foreign_pages_of_what_is_no_number_are_refused() {
    for cache_type in CacheType::ALL {
        let setup = Setup::new(EngineConfig { cache_type, ..EngineConfig::default() });
        let mut bytes = setup.saved();
        // The pages are between their flags and the signature.
        let (pages, signature) = (HEADER + 4 * 80 + 3, bytes.len() - 32);
        bytes[pages..signature].fill(0xff);
        match setup.engine.restore_foreign(&anybody(), None, &bytes) {
            Err(Error::InvalidArgument(why)) if why.contains("finite") => {}
            Err(error) => panic!("{cache_type}: {error}"),
            Ok(_) => panic!("{cache_type}: pages of NaN are restored"),
        }
    }
}

/// A forged prompt affects only its forger: not even the same tenant's other requests find it in the prefix
/// cache.
#[test]
fn pages_of_foreign_bytes_are_shared_with_no_sequence() {
    let setup = Setup::new(EngineConfig::default());
    let other = Setup::new(EngineConfig::default());
    let tenant = anybody();
    let saved = setup.saved();
    let honest = setup.tokens();
    // The keys and values of other tokens under the honest tokens.
    let mut forged = {
        let mut sequence = other.engine.sequence(&anybody(), None, 0).unwrap();
        sequence.append(&honest.iter().rev().copied().collect::<Vec<u32>>()).unwrap();
        sequence.forward(Output::Nothing).unwrap();
        sequence.save().unwrap()
    };
    forged[HEADER..HEADER + 4 * 80].copy_from_slice(&saved[HEADER..HEADER + 4 * 80]);
    let mut wanted = setup.engine.sequence(&anybody(), None, 0).unwrap();
    wanted.append(&honest).unwrap();
    let wanted = wanted.forward(Output::LastLogits).unwrap().values;

    let mut forgery = setup.engine.restore_foreign(&tenant, None, &forged).unwrap();
    forgery.append(&[7; 40]).unwrap();
    forgery.forward(Output::LastLogits).unwrap();
    let mut asked = setup.engine.sequence(&tenant, None, 0).unwrap();
    asked.append(&honest).unwrap();
    let found = asked.forward(Output::LastLogits).unwrap();
    assert!(found.values == wanted && found.cached == 0);

    // Saving it again keeps only tokens, which are computed again.
    let again = forgery.save().unwrap();
    let mut again = setup.engine.restore(&tenant, None, &again).unwrap();
    again.truncate(80).unwrap();
    assert!(again.forward(Output::LastLogits).unwrap().values == wanted);
    // The tenant's own requests find a sequence that the engine itself saved.
    let mut restored = setup.engine.restore(&tenant, None, &saved).unwrap();
    assert!(restored.forward(Output::LastLogits).unwrap().values == wanted);
}

#[test]
fn engines_of_one_key_restore_each_others_sequences() {
    let key = |byte| Some(SnapshotKey::new(&[byte; 32]).unwrap());
    let with = |snapshot_key| Setup::new(EngineConfig { snapshot_key, ..EngineConfig::default() });
    let (one, same, other, own) = (with(key(1)), with(key(1)), with(key(2)), with(None));
    let saved = one.saved();
    assert_eq!(same.engine.restore(&anybody(), None, &saved).unwrap().tokens(), one.tokens());
    for setup in [&other, &own] {
        let error = setup.engine.restore(&anybody(), None, &saved).err().expect("another key").to_string();
        assert!(error.contains("snapshot_key"), "{error}");
        assert_eq!(setup.engine.restore_foreign(&anybody(), None, &saved).unwrap().tokens(), one.tokens());
    }
}
