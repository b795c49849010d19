//! Measures the cost of guided decoding: tokens per second of SmolLM2 with and without a JSON schema, in
//! turns.
//!
//!     cargo run --release -p realm-engine --example guided_speed [THREADS] [ROUNDS] [MODEL]
//!
//! The free side generates as many tokens from the same prompts; both sample at temperature 1. Prints medians
//! and their ratio, and the processor time of a token (Linux). The processor time of one thread is meaningful
//! on a busy machine too; several threads spend time spinning while they wait for each other. Both sides go
//! without drafts, unless `DRAFTS` is set.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use realm_compute::cpu::CpuBackend;
use realm_engine::{Engine, EngineConfig, Grammar, Limits, Request, Sampling, Speculation, Tenant};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;
use serde_json::json;

const TOKENS: usize = 96;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(Ok(2), |n| n.parse())?;
    let rounds = args.next().map_or(Ok(7), |n| n.parse())?;
    let model = args.next().unwrap_or_else(|| "smollm2-135m".into());
    let path = Hub::new()?.resolve(&Reference::parse(&model)?, &mut ())?;
    let gguf = Gguf::open(path)?;
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata())?);
    let backend = Arc::new(CpuBackend::new(threads)?);
    let weights = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {})?);
    // Drafts make JSON faster than free text, which would hide the cost of masks.
    let speculation = if std::env::var("DRAFTS").is_ok() { Speculation::Auto } else { Speculation::Off };
    let config = EngineConfig { prefix_cache: false, speculation, ..EngineConfig::default() };
    let engine = Engine::new(&weights, Arc::clone(&tokenizer), &config)?;
    let tenant = Arc::new(Tenant::new("anybody", Limits::default())?);
    // Long enough that no text ends before the others.
    let schema = json!({
        "type": "array", "minItems": 20,
        "items": {
            "type": "object", "additionalProperties": false, "required": ["name", "age", "tags", "note"],
            "properties": {
                "name": {"type": "string", "maxLength": 24},
                "age": {"type": "integer", "minimum": 0, "maximum": 120},
                "tags": {"type": "array", "maxItems": 3, "items": {"enum": ["red", "green", "blue"]}},
                "note": {"type": "string"},
            },
        },
    });
    // Returns tokens per second of all `sequences` together, including prompts, and microseconds of processor
    // time for each token.
    let run = |sequences: usize, guided: bool, seed: u64| -> Result<(f64, f64), Box<dyn Error>> {
        let start = |i: usize| {
            engine.generate(
                &tenant,
                Request {
                    prompt: tokenizer.encode(&format!("Here are people number {i} as JSON:\n"), true, true),
                    sampling: Sampling {
                        temperature: 1.0,
                        seed: Some(seed + i as u64),
                        ..Sampling::default()
                    },
                    max_tokens: Some(TOKENS),
                    grammar: guided.then(|| Grammar::JsonSchema(schema.clone())),
                    ignore_eos: true,
                    ..Request::default()
                },
            )
        };
        let (begin, busy) = (Instant::now(), processor_time());
        let running = (0..sequences).map(start).collect::<Result<Vec<_>, _>>()?;
        let mut tokens = 0;
        for generation in running {
            for chunk in generation {
                tokens += chunk?.tokens.len();
            }
        }
        assert_eq!(tokens, sequences * TOKENS, "a text ended early");
        let tokens = tokens as f64;
        Ok((tokens / begin.elapsed().as_secs_f64(), (processor_time() - busy) / tokens))
    };
    let begin = Instant::now();
    run(1, true, 0)?;
    println!("the first guided request, with its tables: {:.2} s", begin.elapsed().as_secs_f64());
    for sequences in [1, 16] {
        let (mut free, mut guided) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            free.push(run(sequences, false, 100 * round)?);
            guided.push(run(sequences, true, 100 * round)?);
        }
        let median = |runs: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let (rate, rate_guided) = (median(&free, |run| run.0), median(&guided, |run| run.0));
        let (time, time_guided) = (median(&free, |run| run.1), median(&guided, |run| run.1));
        println!(
            "{sequences:2} sequences: {rate:.1} tokens/s free, {rate_guided:.1} guided, ratio {:.3}; {time:.0} us of processor time a token free, {time_guided:.0} guided, ratio {:.3}",
            rate_guided / rate,
            time_guided / time,
        );
    }
    Ok(())
}

/// Microseconds of processor time of this process's threads.
fn processor_time() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1000.0
}
