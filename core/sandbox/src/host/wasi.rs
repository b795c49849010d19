//! WASI and `wasi:http`.

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, subscribe};
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::state::State;
use crate::wasi::{HTTP_LOOKS, LOOKS};

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (wasi, table) = self.wasi();
        wasi.charge_handles(table, LOOKS);
        WasiCtxView { ctx: &mut wasi.ctx, table }
    }
}

/// Adds WASI's functions.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (wasi, table) = self.wasi();
        wasi.charge_handles(table, HTTP_LOOKS);
        WasiHttpCtxView { hooks: &mut wasi.http, ctx: &mut wasi.http_ctx, table }
    }
}

impl monotonic_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.clocks().now()
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.clocks().resolution()
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        if self.context.grants.clock {
            return self.clocks().subscribe_instant(when);
        }
        // The program's clock always returns 0.
        self.subscribe_duration(when)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        if self.context.grants.clock {
            return self.clocks().subscribe_duration(duration);
        }
        let (wasi, table) = self.wasi();
        let timer = table.push(wasi.timers.start(duration))?;
        subscribe(table, timer)
    }
}
