//! Attacks by the plain API that hold on to resources.

use realm::{Output, Request};

use crate::guest::program;
use crate::{Ground, Running};

pub(super) fn snapshot(ground: &Ground) -> Running {
    let mut running = Running::default();
    let tenant = ground.tenant("attacker");
    let model = ground.model_of(&tenant);
    let saved = {
        let mut sequence = model.sequence().expect("a sequence");
        sequence.append(&(100..180).collect::<Vec<u32>>()).expect("room");
        sequence.forward(Output::Nothing).expect("a pass");
        sequence.save().expect("bytes")
    };
    // Truncate the bytes in even rounds, and alter one of them in odd rounds.
    let mut round = 0usize;
    running.repeat(move |_| {
        round += 1;
        let mut bytes = saved.clone();
        if round.is_multiple_of(2) {
            bytes.truncate(bytes.len() - round % bytes.len());
        } else {
            let at = round * 7919 % bytes.len();
            bytes[at] ^= 0xff;
        }
        let mut sequence = model.restore_foreign_sequence(&bytes)?;
        sequence.append(&[5])?;
        sequence.forward(Output::LastLogits).map(drop)
    });
    running.tenants.push(tenant);
    running
}

/// A request that does not end before it has `tokens` tokens.
fn endless(prompt: Vec<u32>, tokens: usize) -> Request {
    Request { ignore_eos: true, ..Request::tokens(prompt).max_tokens(tokens) }
}

pub(super) fn queue(ground: &Ground) -> Running {
    let mut running = Running::default();
    for tenant in 0..6 {
        let tenant = ground.tenant(&format!("attacker{tenant}"));
        let model = ground.model_of(&tenant);
        running.hold(1600, move |i| model.stream(endless(vec![5 + i, 6, 7], 4000)));
        running.tenants.push(tenant);
    }
    running
}

pub(super) fn asleep(ground: &Ground) -> Running {
    let mut running = Running::default();
    let tenant = ground.tenant("attacker");
    let model = ground.model_of(&tenant);
    running.hold(1000, move |i| model.stream(endless(vec![10 + i, 5, 6], 2000)));
    running.tenants.push(tenant);
    running
}

pub(super) fn sequences(ground: &Ground) -> Running {
    let mut running = Running::default();
    let tenant = ground.tenant("attacker");
    let model = ground.model_of(&tenant);
    running.repeat(move |signal| {
        let mut held = Vec::new();
        let mut last = Ok(());
        while held.len() < 200_000 && last.is_ok() && !signal.is_over() {
            last = model.sequence().map(|sequence| held.push(sequence));
        }
        signal.wait();
        last
    });
    running.tenants.push(tenant);
    running
}

/// A number that takes five bytes of WebAssembly, as do those after it.
const MARK: u32 = 0x1234_5678;

/// Returns a positive number as WebAssembly has it, in five bytes.
fn leb128(number: u32) -> [u8; 5] {
    std::array::from_fn(|i| (number >> (7 * i)) as u8 & 0x7f | if i < 4 { 0x80 } else { 0 })
}

pub(super) fn compile(ground: &Ground) -> Running {
    let mut running = Running::default();
    let tenant = ground.tenant("attacker");
    running.tenants.push(tenant.clone());
    let loops = 200;
    let body = format!(
        "(local.set $i (i32.const {MARK})) (block {} {}) (global.get $OK)",
        "(loop (br_if 1 (i32.eqz (local.get $i)))".repeat(loops),
        ")".repeat(loops)
    );
    // Made once: making it anew takes longer than refusing it, at the priority of whoever makes it.
    let mut bytes = program(&body, "");
    let mark = leb128(MARK);
    let at = bytes.windows(mark.len()).position(|window| window == mark).expect("the mark");
    let mut round = 0;
    running.repeat(move |_| {
        round += 1;
        bytes[at..at + mark.len()].copy_from_slice(&leb128(MARK + round));
        tenant.compile_program(&bytes).map(drop)
    });
    running
}
