//! `realm bench` without `--tenants`: prefill, and decoding of a few sequences at once.

use std::time::Instant;

use anyhow::Result;
use realm::Model;
use serde_json::{Map, json};

use super::decode::Decoding;
use super::stats::{median, round, rss_mib};
use super::{Args, request};
use crate::output::say;

pub(super) fn bench(args: &Args) -> Result<()> {
    let decoding = |sequences| Decoding::new(args, sequences, args.prefix);
    let most = args.batch.iter().map(|&batch| decoding(batch).kv_tokens()).max().unwrap_or(1);
    let kv_tokens = most.max((args.prompt + 1).next_multiple_of(64));
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
        let decoding = decoding(batch);
        decoding.prepare(&model)?;
        let runs = (0..args.repeat).map(|_| Ok(decoding.measure(&model)?.tokens_per_s));
        let mut runs: Vec<f64> = runs.collect::<Result<_>>()?;
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
