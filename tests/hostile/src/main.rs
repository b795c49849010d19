//! `realm-hostile [--model M] [--device D] [--turns N] [--tokens N] [--markdown] [ATTACK…]`: measures
//! attacks, all unless some are named, and prints a row for each.

use std::time::Duration;

use realm_hostile::{ATTACKS, Attack, Ground, measure};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut model, mut device) = ("smollm2-135m".to_owned(), "cpu".to_owned());
    let (mut turns, mut tokens, mut markdown) = (3, 64, false);
    let mut attacks: Vec<&Attack> = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| fail(&format!("{argument} needs a value")));
        match argument.as_str() {
            "--model" => model = value(),
            "--device" => device = value(),
            "--turns" => turns = number(&value()),
            "--tokens" => tokens = number(&value()),
            "--markdown" => markdown = true,
            name => match ATTACKS.iter().find(|attack| attack.name == name) {
                Some(attack) => attacks.push(attack),
                None => fail(&format!("no attack is called {name}; there are {}", names())),
            },
        }
    }
    if attacks.is_empty() {
        attacks = ATTACKS.iter().collect();
    }
    let ground = Ground::new(&model, &device).unwrap_or_else(|error| fail(&error.to_string()));
    if markdown {
        println!(
            "| attack | what the attackers do | p50, ms | p99, ms | p50 ratio | p99 ratio | first token, ms | text | memory, MiB | ledger, MiB |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
    }
    for attack in attacks {
        match measure(&ground, attack, turns, tokens, Duration::from_millis(1500)) {
            Ok(found) => {
                let row = [
                    attack.name.to_owned(),
                    attack.what.to_owned(),
                    pair(found.honest.at(0.5), found.attacked.at(0.5)),
                    pair(found.honest.at(0.99), found.attacked.at(0.99)),
                    format!(
                        "{:.2}",
                        found.attacked.at(0.5).as_secs_f64() / found.honest.at(0.5).as_secs_f64()
                    ),
                    format!(
                        "{:.2}",
                        found.attacked.at(0.99).as_secs_f64() / found.honest.at(0.99).as_secs_f64()
                    ),
                    pair(found.honest.first(), found.attacked.first()),
                    if found.same { "same" } else { "CHANGED" }.to_owned(),
                    (found.grown >> 20).to_string(),
                    (found.ledger >> 20).to_string(),
                ];
                if markdown {
                    println!("| {} |", row.join(" | "));
                } else {
                    println!("{:14} {}", row[0], row[1..].join("; "));
                    println!(
                        "{:14} {} rounds; {}",
                        "",
                        found.said.0,
                        found.said.1.lines().next().unwrap_or_default()
                    );
                }
            }
            Err(error) => println!("{:14} THE VICTIM FAILED: {error}", attack.name),
        }
    }
}

fn pair(honest: Duration, attacked: Duration) -> String {
    format!("{:.1} → {:.1}", honest.as_secs_f64() * 1e3, attacked.as_secs_f64() * 1e3)
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| fail(&format!("{text} is not a number")))
}

fn names() -> String {
    ATTACKS.iter().map(|attack| attack.name).collect::<Vec<_>>().join(", ")
}

fn fail(message: &str) -> ! {
    eprintln!("realm-hostile: {message}");
    std::process::exit(2)
}
