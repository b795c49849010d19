//! `realm bench` without `--tenants`: prefill, and decoding of a few sequences at once.

use std::time::Instant;

use anyhow::{Context, Result};
use realm::Model;
use serde_json::{Map, json};

use super::stats::{median, round, rss_mib};
use super::{Args, request};
use crate::output::say;

pub(super) fn bench(args: &Args) -> Result<()> {
    let most = args.batch.iter().copied().max().unwrap_or(1);
    let pages = |tokens: usize| tokens.next_multiple_of(64);
    let kv_tokens = (most * pages(args.prefix + args.generate + 1)).max(pages(args.prompt + 1));
    let start = Instant::now();
    let model = args.model.load_with(Some(kv_tokens))?;
    let load_s = start.elapsed().as_secs_f64();

    let mut out = Map::new();
    let mut put = |key: String, value: serde_json::Value| -> Result<()> {
        if !args.json {
            say!("{key:<16} {value}")?;
        }
        out.insert(key, value);
        Ok(())
    };
    put("peer".into(), json!("realm"))?;
    put("version".into(), json!(env!("CARGO_PKG_VERSION")))?;
    put("model".into(), json!(args.model.model))?;
    put("device".into(), json!(model.info().device))?;
    put("load_s".into(), json!(round(load_s, 3)))?;
    put("rss_loaded_mib".into(), json!(rss_mib()))?;

    let mut runs = Vec::new();
    for run in 0..=args.repeat {
        runs.push(prefill(&model, args.prompt, run)?);
    }
    // The first run touches memory for the first time, so it does not count.
    put(format!("prefill_{}", args.prompt), json!(round(median(&mut runs[1..]), 1)))?;
    for &batch in &args.batch {
        let mut runs = Vec::new();
        for _ in 0..args.repeat {
            runs.push(decode(&model, batch, args)?);
        }
        put(format!("decode_b{batch}"), json!(round(median(&mut runs), 1)))?;
        put(format!("rss_b{batch}_mib"), json!(rss_mib()))?;
    }
    if args.json {
        say!("{}", serde_json::Value::Object(out))?;
    }
    Ok(())
}

/// Returns the prompt tokens per second up to the first generated token.
fn prefill(model: &Model, prompt: usize, run: usize) -> Result<f64> {
    let start = Instant::now();
    model.generate(request(model, run, prompt, 1))?;
    Ok(prompt as f64 / start.elapsed().as_secs_f64())
}

/// Returns the tokens per second over all sequences, from the moment when each has its first one.
fn decode(model: &Model, batch: usize, args: &Args) -> Result<f64> {
    let generate = args.generate;
    let mut generations: Vec<_> = (0..batch)
        .map(|s| {
            let request = request(model, s, args.prefix, generate + 1);
            model.stream(request.temperature(args.temperature))
        })
        .collect::<Result<_, _>>()?;
    for generation in &mut generations {
        generation.next_blocking().context("a generation ended before it began")??;
    }
    let start = Instant::now();
    let mut tokens = 0;
    for step in 0..generate {
        for generation in &mut generations {
            let chunk = generation
                .next_blocking()
                .with_context(|| format!("a generation ended at step {step}"))??;
            tokens += chunk.tokens.len();
        }
    }
    Ok(tokens as f64 / start.elapsed().as_secs_f64())
}
