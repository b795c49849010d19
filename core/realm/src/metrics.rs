//! The metrics of loaded models and tenants as text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use realm_engine::{Histogram, MemoryUse, Metrics, Served, TenantMetrics};

use crate::commons::Commons;

/// Returns the metrics of all loaded models and tenants in the text format of OpenMetrics.
pub(crate) fn prometheus(commons: &Arc<Commons>) -> String {
    let mut registry = Registry::with_prefix("realm");
    registry.register_collector(Box::new(Readings(Arc::clone(commons))));
    let mut text = String::new();
    // Writing to a string never fails.
    let _ = encode(&mut text, &registry);
    text
}

/// Reads the counters whenever they are written as text.
#[derive(Debug)]
struct Readings(Arc<Commons>);

impl Readings {
    /// Returns the memory that tenants hold, by their names; at most `Metrics::MAX_TENANTS` of them.
    fn memory(&self) -> BTreeMap<String, MemoryUse> {
        let mut by_name: BTreeMap<String, MemoryUse> = BTreeMap::new();
        for tenant in self.0.tenants.living() {
            let name = tenant.inner.name();
            if by_name.contains_key(name) || by_name.len() < Metrics::MAX_TENANTS {
                by_name.entry(name.to_owned()).or_default().add(&tenant.inner.memory().read());
            }
        }
        by_name
    }
}

impl Collector for Readings {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // A model that was loaded twice is one model in the metrics.
        let mut readings: BTreeMap<String, Metrics> = BTreeMap::new();
        for model in self.0.models.living() {
            readings.entry(model.name.clone()).or_default().add(&model.engine.metrics());
        }
        let mut families = Families { encoder, readings: &readings };
        families.encode()?;
        families.memory(&self.memory())
    }
}

/// Writes family after family, each with the series of all models.
struct Families<'a, 'b> {
    encoder: DescriptorEncoder<'a>,
    readings: &'b BTreeMap<String, Metrics>,
}

/// The name and value of a label.
type Label<'a> = (&'static str, &'a str);

impl Families<'_, '_> {
    fn encode(&mut self) -> fmt::Result {
        self.served()?;
        let (counter, gauge, histogram) = (MetricType::Counter, MetricType::Gauge, MetricType::Histogram);
        self.family("step_seconds", "Seconds of a step of the engine", histogram, |metrics, out| {
            out.histogram(&[], &metrics.step_seconds)
        })?;
        self.family("forward_seconds", "Seconds spent in forward passes", counter, |metrics, out| {
            out.seconds(&[], metrics.forward_seconds)
        })?;
        self.family("batch_rows", "Tokens computed by a forward pass", histogram, |metrics, out| {
            out.histogram(&[], &metrics.batch_rows)
        })?;
        self.family("batch_sequences", "Sequences in a forward pass", histogram, |metrics, out| {
            out.histogram(&[], &metrics.batch_sequences)
        })?;
        self.family("kv_pages", "Pages of the KV cache by state", gauge, |metrics, out| {
            let kv = &metrics.kv;
            for (state, pages) in [("used", kv.used), ("remembered", kv.remembered), ("free", kv.free)] {
                out.gauge(&[("state", state)], pages)?;
            }
            Ok(())
        })?;
        self.family("kv_page_bytes", "Bytes of a page of the KV cache", gauge, |metrics, out| {
            out.gauge(&[], metrics.kv.page_bytes)
        })
    }

    /// Writes the memory that tenants hold. It is over all models, so it has no model label.
    fn memory(&mut self, tenants: &BTreeMap<String, MemoryUse>) -> fmt::Result {
        let help = "Bytes of memory that a tenant causes, by what they are for";
        let mut encoder =
            self.encoder.encode_descriptor("tenant_memory_bytes", help, None, MetricType::Gauge)?;
        for (tenant, memory) in tenants {
            for (kind, bytes) in memory.iter() {
                let labels = [("tenant", tenant.as_str()), ("kind", kind.as_str())];
                encoder.encode_family(&labels)?.encode_gauge(&bytes)?;
            }
        }
        Ok(())
    }

    /// Writes the counters that exist for each tenant too.
    fn served(&mut self) -> fmt::Result {
        let (counter, gauge, histogram) = (MetricType::Counter, MetricType::Gauge, MetricType::Histogram);
        self.both("tokens", "Tokens by kind", counter, |served, labels, out| {
            let tokens = &served.tokens;
            let kinds = [
                ("prompt", tokens.prompt),
                ("cached", tokens.cached),
                ("generated", tokens.generated),
                ("recomputed", tokens.recomputed),
                ("drafted", tokens.drafted),
                ("accepted", tokens.accepted),
            ];
            kinds.iter().try_for_each(|&(kind, n)| out.counter(&[labels, &[("kind", kind)]].concat(), n))
        })?;
        self.both("requests", "Requests that have ended, by outcome", counter, |served, labels, out| {
            let requests = &served.requests;
            let outcomes = [
                ("finished", requests.finished),
                ("cancelled", requests.cancelled),
                ("timed-out", requests.timed_out),
                ("refused", requests.refused),
                ("failed", requests.failed),
            ];
            outcomes
                .iter()
                .try_for_each(|&(what, n)| out.counter(&[labels, &[("outcome", what)]].concat(), n))
        })?;
        let help = "Requests that gave their pages up, to be computed again";
        self.both("preemptions", help, counter, |served, labels, out| {
            out.counter(labels, served.preemptions)
        })?;
        let help = "Seconds that requests waited for a place in the batch";
        self.both("queue_seconds", help, histogram, |served, labels, out| {
            out.histogram(labels, &served.queue_seconds)
        })?;
        let help = "Seconds from a request's arrival to its first token";
        self.both("time_to_first_token_seconds", help, histogram, |served, labels, out| {
            out.histogram(labels, &served.first_token_seconds)
        })?;
        let help = "Seconds between a request's tokens";
        self.both("inter_token_seconds", help, histogram, |served, labels, out| {
            out.histogram(labels, &served.inter_token_seconds)
        })?;
        self.both("running", "Sequences in the batch", gauge, |served, labels, out| {
            out.gauge(labels, served.running)
        })?;
        self.both("waiting", "Requests that wait", gauge, |served, labels, out| {
            out.gauge(labels, served.waiting)
        })?;
        self.both("held_kv_pages", "Pages of the KV cache held by sequences", gauge, |served, labels, out| {
            out.gauge(labels, served.kv_pages)
        })
    }

    /// Writes a family over all tenants, and one for each tenant under the name `tenant_…`.
    fn both(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        each: impl Fn(&Served, &[Label<'_>], &mut Series<'_, '_>) -> fmt::Result,
    ) -> fmt::Result {
        self.family(name, help, kind, |metrics, out| each(&metrics.served, &[], out))?;
        let (name, help) = (format!("tenant_{name}"), format!("{help}, of a tenant"));
        self.family(&name, &help, kind, |metrics, out| {
            metrics
                .tenants
                .iter()
                .try_for_each(|TenantMetrics { name, served }| each(served, &[("tenant", name)], out))
        })
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        each: impl Fn(&Metrics, &mut Series<'_, '_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        self.readings
            .iter()
            .try_for_each(|(model, metrics)| each(metrics, &mut Series { encoder: &mut encoder, model }))
    }
}

/// Writes the series of one model in a family.
struct Series<'a, 'b> {
    encoder: &'a mut MetricEncoder<'b>,
    model: &'a str,
}

impl Series<'_, '_> {
    fn with(
        &mut self,
        labels: &[Label<'_>],
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let labels = [&[("model", self.model)], labels].concat();
        write(self.encoder.encode_family(&labels)?)
    }

    fn counter(&mut self, labels: &[Label<'_>], value: u64) -> fmt::Result {
        self.with(labels, |mut encoder| encoder.encode_counter::<NoLabels, _, u64>(&value, None))
    }

    fn seconds(&mut self, labels: &[Label<'_>], value: f64) -> fmt::Result {
        self.with(labels, |mut encoder| encoder.encode_counter::<NoLabels, _, u64>(&value, None))
    }

    fn gauge(&mut self, labels: &[Label<'_>], value: usize) -> fmt::Result {
        self.with(labels, |mut encoder| encoder.encode_gauge(&value))
    }

    fn histogram(&mut self, labels: &[Label<'_>], value: &Histogram) -> fmt::Result {
        let (sum, count) = (value.sum, value.count());
        self.with(labels, |mut encoder| {
            encoder.encode_histogram::<NoLabels>(sum, count, &value.buckets, None)
        })
    }
}

/// The labels of exemplars. Realm writes no exemplars.
type NoLabels = [(&'static str, &'static str); 0];
