//! What guided decoding costs: tokens per second of SmolLM2 with and without a JSON schema, in turns.
//!
//!     cargo run --release -p realm-engine --example guided_speed [THREADS] [ROUNDS] [MODEL]
//!
//! The free side generates as many tokens from the same prompts; both sample at temperature 1. Prints medians and their
//! ratio.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use realm_compute::cpu::CpuBackend;
use realm_engine::{Engine, EngineConfig, Grammar, Limits, Request, Sampling, Tenant};
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
    let config = EngineConfig { prefix_cache: false, ..EngineConfig::default() };
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
    // Tokens per second of `sequences` together, from the first token of the last to the end.
    let run = |sequences: usize, guided: bool, seed: u64| -> Result<f64, Box<dyn Error>> {
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
        let begin = Instant::now();
        let running = (0..sequences).map(start).collect::<Result<Vec<_>, _>>()?;
        let mut tokens = 0;
        for generation in running {
            for chunk in generation {
                tokens += chunk?.tokens.len();
            }
        }
        assert_eq!(tokens, sequences * TOKENS, "a text ended early");
        Ok(tokens as f64 / begin.elapsed().as_secs_f64())
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
        let median = |mut rates: Vec<f64>| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        };
        let (free, guided) = (median(free), median(guided));
        let ratio = guided / free;
        println!("{sequences:2} sequences: free {free:.1} tokens/s, guided {guided:.1}, ratio {ratio:.3}");
    }
    Ok(())
}
