//! Attacks by requests alone.

use std::collections::HashMap;

use realm::{Request, Sampling, Speculation};

use crate::{Ground, Running};

/// Threads of one tenant that send request after request.
fn repeat(
    ground: &Ground,
    streams: usize,
    request: impl Fn(usize) -> Request + Clone + Send + 'static,
) -> Running {
    let mut running = Running::default();
    let tenant = ground.tenant("attacker");
    for stream in 0..streams {
        let (model, request) = (ground.model_of(&tenant), request.clone());
        let mut round = stream;
        running.repeat(move |signal| {
            round += 7919;
            signal.read(model.stream(request(round)))
        });
    }
    running.tenants.push(tenant);
    running
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

pub(super) fn stop_strings(ground: &Ground) -> Running {
    let stop: Vec<_> = (0..1_000_000).map(|i| format!("{i:07}~")).collect();
    repeat(ground, 1, move |_| Request { stop: stop.clone(), ..story(2000) })
}

pub(super) fn long_stops(ground: &Ground) -> Running {
    let stop: Vec<_> = (0..100).map(|i| format!("{i:07}{}", "~".repeat(500_000))).collect();
    repeat(ground, 1, move |_| Request { stop: stop.clone(), ..story(2000) })
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
    let text = "ab c ".repeat(2 << 20);
    repeat(ground, 1, move |_| Request::text(text.clone()).max_tokens(1))
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
