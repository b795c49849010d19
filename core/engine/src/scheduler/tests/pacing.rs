//! Prompts' part of a pass, with times that the tests make up.

use super::*;
use crate::PassTimes;
use crate::scheduler::pacing::Beside;

/// Has passes without prompts take one second, and a row's work of prompts `row` seconds more.
fn taught(row: f64) -> Pacing {
    let mut pacing = Pacing::default();
    pacing.observe(true, 0.0, 1.0);
    pacing.observe(true, 100.0, 1.0 + 100.0 * row);
    pacing.observe(false, 100.0, 100.0 * row);
    pacing
}

fn prices() -> Prices {
    Prices::new(tiny("llama-f32").config(), false)
}

/// Ten seconds, and four beside the same tenant's sequences.
fn times() -> Option<PassTimes> {
    Some(PassTimes { alone: Duration::from_secs(10), beside_own: Duration::from_secs(4) })
}

/// Rows of a prompt of 4,000 tokens in one pass, where a row takes `row` seconds, from position `first` on.
fn rows(row: f64, beside: Beside, first: usize) -> usize {
    let prices = prices();
    taught(row).room(times(), beside, &prices).take(&prices, first, 4000)
}

/// A bench whose passes have taken so long.
fn bench() -> Bench {
    let config = EngineConfig { pass_times: times(), ..EngineConfig::default() };
    let mut bench = Bench::new(&tiny("llama-f32"), 600, config);
    bench.scheduler.pacing = taught(0.05);
    bench
}

/// Rows of prompts in the next pass.
fn next_rows(bench: &mut Bench) -> usize {
    let now = Instant::now();
    bench.scheduler.admit(now);
    let picks = bench.scheduler.select(now);
    let prompts = picks.iter().filter(|pick| {
        let index = bench.scheduler.place(pick.task).expect("a running task");
        !bench.scheduler.running[index].decodes()
    });
    prompts.map(|pick| pick.rows).sum()
}

#[test]
fn without_times_rows_alone_bound_a_pass() {
    let prices = prices();
    let mut room = Pacing::default().room(None, Beside::Others(1.0), &prices);
    assert_eq!(room.take(&prices, 0, 4000), 4000);
}

#[test]
fn the_first_rows_are_few_and_tell_how_long_rows_take() {
    let prices = prices();
    let mut pacing = Pacing::default();
    for beside in [Beside::NoSequence, Beside::Own, Beside::Others(1.0)] {
        let mut room = pacing.room(times(), beside, &prices);
        assert_eq!((room.take(&prices, 0, 4000), room.take(&prices, 0, 4000)), (32, 0));
    }
    pacing.observe(false, prices.pass(0, 32, 0), 1e-3);
    assert_eq!(pacing.room(times(), Beside::NoSequence, &prices).take(&prices, 0, 4000), 4000);
}

#[test]
fn a_pass_with_prompts_of_others_takes_twice_as_long_and_longer_by_weight() {
    let one = rows(0.01, Beside::Others(0.1), 0);
    assert!((50..200).contains(&one), "one second's rows: {one}");
    let (same, twice) = (rows(0.01, Beside::Others(1.0), 0), rows(0.01, Beside::Others(2.0), 0));
    assert_eq!(same, one);
    assert!(twice > one * 3 / 2 && twice <= one * 2, "{twice} of {one}");
    assert_eq!(rows(0.01, Beside::Others(100.0), 0), rows(0.01, Beside::Others(4.0), 0));
}

#[test]
fn rows_with_more_before_them_come_in_shorter_chunks() {
    let (near, far) = (rows(0.001, Beside::NoSequence, 0), rows(0.001, Beside::NoSequence, 50_000));
    assert!(far < near / 2, "{far} of {near}");
}

#[test]
fn however_long_rows_take_a_pass_has_some() {
    assert_eq!(rows(10.0, Beside::Others(1.0), 0), 4);
    assert_eq!(rows(10.0, Beside::Own, 0), 32);
    assert_eq!(rows(10.0, Beside::NoSequence, 0), 32);
}

#[test]
fn one_slow_pass_changes_little() {
    let prices = prices();
    let mut pacing = taught(0.01);
    let before = pacing.room(times(), Beside::NoSequence, &prices).take(&prices, 0, 4000);
    pacing.observe(false, 100.0, 1000.0);
    let after = pacing.room(times(), Beside::NoSequence, &prices).take(&prices, 0, 4000);
    assert!(after > before / 2, "{after} after {before}");
}

#[test]
fn prompts_are_cut_shorter_beside_others_than_beside_the_same_tenant() {
    let mut bench = bench();
    let (victim, other) = (tenant(Limits::default()), tenant(Limits::default()));
    let _first = bench.generate(&victim, &text(1, 0, 10), 60);
    bench.step();
    bench.scheduler.pacing = taught(0.05);
    let _own = bench.generate(&victim, &text(2, 0, 400), 4);
    let own = next_rows(&mut bench);
    let _others = bench.generate(&other, &text(3, 0, 400), 4);
    let beside = next_rows(&mut bench);
    assert!(beside >= 4 && beside < own && own <= 128, "{beside} beside others, {own} beside the same");
}

#[test]
fn prompts_of_several_tenants_share_a_shorter_pass() {
    let mut bench = bench();
    let _first = bench.generate(&tenant(Limits::default()), &text(2, 0, 400), 4);
    let one = next_rows(&mut bench);
    let _second = bench.generate(&tenant(Limits::default()), &text(3, 0, 400), 4);
    let both = next_rows(&mut bench);
    assert!(both < one, "{both} of two tenants, {one} of one");
}

#[test]
fn prompts_of_tenants_that_have_had_more_take_no_more_of_a_pass_than_by_weight() {
    let mut bench = bench();
    let honest: Vec<_> = (0..12).map(|_| tenant(Limits::default())).collect();
    let chunks: Vec<_> = honest.iter().map(|tenant| bench.generate(tenant, &text(1, 0, 10), 60)).collect();
    while bench.scheduler.running.iter().filter(|task| task.decodes()).count() < 12 {
        bench.step();
    }
    let mallory = tenant(Limits::default());
    let _prompt = bench.generate(&mallory, &text(2, 0, 400), 4);
    bench.scheduler.pacing = taught(0.01);
    let at_once = next_rows(&mut bench);
    bench.scheduler.accounts.charge(mallory.id(), 1000.0);
    let passes: Vec<usize> = (0..6).map(|_| next_rows(&mut bench)).collect();
    let most = passes.iter().max().unwrap();
    assert_eq!(passes.iter().filter(|rows| **rows > 0).count(), 2, "one pass of three: {passes:?}");
    assert!(*most >= 4 && *most <= at_once / 2, "{passes:?} after {at_once}");
    drop(chunks);
}

#[test]
fn passes_teach_what_rows_take() {
    let mut bench = bench();
    bench.scheduler.pacing = Pacing::default();
    let _chunks = bench.generate(&tenant(Limits::default()), &text(1, 0, 400), 4);
    assert_eq!(next_rows(&mut bench), 32, "it is not known yet");
    bench.step();
    assert_eq!(next_rows(&mut bench), 368, "a small model's rows take no ten seconds");
}
