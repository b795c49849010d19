//! `realm bench`: tokens per second through the public API.

use std::time::Instant;

use anyhow::{Context, Result};
use realm::{Model, Request, Speculation};
use serde_json::{Map, json};

use crate::options::ModelOptions;
use crate::output::say;
use crate::tenants;

/// Measure prefill and decode throughput, or with --tenants many tenants at once
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) model: ModelOptions,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_parser = at_least_one)]
    prompt: usize,
    /// Tokens that every sequence generates
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub(crate) generate: usize,
    /// Tokens of every sequence's prompt before it generates
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub(crate) prefix: usize,
    /// Sequences that generate at once; a list
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 16], value_parser = at_least_one)]
    batch: Vec<usize>,
    /// Number of measurements; the median counts
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    pub(crate) repeat: usize,
    /// Tenants that generate at once, each with a prompt of its own; a list. Measures only these
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) tenants: Vec<u16>,
    /// Measure for this many seconds: every tenant sends request after request, each for --generate tokens
    #[arg(long, requires = "tenants", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Requests that every tenant has at once
    #[arg(long, requires = "tenants", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) streams: u16,
    /// The tenants' weights, in turns: with 1,3 every other one has three times the share
    #[arg(long, requires = "tenants", value_delimiter = ',', default_values_t = [1.0])]
    pub(crate) weights: Vec<f32>,
    /// 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Have this program answer the tenants' requests: a WebAssembly file, or the name of one that
    /// `ci/build-programs` built
    #[arg(long, requires = "tenants", value_name = "FILE|NAME")]
    pub(crate) program: Option<String>,
    /// Show every tenant while it runs
    #[arg(long, requires = "tenants")]
    pub(crate) live: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn bench(args: &Args) -> Result<()> {
    if !args.tenants.is_empty() {
        return tenants::bench(args);
    }
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

/// Returns token `i` of a prompt that no cache can hold.
fn token(model: &Model, i: usize) -> u32 {
    let vocabulary = model.info().vocabulary;
    // Small ids may be control tokens.
    let first = if vocabulary > 400 { 100 } else { 0 };
    (first + (i * 7919) % (vocabulary - 2 * first).max(1)) as u32
}

/// Returns a prompt with a beginning of its own, unless another one has the same `first`.
pub(crate) fn request(model: &Model, first: usize, prompt: usize, generate: usize) -> Request {
    let tokens: Vec<u32> = (0..prompt).map(|i| token(model, first + i)).collect();
    // The prompt is not real text: its repetitions are random.
    let speculation = Speculation::Off;
    let mut request = Request::tokens(tokens).temperature(0.0).max_tokens(generate).speculation(speculation);
    request.ignore_eos = true;
    request
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

/// Parses a number that is large enough to measure something, and small enough for sums of several.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=10_000_000) => Ok(number),
        _ => Err("must be from 1 to 10000000".into()),
    }
}

/// Parses a time that is long enough to measure something.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be from 0.1 to 86400".into()),
    }
}

pub(crate) fn median(runs: &mut [f64]) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs.get(runs.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Returns the resident memory of this process; `None` if the system does not say.
pub(crate) fn rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
