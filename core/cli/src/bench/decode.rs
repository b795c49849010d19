//! The speed of sequences that generate at once, each with a context of its own.
//!
//! All prompts are computed first, one token is generated for each, and the cache remembers them. Then the
//! sequences start together, and each has hardly anything of its prompt left to compute. Clock and count
//! begin when each has its first token, and end when each has `generate` more. Tokens are counted by the
//! engine, so that it is of no consequence when they are read.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use realm::{Metrics, Model};

use super::{Args, request};

/// Tokens that a sequence may generate after those that are measured: the engine goes on while they are read.
pub(super) const SLACK: usize = 256;
/// Measurements that may fail because other work of the machine kept this thread from reading.
const TRIES: usize = 4;

/// The sequences of a measurement.
#[derive(Clone, Copy)]
pub(super) struct Decoding {
    /// The number of the first sequence, which its prompt begins with: prompts that were computed before
    /// under other numbers are of no use to this measurement.
    pub(super) first: usize,
    pub(super) sequences: usize,
    /// Tokens of each sequence's prompt.
    pub(super) prefix: usize,
    /// Tokens of each sequence that are measured.
    pub(super) generate: usize,
    pub(super) temperature: f32,
}

/// The measurement of a [`Decoding`].
#[derive(Clone, Copy)]
pub(super) struct Decoded {
    pub(super) tokens_per_s: f64,
    /// Bytes of the KV cache that the sequences had in the end.
    pub(super) kv_bytes: usize,
}

impl Decoding {
    pub(super) fn new(args: &Args, sequences: usize, prefix: usize) -> Self {
        Self { first: 0, sequences, prefix, generate: args.generate, temperature: args.temperature }
    }

    /// Returns the tokens that the KV cache has to hold.
    pub(super) fn kv_tokens(&self) -> usize {
        self.sequences * (self.prefix + self.generate + 1 + SLACK).next_multiple_of(64)
    }

    fn numbers(&self) -> Range<usize> {
        self.first..self.first + self.sequences
    }

    /// Computes all prompts, so that the cache remembers them. Returns the prompt tokens per second.
    pub(super) fn prepare(&self, model: &Model) -> Result<f64> {
        let start = Instant::now();
        let generations: Vec<_> = self
            .numbers()
            .map(|sequence| model.stream(request(model, sequence, self.prefix, 1)))
            .collect::<Result<_, _>>()?;
        for mut generation in generations {
            while let Some(chunk) = generation.next_blocking() {
                chunk?;
            }
        }
        Ok((self.sequences * self.prefix) as f64 / start.elapsed().as_secs_f64())
    }

    /// Measures once. A measurement in which a sequence ended too early does not count.
    pub(super) fn measure(&self, model: &Model) -> Result<Decoded> {
        for _ in 0..TRIES {
            if let Some(decoded) = self.attempt(model)? {
                return Ok(decoded);
            }
        }
        bail!("other work of the machine kept this process from reading what it generated: raise --generate")
    }

    /// Measures once, unless a sequence has ended by then.
    fn attempt(&self, model: &Model) -> Result<Option<Decoded>> {
        let most = 1 + self.generate + SLACK;
        let mut generations: Vec<_> = self
            .numbers()
            .map(|sequence| {
                let request = request(model, sequence, self.prefix, most);
                model.stream(request.temperature(self.temperature))
            })
            .collect::<Result<_, _>>()?;
        for generation in &mut generations {
            generation.next_blocking().context("a generation ended before it began")??;
        }
        let (start, before) = (Instant::now(), model.metrics());
        for step in 0..self.generate {
            for generation in &mut generations {
                generation
                    .next_blocking()
                    .with_context(|| format!("a generation ended at step {step}"))??;
            }
        }
        let (seconds, after) = (start.elapsed().as_secs_f64(), model.metrics());
        let generated = |metrics: &Metrics| metrics.served.tokens.generated;
        let tokens = generated(&after) - generated(&before);
        // The sequences have as many tokens each, but for a few. The gauge of running ones lags behind.
        if tokens >= (self.sequences * (self.generate + SLACK / 2)) as u64 {
            return Ok(None);
        }
        Ok(Some(Decoded {
            tokens_per_s: tokens as f64 / seconds,
            kv_bytes: after.kv.used * after.kv.page_bytes,
        }))
    }
}
