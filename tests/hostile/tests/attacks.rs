//! Every attack of the table for a moment: what must hold whatever the machine's speed.

use std::time::Duration;

use realm_hostile::{ATTACKS, Ground, measure};

/// `REALM_LONG` lets each go on for longer.
#[test]
fn no_attack_changes_a_victims_text_or_takes_memory_beyond_its_account() {
    let long = std::env::var_os("REALM_LONG").is_some();
    let (turns, tokens, warm) = if long { (4, 128, 3000) } else { (1, 24, 400) };
    let ground = Ground::new("smollm2-135m", "cpu").unwrap();
    for attack in ATTACKS {
        let found = measure(&ground, attack, turns, tokens, Duration::from_millis(warm))
            .unwrap_or_else(|error| panic!("{}: the victim failed: {error}", attack.name));
        assert!(found.same, "{}: the victim's text has changed", attack.name);
        // What the allocator keeps of the rounds before is not the attackers' doing.
        let room = found.ledger + found.ledger / 5 + (64 << 20);
        assert!(
            found.grown <= room,
            "{}: {} MiB of {} MiB",
            attack.name,
            found.grown >> 20,
            found.ledger >> 20
        );
    }
}
