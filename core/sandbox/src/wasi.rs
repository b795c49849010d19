//! WASI, for programs that were made with a WASI toolchain, limited to the tenant's grants.
//!
//! There are no files, no environment and no sockets. Without grants, clocks stand still, timers do not
//! measure time ([`timers`](crate::timers)) and random numbers repeat. The end of a program's standard error
//! is kept for the error message if it fails; its standard output is discarded.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder};
use wasmtime_wasi_http::WasiHttpCtx;

use crate::budget::{Budget, Charge};
use crate::context::Context;
use crate::grants::{Grants, Random};
use crate::http::{self, Http};
use crate::stdio::Output;
use crate::timers::Timers;

/// The bytes of WASI's own state: grants, random numbers, clocks, and the end of the standard error. Measured
/// as the difference between 1,000 programs with it and 1,000 without (`ledger` of the tests).
const CONTEXT: usize = 5 << 10;

/// The bytes of one of its handles, besides the memory that it keeps elsewhere: an entry of a table, and an
/// allocation.
const HANDLE: usize = 160;

/// The average number of handles that a call counts. A call of plain WASI adds one or two handles, which are
/// small; one of `wasi:http` may add as much text as the guest's memory holds.
pub(crate) const LOOKS: usize = 16;
pub(crate) const HTTP_LOOKS: usize = 1024;

/// Decides when to count handles again: counting looks at all of them, so not every call does it if there are
/// many.
#[derive(Default)]
struct Recount {
    /// The number of handles at the last count.
    handles: usize,
    /// The number of handles that calls since then might have counted.
    looks: usize,
}

impl Recount {
    /// Records a call that may count `looks` handles; returns whether this call should count them all.
    fn due(&mut self, looks: usize) -> bool {
        self.looks += looks;
        self.looks >= self.handles
    }

    fn counted(&mut self, handles: usize) {
        *self = Self { handles, looks: 0 };
    }
}

/// The WASI state of an instance.
pub(crate) struct Wasi {
    pub(crate) ctx: WasiCtx,
    stderr: Output,
    /// The program's own time, for programs without a granted clock.
    pub(crate) timers: Timers,
    pub(crate) http: Http,
    pub(crate) http_ctx: WasiHttpCtx,
    budget: Arc<Budget>,
    /// The charge for this and for all handles.
    charge: Option<Charge>,
    recount: Recount,
}

impl Wasi {
    pub(crate) fn new(context: &Context) -> Self {
        let grants: &Grants = &context.grants;
        let stderr = Output::default();
        let mut builder = WasiCtxBuilder::new();
        builder.stderr(stderr.clone()).stdout(Output::default());
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        builder.allow_blocking_current_thread(false);
        if !grants.clock {
            builder.wall_clock(StoppedClock).monotonic_clock(StoppedClock);
        }
        match grants.random {
            Some(Random::System) => {}
            Some(Random::Seed(seed)) => seeded(&mut builder, seed),
            None => seeded(&mut builder, 0),
        }
        Self {
            ctx: builder.build(),
            stderr,
            timers: Timers::default(),
            http: Http::new(&grants.http, &context.connections, context.tenant.memory()),
            http_ctx: WasiHttpCtx::new(),
            budget: Arc::clone(&context.budget),
            charge: None,
            recount: Recount::default(),
        }
    }

    /// Returns the end of the standard error.
    pub(crate) fn stderr_end(&self) -> Option<String> {
        let text = self.stderr.end();
        (!text.trim().is_empty()).then(|| text.trim().to_owned())
    }

    /// Charges for all existing handles, before a call. Counting is spread over calls, so that a program pays
    /// for at most [`LOOKS`] or [`HTTP_LOOKS`] of them in each call. So new handles may exist before they are
    /// charged for: at most a sixteenth of the counted ones, or the data that one call of `wasi:http` copies
    /// from the guest's memory if there are at most a thousand handles. A run that cannot pay ends at the
    /// clock's next tick.
    pub(crate) fn charge_handles(&mut self, table: &mut ResourceTable, looks: usize) {
        if !self.recount.due(looks) {
            return;
        }
        let mut handles = 0;
        let bytes_of = |value: &mut (dyn Any + Send)| {
            handles += 1;
            HANDLE + http::memory_of(&*value)
        };
        let bytes = CONTEXT + table.iter_mut().map(bytes_of).sum::<usize>();
        self.recount.counted(handles);
        // Dropped handles make room for new ones.
        let paid = match &mut self.charge {
            Some(charge) => charge.set(bytes),
            None => self.budget.charge(bytes).map(|charge| self.charge = Some(charge)),
        };
        if let Err(error) = paid {
            self.budget.end(error);
        }
    }
}

fn seeded(builder: &mut WasiCtxBuilder, seed: u64) {
    use rand::SeedableRng;
    builder.secure_random(rand::rngs::StdRng::seed_from_u64(seed));
    builder.insecure_random(rand::rngs::StdRng::seed_from_u64(seed ^ 1));
    builder.insecure_random_seed(u128::from(seed));
}

/// A clock that stands still.
struct StoppedClock;

impl HostWallClock for StoppedClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for StoppedClock {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes calls that each add a handle; returns how many handles they count in all, and the most that were
    /// not counted.
    fn calls(calls: usize, looks: usize) -> (usize, usize) {
        let (mut recount, mut looked_at, mut uncounted) = (Recount::default(), 0, 0);
        for handles in 0..calls {
            uncounted = uncounted.max(handles - recount.handles);
            if recount.due(looks) {
                looked_at += handles;
                recount.counted(handles);
            }
        }
        (looked_at, uncounted)
    }

    #[test]
    fn a_program_with_many_handles_does_not_pay_for_all_of_them_in_each_call() {
        for looks in [LOOKS, HTTP_LOOKS] {
            let (looked_at, uncounted) = calls(100_000, looks);
            assert!(looked_at <= 2 * 100_000 * looks, "{looked_at} in calls of {looks}");
            assert!(uncounted <= 100_000 / looks + 1, "{uncounted} in calls of {looks}");
        }
        // With as many handles as a program may have by default, every call that may bring in more than
        // handles counts them all.
        assert_eq!(calls(1024, HTTP_LOOKS), (1023 * 1024 / 2, 1));
    }
}
