//! Runs every attack of the table for a short time and checks the properties that do not depend on the
//! machine's speed.

use std::time::Duration;

use realm_hostile::{ATTACKS, Ground};

/// With `REALM_LONG`, each attack runs longer.
#[test]
fn no_attack_changes_a_victims_text() {
    let long = std::env::var_os("REALM_LONG").is_some();
    let (tokens, warm) = if long { (256, 3000) } else { (12, 150) };
    let ground = Ground::new("smollm2-135m", "cpu").unwrap();
    let victim = ground.model_of(&ground.tenant("victim"));
    let (alone, _) = ground.victim(&victim, tokens).unwrap();
    for attack in ATTACKS {
        let start = std::time::Instant::now();
        let running = attack.start(&ground);
        std::thread::sleep(Duration::from_millis(warm));
        let beside = ground.victim(&victim, tokens);
        let victims = start.elapsed();
        let (_, error) = running.said();
        drop(running);
        println!(
            "{:14} {:.1} s, with its end {:.1} s",
            attack.name,
            victims.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
        let (text, _) = beside.unwrap_or_else(|error| panic!("{}: the victim failed: {error}", attack.name));
        assert_eq!(text, alone, "{}", attack.name);
        // An attack whose own program is refused would attack nothing.
        assert!(!error.starts_with("invalid-program"), "{}: {error}", attack.name);
    }
}
