//! Compiles a grammar from random bytes and follows it, always by the last token that it allows. The first
//! byte says which kind of grammar the others are.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use realm_engine::{Engine, Error, Grammar, Tenant};
use realm_engine_fuzz::{tenant, tiny};

static SETUP: LazyLock<(Engine, Arc<Tenant>)> = LazyLock::new(|| (tiny().0, tenant("somebody")));

/// Tokens after which a text ends that its grammar would continue.
const TOKENS: usize = 64;

fuzz_target!(|input: &[u8]| {
    let [kind, text @ ..] = input else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let grammar = match kind % 3 {
        0 => match serde_json::from_str(text) {
            Ok(schema) => Grammar::JsonSchema(schema),
            Err(_) => return,
        },
        1 => Grammar::Regex(text.to_owned()),
        _ => Grammar::Lark(text.to_owned()),
    };
    let (engine, tenant) = &*SETUP;
    let mut guide = match engine.guide(tenant, &grammar) {
        Ok(guide) => guide,
        Err(Error::InvalidArgument(why) | Error::LimitExceeded(why)) => {
            assert!(!why.is_empty() && why.len() < 4_000, "{why}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    for _ in 0..TOKENS {
        if guide.is_finished() {
            break;
        }
        let last = match guide.mask() {
            Ok(mask) => (0..mask.len() as u32).rev().find(|&token| mask.allows(token)),
            // The tiny vocabulary does not spell every byte, so a grammar may ask for what no token has.
            Err(Error::LimitExceeded(_) | Error::InvalidArgument(_)) => break,
            Err(error) => panic!("{error}"),
        };
        let Some(token) = last else { break };
        match guide.accept(token) {
            Ok(()) => {}
            // For the same reason llguidance may allow a token that it then refuses.
            Err(Error::LimitExceeded(_) | Error::InvalidArgument(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
});
