//! Drafts of another model, and that they leave texts unchanged.

use super::*;

/// A small model with a draft model, and three drafts for each sequence.
fn bench(speculation: Speculation, draft_model: &str) -> Bench {
    let (model, other) = (tiny("llama-f32"), tiny(draft_model));
    // Few requests at once: there are no drafts where sequences take turns.
    let config =
        EngineConfig { speculation, fixed_drafts: Some(3), max_running: 8, ..EngineConfig::default() };
    Bench::with_draft(&model, 64, config, &other)
}

/// Returns the tokens of all requests, and how many drafts were right and wrong.
fn outcome(bench: &mut Bench, requests: Vec<Chunks>) -> (Vec<Vec<u32>>, usize, usize) {
    bench.finish();
    let (mut texts, mut right, mut wrong) = (Vec::new(), 0, 0);
    for chunks in &requests {
        let (text, finish) = tokens(chunks);
        let usage = finish.expect("an end").usage;
        texts.push(text);
        right += usage.accepted_tokens;
        wrong += usage.draft_tokens - usage.accepted_tokens;
    }
    (texts, right, wrong)
}

#[test]
fn texts_are_the_same_with_a_draft_model_that_is_often_wrong() {
    let run = |speculation| {
        // A draft model that predicts other tokens.
        let mut bench = bench(speculation, "qwen2-f32");
        let tenant = tenant(Limits::default());
        let requests: Vec<Chunks> = (0..24)
            .map(|i| {
                // Flat enough for the two models to agree at times.
                let sampling = Sampling {
                    temperature: 0.3 * (i % 3) as f32,
                    top_k: 3,
                    seed: Some(i),
                    ..Sampling::default()
                };
                bench.sample(&tenant, &text(i as u32, 0, 5 + i as usize), 40, 0, sampling)
            })
            .collect();
        outcome(&mut bench, requests)
    };
    let (plain, ..) = run(Speculation::Off);
    let (drafted, right, wrong) = run(Speculation::Draft);
    assert!(right > 0 && wrong > right, "{right} right, {wrong} wrong");
    assert!(drafted == plain);
}

/// The same seeds give the same texts, so this uses other seeds and compares distributions.
#[test]
fn what_is_sampled_is_distributed_as_without_drafts() {
    const TEXTS: u64 = 1500;
    let run = |speculation, first_seed: u64, length: usize| {
        // The model itself as draft model: its likeliest token is right at times.
        let mut bench = bench(speculation, "llama-f32");
        let tenant = tenant(Limits { max_queued: TEXTS as usize, ..Limits::default() });
        // Long texts consist of four tokens, so that they repeat themselves.
        let others =
            (0..bench.scheduler.runner.config().vocab as u32).filter(|t| ![3, 17, 40, 61].contains(t));
        let banned_tokens: Vec<u32> = if length > 4 { others.collect() } else { Vec::new() };
        let requests: Vec<Chunks> = (first_seed..first_seed + TEXTS)
            .map(|seed| {
                let sampling = Sampling {
                    temperature: 1.0,
                    top_k: 6,
                    seed: Some(seed),
                    banned_tokens: banned_tokens.clone(),
                    ..Sampling::default()
                };
                bench.sample(&tenant, &[5, 6, 7, 5, 6, 7, 5, 6], length, 0, sampling)
            })
            .collect();
        outcome(&mut bench, requests)
    };
    for (speculation, length) in [(Speculation::Draft, 4), (Speculation::Lookup, 20)] {
        let (plain, ..) = run(Speculation::Off, 0, length);
        let (drafted, right, wrong) = run(speculation, 1 << 20, length);
        assert!(right > 50 && wrong > 50, "{speculation:?}: {right} right, {wrong} wrong");
        for i in [0, length / 2, length - 1] {
            let (chi_square, kinds) = compare(&plain, &drafted, |text| text[i].into());
            assert!(
                kinds > 1.0 && chi_square < bound(kinds),
                "{speculation:?} {i}: {chi_square:.1} of {kinds}"
            );
        }
        // Compare pairs of neighbors: whether a draft is right must not depend on the token that came of it.
        let pair = |text: &[u32]| u64::from(text[length - 2]) << 32 | u64::from(text[length - 1]);
        let (chi_square, kinds) = compare(&plain, &drafted, pair);
        assert!(
            kinds > 2.0 && chi_square < bound(kinds),
            "{speculation:?} pairs: {chi_square:.1} of {kinds}"
        );
    }
}

/// Three standard deviations above the mean of chi-square for this number of kinds. The seeds are fixed.
fn bound(kinds: f64) -> f64 {
    (kinds - 1.0) + 3.0 * (2.0 * (kinds - 1.0)).sqrt()
}

/// Pearson's chi-square for two samples of one size, and the number of kinds. Rare kinds count as one.
fn compare(one: &[Vec<u32>], other: &[Vec<u32>], kind: impl Fn(&[u32]) -> u64) -> (f64, f64) {
    let mut counts: std::collections::BTreeMap<u64, [f64; 2]> = std::collections::BTreeMap::new();
    for (i, texts) in [one, other].into_iter().enumerate() {
        texts.iter().for_each(|text| counts.entry(kind(text)).or_default()[i] += 1.0);
    }
    let mut rare = [0.0; 2];
    counts.retain(|_, count| {
        let keep = count[0] + count[1] >= 20.0;
        if !keep {
            rare = [rare[0] + count[0], rare[1] + count[1]];
        }
        keep
    });
    let all: Vec<[f64; 2]> = counts.into_values().chain([rare]).filter(|[a, b]| a + b > 0.0).collect();
    (all.iter().map(|[a, b]| (a - b) * (a - b) / (a + b)).sum(), all.len() as f64)
}
