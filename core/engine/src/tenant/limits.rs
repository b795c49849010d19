//! The limits on what a tenant may use.

use std::time::Duration;

use crate::Error;

/// Limits on what a tenant may use. `None` means no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The tenant's factor in fair sharing of the computation while others want some too: a tenant of weight
    /// 3 gets three times as many tokens as one of weight 1. By default 1.
    pub weight: f32,
    /// The most requests that run at once; others wait.
    pub max_concurrent: Option<usize>,
    /// The most requests that wait for a place; one more is refused with `limit-exceeded`. By default 1024.
    pub max_queued: usize,
    /// The most tokens in the KV cache of one model, over all running requests. A request that reaches the
    /// limit alone ends there, as at the end of the context.
    pub kv_tokens: Option<usize>,
    /// The most tokens computed in a minute, of prompts and generated, over all models. A tenant that has
    /// used them up waits. Unused tokens accumulate up to one minute's worth.
    pub tokens_per_minute: Option<u32>,
    /// The longest time from a request's start to its end, including waiting; then it ends with
    /// `limit-exceeded`.
    pub request_timeout: Option<Duration>,
    /// The most bytes of memory that the tenant holds at once, of all kinds; requests beyond the limit are
    /// refused with `limit-exceeded`. By default 1 GiB.
    ///
    /// The kinds are those of [`MemoryKind`](crate::MemoryKind): requests, results that are not read,
    /// sequences, programs with all they hold, their stores and code. The KV cache's pages count by
    /// `kv_tokens` instead. 16 runs of programs at their own default limit fill the default.
    pub memory: usize,
    /// The names of the models that the tenant may use; by default all.
    pub models: Option<Vec<String>>,
    /// The names of the adapters that the tenant may use; by default all.
    pub adapters: Option<Vec<String>>,
    /// Limits on one run of one of the tenant's programs.
    pub program: ProgramLimits,
}

/// Limits on one run of a tenant's program. At a limit, the run ends with `limit-exceeded`, or the call that
/// would exceed the limit returns that error.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramLimits {
    /// The most bytes of memory of one run of a program. By default 64 MiB.
    ///
    /// Linear memories and tables count, and values that the run holds handles of, mainly logits.
    pub memory: usize,
    /// The longest time that one run of a program computes itself. By default 10 s.
    ///
    /// Time in models and time spent waiting do not count.
    pub cpu_time: Duration,
    /// The most handles that one run of a program holds at once: logits, sequences, grammars and so on. By
    /// default 1024.
    pub handles: usize,
    /// The most bytes of text that one run of a program sends. By default 16 MiB.
    pub output: usize,
}

impl Default for ProgramLimits {
    fn default() -> Self {
        Self { memory: 64 << 20, cpu_time: Duration::from_secs(10), handles: 1024, output: 16 << 20 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            weight: 1.0,
            max_concurrent: None,
            max_queued: 1024,
            kv_tokens: None,
            tokens_per_minute: None,
            request_timeout: None,
            memory: 1 << 30,
            models: None,
            adapters: None,
            program: ProgramLimits::default(),
        }
    }
}

impl Limits {
    /// Checks that all limits are in range.
    ///
    /// # Errors
    /// `InvalidArgument` with the field and its range.
    pub fn check(&self) -> Result<(), Error> {
        if !(0.001..=1000.0).contains(&self.weight) {
            let why = format!("the weight is {}; it must be from 0.001 to 1000", self.weight);
            return Err(Error::InvalidArgument(why));
        }
        let zero = [
            ("max_concurrent", self.max_concurrent == Some(0)),
            ("kv_tokens", self.kv_tokens == Some(0)),
            ("tokens_per_minute", self.tokens_per_minute == Some(0)),
            ("request_timeout", self.request_timeout == Some(Duration::ZERO)),
            ("memory", self.memory == 0),
            ("program.cpu_time", self.program.cpu_time.is_zero()),
            ("program.memory", self.program.memory == 0),
        ];
        match zero.iter().find(|(_, zero)| *zero) {
            Some((field, _)) => {
                Err(Error::InvalidArgument(format!("{field} is 0, so no request could ever run")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_let_nothing_run_are_refused() {
        for bad in [
            Limits { weight: 0.0, ..Limits::default() },
            Limits { weight: f32::NAN, ..Limits::default() },
            Limits { max_concurrent: Some(0), ..Limits::default() },
            Limits { tokens_per_minute: Some(0), ..Limits::default() },
        ] {
            assert!(bad.check().is_err());
        }
    }
}
