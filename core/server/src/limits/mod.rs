//! Limits of the gateway: requests and tokens a minute, and requests at once, for keys and for tenants.
//!
//! A request takes its place when it arrives, and reserves its prompt and the most that its answer may have
//! before it starts. What it did not use is given back at its end, so requests that run at the same time
//! can't pass a limit together.

mod account;
mod bucket;

pub(crate) use account::{Account, Entered, Left, Reservation, enter};

use serde::{Deserialize, Serialize};

/// Limits on requests of a key or of a tenant. Beyond them a request is refused with status 429. By default
/// there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Rates {
    /// The most requests in a minute. Unused ones accumulate up to one minute's worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// The most tokens in a minute, of prompts and answers. Unused ones accumulate up to one minute's worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// The most requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
}

impl Rates {
    /// Checks that requests can run at all.
    ///
    /// # Errors
    /// A sentence that names a limit of 0.
    pub fn check(&self) -> Result<(), String> {
        let limits = [
            ("requests-per-minute", self.requests_per_minute),
            ("tokens-per-minute", self.tokens_per_minute),
            ("concurrent-requests", self.concurrent_requests),
        ];
        match limits.iter().find(|(_, limit)| *limit == Some(0)) {
            Some((name, _)) => {
                Err(format!("{name} is 0, so no request could ever run; leave it out for no limit"))
            }
            None => Ok(()),
        }
    }
}
