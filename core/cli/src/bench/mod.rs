//! `realm bench`: tokens per second through the public API, of one user, over all contexts, or of many
//! tenants.

mod bandwidth;
mod decode;
mod live;
mod plot;
mod single;
mod stats;
mod sweep;
mod tenants;

use anyhow::Result;
use realm::{Model, Realm, Request, Speculation, Tenant};

use crate::options::ModelOptions;

/// Measure prefill and decode throughput, or with --tenants many tenants at once
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_parser = at_least_one)]
    prompt: usize,
    /// Tokens that every sequence generates
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    generate: usize,
    /// Tokens of every sequence's prompt before it generates
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    prefix: usize,
    /// Sequences that generate at once; a list
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 16], value_parser = at_least_one)]
    batch: Vec<usize>,
    /// Number of measurements; the median counts
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    repeat: usize,
    /// Tenants that generate at once, each with a prompt of its own; a list. Measures only these
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    tenants: Vec<u16>,
    /// Measure for this many seconds: every tenant sends request after request, each for --generate tokens
    #[arg(long, requires = "tenants", value_parser = seconds)]
    seconds: Option<f64>,
    /// Requests that every tenant has at once
    #[arg(long, requires = "tenants", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    streams: u16,
    /// The tenants' weights, in turns: with 1,3 every other one has three times the share
    #[arg(long, requires = "tenants", value_delimiter = ',', default_values_t = [1.0])]
    weights: Vec<f32>,
    /// 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Have this program answer the tenants' requests: a WebAssembly file, or the name of one that
    /// `ci/build-programs` built
    #[cfg(feature = "sandbox")]
    #[arg(long, requires = "tenants", value_name = "FILE|NAME")]
    program: Option<String>,
    #[command(flatten)]
    sweep: sweep::Options,
    /// Show every tenant while it runs
    #[arg(long, requires = "tenants")]
    live: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn bench(args: &Args) -> Result<()> {
    if args.sweep.sweep {
        sweep::bench(args)
    } else if args.tenants.is_empty() {
        single::bench(args)
    } else {
        tenants::bench(args)
    }
}

impl Args {
    /// Returns a function that has the program of `--program`, if there is one, answer a tenant's requests.
    #[cfg(feature = "sandbox")]
    fn answering(&self, realm: &Realm) -> Result<impl Fn(&Tenant)> {
        let program = self.program.as_deref().map(|name| crate::tenant::load(realm, name)).transpose()?;
        Ok(move |tenant: &Tenant| tenant.set_program(program.as_ref()))
    }

    #[cfg(not(feature = "sandbox"))]
    fn answering(&self, _realm: &Realm) -> Result<impl Fn(&Tenant)> {
        Ok(|_: &Tenant| {})
    }
}

/// Returns token `i` of a prompt that no cache can hold.
fn token(model: &Model, i: usize) -> u32 {
    let vocabulary = model.info().vocabulary;
    // Small ids may be control tokens.
    let first = if vocabulary > 400 { 100 } else { 0 };
    (first + (i * 7919) % (vocabulary - 2 * first).max(1)) as u32
}

/// Returns a prompt with a beginning of its own, unless another one has the same `first`.
fn request(model: &Model, first: usize, prompt: usize, generate: usize) -> Request {
    let tokens: Vec<u32> = (0..prompt).map(|i| token(model, first + i)).collect();
    // The prompt is not real text: its repetitions are random.
    let speculation = Speculation::Off;
    let mut request = Request::tokens(tokens).temperature(0.0).max_tokens(generate).speculation(speculation);
    request.ignore_eos = true;
    request
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
