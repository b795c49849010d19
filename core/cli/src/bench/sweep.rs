//! `realm bench --sweep`: contexts × sequences × number formats of the KV cache in one run, beside what
//! memory allows.
//!
//! A generated token reads the weights and its sequence's part of the KV cache. So the least that a pass can
//! take is the time of the pass with the shortest context, and the time in which memory delivers the rest of
//! the cache. The limit is that.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use realm::{CacheType, Model};
use serde_json::{Value, json};

use super::decode::{Decoding, SLACK};
use super::stats::{median, round};
use super::{Args, at_least_one, bandwidth, plot};
use crate::output::say;

/// The options of `--sweep`.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Measure every number of sequences (--batch) with every length of context (--contexts) and every number
    /// format of the KV cache (--cache-types), beside what memory allows
    #[arg(long, conflicts_with = "tenants")]
    pub(super) sweep: bool,
    /// Tokens in the cache of every sequence; a list. Those beyond the model's context are left out
    #[arg(long, requires = "sweep", value_delimiter = ',', default_values_t = [16, 1024, 4096, 16_384], value_parser = at_least_one)]
    contexts: Vec<usize>,
    /// Number formats of the KV cache: f32, f16 or q8_0; a list [default: that of --cache-type]
    #[arg(long, requires = "sweep", value_delimiter = ',')]
    cache_types: Vec<CacheType>,
    /// Bytes per second that the device's memory delivers, in GB/s [default: what a GPU's driver says, and
    /// what the threads of a CPU read]
    #[arg(long, requires = "sweep")]
    bandwidth: Option<f64>,
    /// Write a plot of the figures to this file
    #[arg(long, requires = "sweep", value_name = "FILE.svg")]
    svg: Option<PathBuf>,
}

/// One figure.
pub(super) struct Point {
    pub(super) cache: String,
    pub(super) sequences: usize,
    pub(super) context: usize,
    pub(super) tokens_per_s: f64,
    /// The tokens per second that memory allows.
    pub(super) limit: f64,
    /// Tokens per second of the prompts, all at once.
    prompt: f64,
}

pub(super) fn bench(args: &Args) -> Result<()> {
    let options = &args.sweep;
    let mut caches: Vec<Option<CacheType>> = options.cache_types.iter().copied().map(Some).collect();
    if caches.is_empty() {
        caches.push(args.model.cache_type());
    }
    let room = args.model.trained_context()?.saturating_sub(args.generate + 1 + SLACK);
    let mut contexts: Vec<usize> =
        options.contexts.iter().copied().filter(|&context| context <= room).collect();
    contexts.sort_unstable();
    contexts.dedup();
    ensure!(
        !contexts.is_empty(),
        "no context fits: --contexts may be up to {room} with this model and --generate {}",
        args.generate
    );
    if !args.json {
        say!("cache  sequences  context  tokens/s  memory allows  of it  prompts tokens/s")?;
    }
    let (mut points, mut about) = (Vec::new(), None);
    for cache in caches {
        let most = args.batch.iter().copied().max().unwrap_or(1);
        let longest = contexts.last().copied().unwrap_or(1);
        let kv_tokens = Decoding::new(args, most, longest).kv_tokens();
        let model = args.model.load_with_cache(kv_tokens, cache)?;
        let (_, bandwidth) = about.get_or_insert_with(|| {
            let given = options.bandwidth.map(|giga| giga * 1e9);
            (model.info().device.clone(), given.unwrap_or_else(|| bandwidth::of(&model)))
        });
        let name = cache.map_or_else(|| "default".into(), |cache| cache.to_string());
        for &sequences in &args.batch {
            sweep(args, &model, &name, sequences, &contexts, *bandwidth, &mut points)?;
        }
    }
    let (device, bandwidth) = about.unwrap_or_default();
    if let Some(file) = &options.svg {
        let name = Path::new(&args.model.model).file_name().unwrap_or_default().to_string_lossy();
        plot::write(file, &format!("{name} on {device}"), &points)?;
    }
    if args.json {
        let points: Vec<Value> = points.iter().map(Point::json).collect();
        let giga = round(bandwidth / 1e9, 1);
        say!(
            "{}",
            json!({ "model": args.model.model, "device": device, "bandwidth_gb_s": giga, "points": points })
        )?;
    }
    Ok(())
}

/// Measures a number of sequences with every context.
fn sweep(
    args: &Args,
    model: &Model,
    cache: &str,
    sequences: usize,
    contexts: &[usize],
    bandwidth: f64,
    points: &mut Vec<Point>,
) -> Result<()> {
    // The time of a pass with the shortest context, and its bytes of the cache.
    let mut shortest = None;
    for &context in contexts {
        // The cache remembers nothing of these prompts.
        let first = points.iter().map(|point| point.sequences).sum();
        let decoding = Decoding { first, ..Decoding::new(args, sequences, context) };
        let prompt = decoding.prepare(model)?;
        let runs = (0..args.repeat).map(|_| decoding.measure(model)).collect::<Result<Vec<_>>>()?;
        let tokens_per_s = median(&mut runs.iter().map(|run| run.tokens_per_s).collect::<Vec<_>>());
        let bytes = runs.iter().map(|run| run.kv_bytes).max().unwrap_or_default() as f64;
        let (pass, first) = *shortest.get_or_insert((sequences as f64 / tokens_per_s, bytes));
        let limit = sequences as f64 / (pass + (bytes - first).max(0.0) / bandwidth);
        let point = Point { cache: cache.into(), sequences, context, tokens_per_s, limit, prompt };
        if !args.json {
            point.print()?;
        }
        points.push(point);
    }
    Ok(())
}

impl Point {
    fn print(&self) -> std::io::Result<()> {
        let Self { cache, sequences, context, tokens_per_s, limit, prompt } = self;
        let part = 100.0 * tokens_per_s / limit;
        say!(
            "{cache:<7}{sequences:>9}{context:>9}{tokens_per_s:>10.1}{limit:>15.1}{part:>5.0} %{prompt:>18.0}"
        )
    }

    fn json(&self) -> Value {
        json!({
            "cache_type": self.cache,
            "sequences": self.sequences,
            "context": self.context,
            "decode": round(self.tokens_per_s, 1),
            "memory_allows": round(self.limit, 1),
            "prompt": round(self.prompt, 1),
        })
    }
}
