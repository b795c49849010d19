//! Attacks by requests only.

use std::collections::HashMap;

use realm::{Request, Sampling, Speculation};

use crate::{Ground, Running};

/// Starts a thread of one tenant for each of `streams`, which sends the requests that its function makes.
fn send<Next>(ground: &Ground, streams: impl IntoIterator<Item = Next>) -> Running
where
    Next: FnMut() -> Request + Send + 'static,
{
    let mut running = Running::default();
    let tenant = ground.tenant("attacker");
    for mut next in streams {
        let model = ground.model_of(&tenant);
        running.repeat(move |signal| signal.read(model.stream(next())));
    }
    running.tenants.push(tenant);
    running
}

/// Starts threads of one tenant that send request after request.
fn repeat(
    ground: &Ground,
    streams: usize,
    request: impl Fn(usize) -> Request + Clone + Send + 'static,
) -> Running {
    let stream = |first: usize| {
        let (request, mut round) = (request.clone(), first);
        move || {
            round += 7919;
            request(round)
        }
    };
    send(ground, (0..streams).map(stream))
}

fn story(tokens: usize) -> Request {
    Request { ignore_eos: true, ..Request::text("A long story:").temperature(0.0).max_tokens(tokens) }
}

pub(super) fn grammars(ground: &Ground) -> Running {
    repeat(ground, 1, |round| {
        let words: Vec<_> = (0..4000).map(|k| format!("k{k}r{round}[a-z]{{1,9}}")).collect();
        story(4).regex(words.join("|"))
    })
}

/// Starts a thread that first sends refused requests and then repeats the largest request that is not
/// refused. The refused ones are made beforehand, because making them takes longer than refusing them and
/// would compete for the cores that compute.
fn refused_and_largest(
    ground: &Ground,
    mut refused: Vec<Request>,
    largest: impl Fn(usize) -> Request + Send + 'static,
) -> Running {
    let mut round = 0;
    let next = move || {
        round += 1;
        refused.pop().unwrap_or_else(|| largest(round))
    };
    send(ground, [next])
}

pub(super) fn stop_strings(ground: &Ground) -> Running {
    let stops = |count: usize, round: usize| (0..count).map(|i| format!("{i:07}~{round:08}")).collect();
    let refused = (0..2).map(|round| Request { stop: stops(1_000_000, round), ..story(4) }).collect();
    refused_and_largest(ground, refused, move |round| Request { stop: stops(1024, round), ..story(4) })
}

pub(super) fn long_stops(ground: &Ground) -> Running {
    let long = |i: usize, bytes: usize| format!("{i:07}{}", "~".repeat(bytes - 7));
    let stops = || (0..100).map(|i| long(i, 500_000)).collect();
    let refused = (0..2).map(|_| Request { stop: stops(), ..story(4) }).collect();
    refused_and_largest(ground, refused, move |round| Request {
        stop: vec![long(round, 16 << 10)],
        ..story(4)
    })
}

pub(super) fn sampling(ground: &Ground) -> Running {
    let vocabulary = u32::try_from(ground.model.info().vocabulary).unwrap_or(u32::MAX);
    let bias: HashMap<_, _> =
        (0..vocabulary).map(|token| (token, if token % 2 == 0 { 0.001 } else { -0.001 })).collect();
    repeat(ground, 8, move |_| {
        let sampling = Sampling {
            logit_bias: bias.clone(),
            temperature: 100.0,
            top_k: 0,
            top_p: 0.9999,
            min_p: 0.0,
            typical_p: 0.9999,
            repetition_penalty: 1.1,
            repetition_window: usize::MAX,
            seed: Some(1),
            ..Sampling::default()
        };
        Request { ignore_eos: true, ..story(400).sampling(sampling) }.speculation(Speculation::Off)
    })
}

pub(super) fn prompt(ground: &Ground) -> Running {
    let text = |bytes: usize| Request::text("ab c ".repeat(bytes / 5)).max_tokens(1);
    // The shorter text is refused as well, but only after much of it was tokenized.
    refused_and_largest(ground, (0..8).map(|_| text(10 << 20)).collect(), move |_| text(128 << 10))
}

pub(super) fn prefill(ground: &Ground) -> Running {
    let context = ground.model.info().context_length.min(8000);
    repeat(ground, 4, move |round| {
        let tokens: Vec<u32> =
            (0..context - 8).map(|i| 300 + ((round * 31 + i * 7) % 20_000) as u32).collect();
        Request { ignore_eos: true, ..Request::tokens(tokens).max_tokens(1) }
    })
}

pub(super) fn cancel(ground: &Ground) -> Running {
    let mut running = Running::default();
    let tenant = ground.tenant("attacker");
    for thread in 0..4 {
        let model = ground.model_of(&tenant);
        let mut round = thread;
        running.repeat(move |_| {
            round += 4;
            let tokens: Vec<u32> = (0..200).map(|i| 100 + (round * 31 + i * 7) % 20_000).collect();
            model.stream(Request::tokens(tokens).max_tokens(8)).map(drop)
        });
    }
    running.tenants.push(tenant);
    running
}

pub(super) fn tiny(ground: &Ground) -> Running {
    #[allow(clippy::cast_possible_truncation, reason = "below 30,000")]
    repeat(ground, 4, |round| Request {
        ignore_eos: true,
        ..Request::tokens(vec![(round % 30_000) as u32]).max_tokens(1)
    })
}
