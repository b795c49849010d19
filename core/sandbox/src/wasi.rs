//! WASI, for programs that were made with a WASI toolchain: as little of it as the tenant was granted.
//!
//! There are no files, no environment and no sockets. Clocks stand still, timers tell no time ([`timers`](crate::timers)) and
//! random numbers repeat unless they were granted. The end of what a program writes to its standard error is kept, for the message
//! it may end with; what it writes to its standard output goes nowhere.

use std::any::Any;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

use crate::budget::Charge;
use crate::grants::{Grants, Random};
use crate::http::Http;
use crate::state::{Context, State};
use crate::timers::Timers;
use crate::written::Written;

/// Bytes of WASI's own state: what is granted, random numbers, clocks, and the end of what was written. Measured by what a process grew
/// by for 1,000 programs with it, beside what those without took (`ledger` of the tests).
const CONTEXT: usize = 5 << 10;

/// Bytes of one of its handles, beside what it keeps outside of itself: an entry of a table, and an allocation.
const HANDLE: usize = 160;

/// How many handles a call looks at on average to count them. One of plain WASI adds a handle or two, which are small; one of
/// `wasi:http` may add as much text as the guest has.
const LOOKS: usize = 16;
pub(crate) const HTTP_LOOKS: usize = 1024;

/// When handles are counted again: all of them, so not in each call where there are many.
#[derive(Default)]
struct Recount {
    /// Handles that there were when they were last counted.
    handles: usize,
    /// What calls since then may have looked at.
    looks: usize,
}

impl Recount {
    /// A call that may look at so many: whether it is this one's turn to count.
    fn due(&mut self, looks: usize) -> bool {
        self.looks += looks;
        self.looks >= self.handles
    }

    fn counted(&mut self, handles: usize) {
        *self = Self { handles, looks: 0 };
    }
}

/// An instance's WASI.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    stderr: Written,
    timers: Timers,
    pub(crate) http: Http,
    pub(crate) http_ctx: WasiHttpCtx,
    /// For this and for all handles.
    charge: Option<Charge>,
    recount: Recount,
}

impl Wasi {
    pub(crate) fn new(context: &Context) -> Self {
        let grants: &Grants = &context.grants;
        let stderr = Written::default();
        let mut builder = WasiCtxBuilder::new();
        builder.stderr(stderr.clone()).stdout(Written::default());
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        builder.allow_blocking_current_thread(false);
        if !grants.clock {
            builder.wall_clock(Still).monotonic_clock(Still);
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
            http: Http::new(&grants.http, &context.programs.connections, context.tenant.memory()),
            http_ctx: WasiHttpCtx::new(),
            charge: None,
            recount: Recount::default(),
        }
    }

    /// The end of what was written to the standard error.
    pub(crate) fn complaint(&self) -> Option<String> {
        let text = self.stderr.end();
        (!text.trim().is_empty()).then(|| text.trim().to_owned())
    }
}

fn seeded(builder: &mut WasiCtxBuilder, seed: u64) {
    use rand::SeedableRng;
    builder.secure_random(rand::rngs::StdRng::seed_from_u64(seed));
    builder.insecure_random(rand::rngs::StdRng::seed_from_u64(seed ^ 1));
    builder.insecure_random_seed(u128::from(seed));
}

/// A clock that stands still.
struct Still;

impl HostWallClock for Still {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Still {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

impl State {
    /// The program's own time, where it was granted no clock.
    pub(crate) fn timers(&mut self) -> Timers {
        self.wasi().0.timers.clone()
    }
}

impl State {
    /// Charges for all handles that there are, before a call, so that a program pays for no more than [`LOOKS`] or [`HTTP_LOOKS`] of
    /// them in each call. What calls add is therefore there before it is paid for: as many handles as a sixteenth of those that there
    /// were, or what a call of `wasi:http` brings in from the guest's own memory where these are no more than a thousand. A run that
    /// can't pay ends at the clock's next tick.
    pub(crate) fn count_wasi(&mut self, looks: usize) {
        if !self.wasi().0.recount.due(looks) {
            return;
        }
        let mut handles = 0;
        let bytes_of = |value: &mut (dyn Any + Send)| {
            handles += 1;
            HANDLE + crate::http::memory_of(&*value)
        };
        let bytes = CONTEXT + self.table.iter_mut().map(bytes_of).sum::<usize>();
        let budget = std::sync::Arc::clone(&self.context.budget);
        let (wasi, _) = self.wasi();
        wasi.recount.counted(handles);
        // What is gone makes room for what has come.
        let paid = match &mut wasi.charge {
            Some(charge) => charge.set(bytes),
            None => budget.charge(bytes).map(|charge| wasi.charge = Some(charge)),
        };
        if let Err(error) = paid {
            budget.end(error);
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.count_wasi(LOOKS);
        let (wasi, table) = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table }
    }
}

/// Adds what there is of WASI.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls each of which adds a handle: how many handles they look at in all, and how many were not counted at most.
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
        // As many as a program may have by default are counted in each call that may bring in more than handles.
        assert_eq!(calls(1024, HTTP_LOOKS), (1023 * 1024 / 2, 1));
    }
}
