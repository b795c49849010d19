//! `realm bench --tenants`: many tenants at once through the public API, as in a service.
//!
//! Every tenant has `--streams` threads, each of which reads one stream. They start together. The *saturated
//! period* begins when each stream has its first token. It ends when the first stream has generated
//! `--generate` more tokens or, with `--seconds`, after that time; with `--seconds`, a stream that has ended
//! is followed by the next. Then all streams are cancelled. So all streams generate during the whole period,
//! however long the prompts took.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use realm::{Limits, Metrics, Model, Realm, Tenant};
use serde_json::{Map, Value, json};

use super::live::Live;
use super::stats::{median, percentiles, round, rss_mib};
use super::{Args, request};
use crate::output::say;

/// The prefix of tenants' names.
const TENANT: &str = "tenant-";

pub(super) fn bench(args: &Args) -> Result<()> {
    let counts: Vec<usize> = args.tenants.iter().map(|&n| n.into()).collect();
    let most = counts.iter().copied().max().unwrap_or(1) * usize::from(args.streams);
    let kv_tokens = most * (args.prefix + longest(args, most)).next_multiple_of(64);
    let (realm, model) = args.model.start(Some(kv_tokens))?;
    // The first forward passes touch memory for the first time, so they are not measured.
    model.generate(request(&model, 0, args.prefix, 1))?;
    if !args.json {
        say!(
            "tenants  tokens/s  first token s: p50   p95   p99  between tokens ms: p50   p95   p99  fairness  scheduler  RSS MiB  KV MiB"
        )?;
    }
    let mut out = Map::new();
    let answering = args.answering(&realm)?;
    for &count in &counts {
        let live = args
            .live
            .then(|| Live::start(&model, format!("{} · {count} tenants", args.model.model), args.json));
        let runs = (0..args.repeat.max(1)).map(|_| run(&realm, &model, &answering, count, args));
        let runs = runs.collect::<Result<Vec<_>>>();
        drop(live);
        let report = Report::new(&runs?);
        if !args.json {
            report.print(count)?;
        }
        out.insert(count.to_string(), report.json());
    }
    if args.json {
        let device = &model.info().device;
        say!("{}", json!({ "model": args.model.model, "device": device, "tenants": out }))?;
    }
    Ok(())
}

/// Returns the tokens that a request may generate: `--generate` and, without `--seconds`, those that it
/// generates while the other prompts are computed in chunks of at least 64 rows, and 256 more for threads
/// that read late.
fn longest(args: &Args, streams: usize) -> usize {
    match args.seconds {
        Some(_) => args.generate,
        None => args.generate + streams * args.prefix.div_ceil(64) + 256,
    }
}

/// The measurements of one stream's reader.
#[derive(Default)]
struct Seen {
    /// Times to the first token, one for each request.
    first_tokens: Vec<Duration>,
    /// Times between tokens.
    gaps: Vec<Duration>,
    /// The number of tokens in the saturated period.
    tokens: usize,
}

/// The metrics at one end of the saturated period.
struct Reading {
    at: Instant,
    metrics: Metrics,
    rss_mib: Option<u64>,
}

impl Reading {
    fn take(model: &Model) -> Self {
        Self { at: Instant::now(), metrics: model.metrics(), rss_mib: rss_mib() }
    }
}

/// The saturated period, shared by all threads.
struct Period<'a> {
    model: &'a Model,
    args: &'a Args,
    streams: usize,
    /// The number of streams that have no token yet.
    without: AtomicUsize,
    begin: OnceLock<Reading>,
    end: OnceLock<Reading>,
    over: AtomicBool,
}

impl Period<'_> {
    /// Records a stream's first token.
    fn first_token(&self) {
        if self.without.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.begin.get_or_init(|| Reading::take(self.model));
        }
    }

    /// Returns whether a stream with `tokens` tokens in the period is complete.
    fn is_enough(&self, tokens: usize) -> bool {
        match self.args.seconds {
            Some(seconds) => {
                self.begin.get().is_some_and(|begin| begin.at.elapsed().as_secs_f64() >= seconds)
            }
            None => tokens >= self.args.generate,
        }
    }

    /// Ends the period: a stream is complete.
    fn finish(&self) {
        self.end.get_or_init(|| Reading::take(self.model));
        self.over.store(true, Ordering::Release);
    }
}

struct Run {
    seen: Vec<Seen>,
    begin: Reading,
    end: Reading,
    tenants: Vec<Tenant>,
}

fn run(realm: &Realm, model: &Model, answering: &impl Fn(&Tenant), count: usize, args: &Args) -> Result<Run> {
    // Each round has names of its own: the last round's tenants may still be leaving, and metrics are told
    // apart by names.
    static ROUNDS: AtomicUsize = AtomicUsize::new(1);
    let round = ROUNDS.fetch_add(1, Ordering::Relaxed);
    let weights = args.weights.iter().cycle();
    let tenants = (0..count)
        .zip(weights)
        .map(|(i, &weight)| {
            realm.tenant(&format!("{TENANT}{:02}.{round}", i + 1), Limits { weight, ..Limits::default() })
        })
        .collect::<Result<Vec<_>, _>>()?;
    tenants.iter().for_each(answering);
    let streams = count * usize::from(args.streams);
    let period = Period {
        model,
        args,
        streams,
        without: AtomicUsize::new(streams),
        begin: OnceLock::new(),
        end: OnceLock::new(),
        over: AtomicBool::new(false),
    };
    let start = Barrier::new(streams);
    let seen = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..streams)
            .map(|i| {
                let (period, start, tenant) = (&period, &start, &tenants[i % count]);
                scope.spawn(move || {
                    let seen = read(tenant, i, period, start);
                    // Ends the period even if the stream has failed.
                    period.finish();
                    seen
                })
            })
            .collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results.map(|seen| seen.map_err(|_| anyhow!("a tenant's thread panicked"))?).collect::<Result<_>>()
    })?;
    let missing = "the generations ended before every tenant had its first token: raise --generate";
    Ok(Run {
        seen,
        begin: period.begin.into_inner().context(missing)?,
        end: period.end.into_inner().context(missing)?,
        tenants,
    })
}

/// Runs the thread of stream `index`.
fn read(tenant: &Tenant, index: usize, period: &Period<'_>, start: &Barrier) -> Result<Seen> {
    let model = tenant.model(period.model);
    start.wait();
    let (model, args, mut seen) = (model?, period.args, Seen::default());
    let over = || period.over.load(Ordering::Acquire);
    for turn in 0.. {
        let (first, most) = (index + turn * period.streams, longest(args, period.streams));
        let request = request(&model, first, args.prefix, most).temperature(args.temperature);
        let (began, mut last) = (Instant::now(), None);
        let mut generation = model.stream(request)?;
        while !over()
            && let Some(chunk) = generation.next_blocking()
        {
            let (tokens, now) = (chunk?.tokens.len(), Instant::now());
            // Tokens that arrive together share the time since the previous one.
            let each = |last: Instant| (now - last) / u32::try_from(tokens).unwrap_or(1).max(1);
            match last.replace(now) {
                Some(last) => seen.gaps.extend(std::iter::repeat_n(each(last), tokens)),
                None => {
                    seen.first_tokens.push(now - began);
                    if turn == 0 {
                        period.first_token();
                        continue;
                    }
                }
            }
            if period.begin.get().is_some_and(|begin| begin.at <= now) {
                seen.tokens += tokens;
            }
            if period.is_enough(seen.tokens) {
                return Ok(seen);
            }
        }
        if over() || args.seconds.is_none() {
            break;
        }
    }
    Ok(seen)
}

/// The results of all runs with one number of tenants.
struct Report {
    tokens_per_s: f64,
    /// The 50th, 95th and 99th percentiles, in seconds.
    first_token: [f64; 3],
    inter_token: [f64; 3],
    /// The ratio of the most to the fewest tokens that tenants got, each divided by the tenant's weight.
    fairness: Option<f64>,
    scheduler_share: f64,
    rss_mib: Option<u64>,
    kv_mib: f64,
}

impl Report {
    fn new(runs: &[Run]) -> Self {
        let seen = || runs.iter().flat_map(|run| &run.seen);
        let mut rates: Vec<f64> = runs
            .iter()
            .map(|run| {
                let tokens: usize = run.seen.iter().map(|seen| seen.tokens).sum();
                tokens as f64 / (run.end.at - run.begin.at).as_secs_f64()
            })
            .collect();
        let time = |run: &Run, what: fn(&Metrics) -> f64| what(&run.end.metrics) - what(&run.begin.metrics);
        let steps: f64 = runs.iter().map(|run| time(run, |metrics| metrics.step_seconds.sum)).sum();
        let forward: f64 = runs.iter().map(|run| time(run, |metrics| metrics.forward_seconds)).sum();
        let mib = |metrics: &Metrics| (metrics.kv.used * metrics.kv.page_bytes) as f64 / f64::from(1 << 20);
        Self {
            tokens_per_s: median(&mut rates),
            first_token: percentiles(seen().flat_map(|seen| seen.first_tokens.iter().copied()).collect()),
            inter_token: percentiles(seen().flat_map(|seen| seen.gaps.iter().copied()).collect()),
            fairness: runs.iter().map(fairness).collect::<Option<Vec<_>>>().map(|mut all| median(&mut all)),
            scheduler_share: 1.0 - forward / steps,
            rss_mib: runs.iter().filter_map(|run| run.end.rss_mib).max(),
            kv_mib: runs.iter().map(|run| mib(&run.end.metrics)).fold(0.0, f64::max),
        }
    }

    fn json(&self) -> Value {
        let times = |times: &[f64; 3]| {
            let [p50, p95, p99] = times.map(|time| round(time, 5));
            json!({ "p50": p50, "p95": p95, "p99": p99 })
        };
        json!({
            "tokens_per_s": round(self.tokens_per_s, 1),
            "ttft_s": times(&self.first_token),
            "itl_s": times(&self.inter_token),
            "fairness": self.fairness.map(|fairness| round(fairness, 3)),
            "scheduler_share": round(self.scheduler_share, 4),
            "rss_mib": self.rss_mib,
            "kv_mib": round(self.kv_mib, 1),
        })
    }

    fn print(&self, count: usize) -> std::io::Result<()> {
        let [f50, f95, f99] = self.first_token;
        let [i50, i95, i99] = self.inter_token.map(|time| 1000.0 * time);
        let fairness = self.fairness.map_or("-".into(), |fairness| format!("{fairness:.3}"));
        let share = format!("{:.1} %", 100.0 * self.scheduler_share);
        let rss = self.rss_mib.map_or("-".into(), |mib| mib.to_string());
        say!(
            "{count:>7}  {:>8.1}  {f50:>18.3} {f95:>5.3} {f99:>5.3}  {i50:>22.1} {i95:>5.1} {i99:>5.1}  {fairness:>8}  {share:>9}  {rss:>7}  {:>6.1}",
            self.tokens_per_s,
            self.kv_mib,
        )
    }
}

/// Returns the ratio of the most to the fewest tokens that tenants got in the saturated period, as the engine
/// counted them, each divided by the tenant's weight.
fn fairness(run: &Run) -> Option<f64> {
    let generated = |metrics: &Metrics, name: &str| {
        let tenant = metrics.tenants.iter().find(|tenant| tenant.name == name)?;
        Some(tenant.served.tokens.generated)
    };
    let mut shares = Vec::new();
    for tenant in &run.tenants {
        let name = tenant.name();
        let served = generated(&run.end.metrics, name)? - generated(&run.begin.metrics, name)?;
        shares.push(served as f64 / f64::from(tenant.limits().weight));
    }
    let (least, most) = shares.into_iter().fold((f64::INFINITY, 0.0f64), |(a, b), n| (a.min(n), b.max(n)));
    (least > 0.0).then(|| most / least)
}
