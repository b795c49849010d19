//! Sequences and requests, without programs.

use realm_engine::{Generation, Grammar, Limits, Output, Request, Sampling};

use super::{Bench, Case, Held, until};
use crate::host::Host;

/// No more than 4,096 requests may wait for a model.
pub(super) const CASES: &[Case] = &[
    Case { name: "empty sequences", model: Host::tiny, times: [60_000, 600_000], take: empty_sequences },
    Case { name: "sequences with tokens", model: Host::tiny, times: [12_000, 120_000], take: long_sequences },
    Case { name: "forks", model: Host::tiny, times: [10_000, 10_000], take: forks },
    Case { name: "requests that wait", model: Host::smollm2, times: [600, 4_000], take: requests_that_wait },
    Case { name: "stop strings", model: Host::tiny, times: [100, 1_000], take: stops },
    Case {
        name: "requests with one grammar",
        model: Host::smollm2,
        times: [4_000, 4_000],
        take: one_grammar,
    },
    Case {
        name: "requests with grammars of their own",
        model: Host::smollm2,
        times: [800, 2_000],
        take: many_grammars,
    },
    Case { name: "grammars that are kept", model: Host::smollm2, times: [64, 64], take: kept_grammars },
    Case { name: "scores that are not read", model: Host::tiny, times: [150, 1_000], take: scores },
];

fn empty_sequences(bench: &Bench, n: usize) -> Held {
    let engine = &bench.host.model.engine;
    let held: Vec<_> = (0..n).map(|_| engine.sequence(&bench.who.tenant, None, 0).unwrap()).collect();
    bench.catch_up();
    Box::new(held)
}

fn long_sequences(bench: &Bench, n: usize) -> Held {
    let engine = &bench.host.model.engine;
    let tokens = tokens(1_000);
    let one = |_| {
        let mut sequence = engine.sequence(&bench.who.tenant, None, 0).unwrap();
        sequence.append(&tokens).unwrap();
        sequence
    };
    let held: Vec<_> = (0..n).map(one).collect();
    bench.catch_up();
    Box::new(held)
}

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| i % 100).collect()
}

/// Forks of a sequence that is computed in full, so that every fork has the tokens, too.
fn forks(bench: &Bench, n: usize) -> Held {
    let engine = &bench.host.model.engine;
    let mut first = engine.sequence(&bench.who.tenant, None, 0).unwrap();
    first.append(&tokens(500)).unwrap();
    first.forward(Output::Nothing).unwrap();
    let held: Vec<_> = (0..n).map(|_| first.fork().unwrap()).collect();
    bench.catch_up();
    Box::new((first, held))
}

/// A request that keeps all others of the tenant waiting, since its answer is not read.
pub(super) fn in_the_way(bench: &Bench) -> Generation {
    let tenant = &bench.who.tenant;
    tenant.set_limits(Limits { max_concurrent: Some(1), ..tenant.limits() }).unwrap();
    let request = Request { prompt: vec![1, 2, 3], ignore_eos: true, ..Request::default() };
    let running = bench.host.model.engine.generate(tenant, request).unwrap();
    until("it runs", || tenant.running() == 1);
    running
}

/// `n` waiting requests.
fn waiting(bench: &Bench, n: usize, request: impl Fn(usize) -> Request) -> Held {
    let first = in_the_way(bench);
    let engine = &bench.host.model.engine;
    let held: Vec<_> = (0..n).map(|i| engine.generate(&bench.who.tenant, request(i)).unwrap()).collect();
    Box::new((first, held))
}

fn requests_that_wait(bench: &Bench, n: usize) -> Held {
    waiting(bench, n, |i| {
        let logit_bias = (0..2000).map(|token| (token, 0.5)).collect();
        let sampling = Sampling { logit_bias, banned_tokens: (0..4000).collect(), ..Sampling::greedy() };
        Request { prompt: vec![i as u32 % 1000; 6_000], sampling, ..Request::default() }
    })
}

/// As many bytes as a request may have, in strings with different beginnings.
fn stops(bench: &Bench, n: usize) -> Held {
    waiting(bench, n, |_| {
        let stop = (0..100).map(|i| format!("{}{}", char::from(b' ' + i), "abcdefghij".repeat(16))).collect();
        Request { prompt: vec![1], stop, ..Request::default() }
    })
}

fn regex(text: String) -> Request {
    Request { prompt: vec![1, 2], grammar: Some(Grammar::Regex(text)), ..Request::default() }
}

fn one_grammar(bench: &Bench, n: usize) -> Held {
    waiting(bench, n, |_| regex("[a-z]{1,30}(, [a-z]{1,30}){3,9}".into()))
}

fn many_grammars(bench: &Bench, n: usize) -> Held {
    waiting(bench, n, |i| regex(format!("[a-z]{{1,30}}(, [a-z]{{1,30}}){{3,9}}[0-9]{{{}}}", i + 1)))
}

/// Grammars of finished requests.
fn kept_grammars(bench: &Bench, n: usize) -> Held {
    // Many names with a common beginning: each letter of each name is a state of the lexer.
    let names = |i: usize| {
        (0..2_000).map(|j| format!("name{}of{j}", j * 7919 % 10_007 + i)).collect::<Vec<_>>().join("|")
    };
    let grammar = |i| Grammar::Regex(format!("(({})[a-z]{{1,30}},){{1,20}}", names(i)));
    (0..n).for_each(|i| drop(bench.host.model.engine.guide(&bench.who.tenant, &grammar(i)).unwrap()));
    Box::new(())
}

fn scores(bench: &Bench, n: usize) -> Held {
    let engine = &bench.host.model.engine;
    let one = |_| engine.score(&bench.who.tenant, None, tokens(500), 0, 100).unwrap();
    let held: Vec<_> = (0..n).map(one).collect();
    until("all was computed", || bench.who.tenant.running() + bench.who.tenant.waiting() == 0);
    Box::new(held)
}
