//! Gauges of the engine, for readers of metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Scheduler;
use crate::metrics::{Load, Tally};
use crate::task::Task;

/// The interval at which tasks are counted anew. People do not look more often, and counting in every step
/// would cost too much.
const EVERY: Duration = Duration::from_millis(50);

/// The gauges that were last published.
#[derive(Default)]
pub(super) struct Gauges {
    shown: Option<Instant>,
    /// The load of tenants that had any then, by id.
    loads: HashMap<u64, (Option<Arc<Tally>>, Load), FxBuildHasher>,
}

impl Gauges {
    fn of(&mut self, task: &Task) -> &mut Load {
        let entry = self.loads.entry(task.tenant.id());
        &mut entry.or_insert_with(|| (task.meter.tenant().cloned(), Load::default())).1
    }
}

impl Scheduler {
    /// Publishes the gauges. With `rests` there will be no step for a while.
    pub(super) fn show(&mut self, now: Instant, rests: bool) {
        self.ledger.set_pages(self.kv.free(), self.kv.remembered());
        if !rests && self.gauges.shown.is_some_and(|shown| now - shown < EVERY) {
            return;
        }
        self.gauges.shown = Some(now);
        self.gauges.loads.values_mut().for_each(|(_, load)| *load = Load::default());
        for task in &self.running {
            let load = self.gauges.of(task);
            load.running += 1;
            load.kv_pages += task.pages.held();
        }
        for (tenant, rest) in self.resting.tenants() {
            let entry = self.gauges.loads.entry(tenant);
            entry.or_insert_with(|| (rest.tally.clone(), Load::default())).1.kv_pages += rest.pages;
        }
        for queue in self.accounts.iter().map(|account| &account.queue) {
            if let Some(first) = queue.front() {
                self.gauges.of(first).waiting += queue.len();
            }
        }
        let mut all = Load::default();
        self.gauges.loads.retain(|_, (tally, load)| {
            if let Some(tally) = tally {
                tally.set_load(*load);
            }
            all.running += load.running;
            all.waiting += load.waiting;
            all.kv_pages += load.kv_pages;
            *load != Load::default()
        });
        self.ledger.total.set_load(all);
    }
}
