//! Accounts: what the requests of one key, or of one tenant, have used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use realm::ErrorCode;
use realm_protocol::ApiError;

use super::Rates;
use super::bucket::{Bucket, Lack};

/// The account of a key or of a tenant.
#[derive(Debug)]
pub(crate) struct Account {
    /// The party, in errors: `key` or `tenant`.
    of: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    most: Option<u32>,
    running: u32,
}

/// What an account has left: the limit, what remains of it, and the time until all of it is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) reset: Duration,
}

impl Account {
    pub(crate) fn new(of: &'static str, rates: &Rates) -> Arc<Self> {
        let account = Self { of, state: Mutex::default() };
        account.set_rates(rates);
        Arc::new(account)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limits. What was used stays used.
    pub(crate) fn set_rates(&self, rates: &Rates) {
        let now = Instant::now();
        let mut state = self.lock();
        set(&mut state.requests, rates.requests_per_minute, now);
        set(&mut state.tokens, rates.tokens_per_minute, now);
        state.most = rates.concurrent_requests;
    }

    /// Returns what is left of requests and of tokens.
    pub(crate) fn left(&self, now: Instant) -> (Option<Left>, Option<Left>) {
        let mut state = self.lock();
        let State { requests, tokens, .. } = &mut *state;
        let read = |bucket: &mut Option<Bucket>| {
            bucket.as_mut().map(|bucket| {
                let (remaining, reset) = bucket.left(now);
                Left { limit: bucket.per_minute(), remaining, reset }
            })
        };
        (read(requests), read(tokens))
    }
}

fn set(bucket: &mut Option<Bucket>, per_minute: Option<u32>, now: Instant) {
    match (bucket.as_mut(), per_minute) {
        (Some(bucket), Some(rate)) => bucket.set_rate(rate.into(), now),
        (_, rate) => *bucket = rate.map(|rate| Bucket::new(rate.into(), now)),
    }
}

/// A request's place in its accounts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    accounts: Vec<Arc<Account>>,
}

/// Takes a place for one request in all `accounts`, or in none. Callers give the accounts in one order.
pub(crate) fn enter(accounts: Vec<Arc<Account>>, now: Instant) -> Result<Entered, ApiError> {
    {
        let mut states: Vec<_> = accounts.iter().map(|account| account.lock()).collect();
        for (account, state) in accounts.iter().zip(&mut states) {
            if let Some(most) = state.most.filter(|most| state.running >= *most) {
                let why = format!(
                    "this {} has {most} requests running, as many as it may have at once; wait for one to end",
                    account.of
                );
                return Err(refused(&why, Duration::from_secs(1)));
            }
            if let Some(Err(lack)) = state.requests.as_mut().map(|bucket| bucket.check(1, now)) {
                let most = state.requests.as_ref().map_or(0, Bucket::per_minute);
                let why = format!("this {} may send {most} requests a minute; try again later", account.of);
                return Err(refused(&why, after(lack)));
            }
        }
        for state in &mut states {
            state.running += 1;
            if let Some(bucket) = &mut state.requests {
                bucket.take(1);
            }
        }
    }
    Ok(Entered { accounts })
}

impl Entered {
    /// Reserves a prompt and the most that its answer may have, in all accounts or in none.
    pub(crate) fn reserve(
        &self,
        prompt: usize,
        answer: usize,
        now: Instant,
    ) -> Result<Reservation, ApiError> {
        let wanted = (prompt as u64).saturating_add(answer as u64);
        let mut states: Vec<_> = self.accounts.iter().map(|account| account.lock()).collect();
        for (account, state) in self.accounts.iter().zip(&mut states) {
            let Some(bucket) = &mut state.tokens else { continue };
            let (of, most) = (account.of, bucket.per_minute());
            match bucket.check(wanted, now) {
                Ok(()) => {}
                Err(Lack::Ever) => {
                    let why = format!(
                        "the prompt has {prompt} tokens and the answer up to {answer}, and this {of} may use {most} in a \
                         minute: set a smaller `max_tokens`, or shorten the prompt"
                    );
                    let error = ApiError::new(400, "invalid_request_error", ErrorCode::LimitExceeded, why);
                    return Err(error.code("tokens_per_minute_exceeded"));
                }
                Err(lack) => {
                    let left = bucket.left(now).0;
                    let why = format!(
                        "the prompt has {prompt} tokens and the answer up to {answer}, and this {of} has {left} of {most} \
                         tokens a minute left; try again later, or set a smaller `max_tokens`"
                    );
                    return Err(refused(&why, after(lack)));
                }
            }
        }
        for state in &mut states {
            if let Some(bucket) = &mut state.tokens {
                bucket.take(wanted);
            }
        }
        Ok(Reservation { accounts: self.accounts.clone(), unused: answer as u64 })
    }

    /// Returns the tightest of what is left of requests and of tokens.
    pub(crate) fn left(&self, now: Instant) -> (Option<Left>, Option<Left>) {
        let left = self.accounts.iter().map(|account| account.left(now));
        let least = |a: Option<Left>, b: Option<Left>| match (a, b) {
            (Some(a), Some(b)) => Some(if b.remaining < a.remaining { b } else { a }),
            (a, b) => a.or(b),
        };
        left.fold((None, None), |(requests, tokens), (r, t)| (least(requests, r), least(tokens, t)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        for account in &self.accounts {
            let mut state = account.lock();
            state.running = state.running.saturating_sub(1);
        }
    }
}

/// Tokens that a request has reserved. Dropping it gives back those that it did not use.
#[derive(Debug)]
pub(crate) struct Reservation {
    accounts: Vec<Arc<Account>>,
    unused: u64,
}

impl Reservation {
    /// Counts tokens of the answer.
    pub(crate) fn used(&mut self, tokens: usize) {
        self.unused = self.unused.saturating_sub(tokens as u64);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.unused == 0 {
            return;
        }
        let now = Instant::now();
        for account in &self.accounts {
            if let Some(bucket) = &mut account.lock().tokens {
                bucket.give(self.unused, now);
            }
        }
    }
}

fn after(lack: Lack) -> Duration {
    match lack {
        Lack::For(time) => time,
        Lack::Ever => Duration::from_secs(60),
    }
}

fn refused(why: &str, wait: Duration) -> ApiError {
    // A client that comes back earlier than said would be refused again.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    ApiError::new(429, "rate_limit_error", ErrorCode::LimitExceeded, why)
        .code("rate_limit_exceeded")
        .after(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(requests: u32, tokens: u32, most: u32) -> Rates {
        Rates {
            requests_per_minute: Some(requests),
            tokens_per_minute: Some(tokens),
            concurrent_requests: Some(most),
        }
    }

    #[test]
    fn requests_at_the_same_time_pass_no_limit_together() {
        let account = Account::new("key", &rates(1_000, 1_000, 1_000));
        let used = std::sync::atomic::AtomicUsize::new(0);
        let now = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let entered = enter(vec![Arc::clone(&account)], now).unwrap();
                        let Ok(mut reserved) = entered.reserve(30, 20, now) else { continue };
                        reserved.used(20);
                        used.fetch_add(50, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(used.into_inner(), 1_000);
    }

    #[test]
    fn what_is_not_used_comes_back_and_what_is_used_does_not() {
        let (tenant, key) =
            (Account::new("tenant", &rates(10, 500, 10)), Account::new("key", &rates(10, 100, 10)));
        let now = Instant::now();
        let entered = enter(vec![Arc::clone(&tenant), Arc::clone(&key)], now).unwrap();
        let mut reserved = entered.reserve(10, 90, now).unwrap();
        assert_eq!(entered.reserve(1, 0, now).unwrap_err().status(), 429);
        assert_eq!(tenant.left(now).1.unwrap().remaining, 400);
        reserved.used(15);
        drop(reserved);
        assert_eq!(key.left(now).1.unwrap().remaining, 75);
        assert_eq!(tenant.left(now).1.unwrap().remaining, 475);
        // The headers show the tighter one.
        assert_eq!(entered.left(now).1.unwrap().limit, 100);
        let error = entered.reserve(50, 51, now).unwrap_err();
        assert_eq!(error.status(), 400, "{}", error.message());
    }

    #[test]
    fn a_request_that_one_account_refuses_takes_nothing_of_another() {
        let (tenant, key) =
            (Account::new("tenant", &rates(10, 500, 1)), Account::new("key", &rates(1, 100, 5)));
        let now = Instant::now();
        drop(enter(vec![Arc::clone(&tenant), Arc::clone(&key)], now).unwrap());
        let error = enter(vec![Arc::clone(&tenant), Arc::clone(&key)], now).unwrap_err();
        assert_eq!((error.status(), error.retry_after()), (429, Some(60)));
        assert_eq!(tenant.left(now).0.unwrap().remaining, 9);
        let running = enter(vec![Arc::clone(&tenant)], now).unwrap();
        assert!(enter(vec![Arc::clone(&tenant)], now).unwrap_err().message().contains("at once"));
        drop(running);
        assert!(enter(vec![tenant], now).is_ok());
    }
}
