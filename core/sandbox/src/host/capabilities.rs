//! The grants of a tenant, besides the models.

use std::sync::Arc;
use std::time::SystemTime;

use realm_engine::Level;
use sha2::{Digest, Sha256};

use crate::bindings::realm::tenant::capabilities as wit;
use crate::convert::json;
use crate::error::HostError;
use crate::grants::Random;
use crate::log::Line;
use crate::request::json_bound;
use crate::state::State;
use crate::{Error, ErrorKind};

/// The bytes that a line of the log counts against `program.output` besides its message, for its source.
const LINE: usize = 64;

/// The most random bytes of one call.
const MAX_RANDOM: u32 = 4096;

/// The most programs that wait for one another.
const MAX_DEPTH: usize = 4;

pub(crate) fn denied(what: &str) -> Error {
    Error::new(ErrorKind::Denied, format!("the tenant was not granted {what}"))
}

impl wit::Host for State {
    async fn log(&mut self, level: wit::Level, message: String) -> Result<(), HostError> {
        let context = Arc::clone(&self.context);
        let log = context.grants.log.as_ref().ok_or_else(|| denied("a log"))?;
        context.budget.send(LINE + message.len())?;
        let level = match level {
            wit::Level::Error => Level::Error,
            wit::Level::Warn => Level::Warn,
            wit::Level::Info => Level::Info,
            wit::Level::Debug => Level::Debug,
            wit::Level::Trace => Level::Trace,
        };
        // If the application takes lines slowly, the program waits here, so lines do not pile up.
        let tenant = &context.tenant;
        let place = context.log.take(tenant.memory(), tenant.name(), &message).await?;
        log(Line { from: tenant.name().to_owned(), level, message, place: Some(place) });
        Ok(())
    }

    fn now(&mut self) -> Result<u64, HostError> {
        if !self.context.grants.clock {
            return Err(denied("a clock").into());
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok(since.map_or(0, |since| since.as_nanos() as u64))
    }

    fn random(&mut self, len: u32) -> Result<Vec<u8>, HostError> {
        let random = self.context.grants.random.ok_or_else(|| denied("random numbers"))?;
        if len > MAX_RANDOM {
            return Err(Error::invalid(format!("{len} random bytes; at most {MAX_RANDOM} at once")).into());
        }
        let mut bytes = vec![0; len as usize];
        self.fill_random(random, &mut bytes)?;
        Ok(bytes)
    }

    async fn call(&mut self, name: String, arguments: String) -> Result<String, HostError> {
        let tool = self.context.grants.tools.get(&name);
        let tool = Arc::clone(tool.ok_or_else(|| denied(&format!("a tool `{name}`")))?);
        let _arguments = self.context.budget.charge_transfer(arguments.len())?;
        let answer = self
            .context
            .budget
            .turn
            .outside_steps(async move { tool(arguments).await })
            .await
            .map_err(|why| Error::new(ErrorKind::Failed, why))?;
        // The guest's own memory is charged when it takes the answer.
        Ok(answer)
    }

    async fn run_program(&mut self, name: String, input: String) -> Result<String, HostError> {
        if self.depth() + 1 > MAX_DEPTH {
            let why = format!("at most {MAX_DEPTH} programs may wait for one another");
            return Err(Error::limit(why).into());
        }
        let _parsed = self.context.budget.charge(json_bound(&input))?;
        let input = json(&input, "the input is no JSON")?;
        let context = Arc::clone(&self.context);
        Ok((context.run_program)(context.clone(), name, input, self.depth() + 1).await?)
    }
}

impl State {
    /// Fills bytes from the granted source.
    fn fill_random(&mut self, random: Random, bytes: &mut [u8]) -> Result<(), Error> {
        match random {
            Random::System => getrandom::fill(bytes)
                .map_err(|error| Error::new(ErrorKind::Internal, format!("no random numbers: {error}"))),
            Random::Seed(seed) => {
                for block in bytes.chunks_mut(32) {
                    let mut hash = Sha256::new();
                    hash.update(seed.to_le_bytes());
                    hash.update(self.random_blocks.to_le_bytes());
                    self.random_blocks += 1;
                    block.copy_from_slice(&hash.finalize()[..block.len()]);
                }
                Ok(())
            }
        }
    }
}
