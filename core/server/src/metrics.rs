//! Counters of HTTP, beside those of the library.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The content type of the metrics.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of times, in seconds: requests take a millisecond or minutes.
const SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

pub(crate) struct HttpMetrics {
    registry: Registry,
    requests: Family<Ended, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    /// Requests whose answers have not ended.
    pub(crate) active: Gauge,
    pub(crate) connections: Gauge,
}

impl HttpMetrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("realm_http");
        let requests = Family::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let (active, connections) = (Gauge::default(), Gauge::default());
        registry.register("requests", "Answered requests by route and status", requests.clone());
        registry.register(
            "request_seconds",
            "Seconds from a request to the end of its answer",
            seconds.clone(),
        );
        registry.register("active_requests", "Requests whose answers have not ended", active.clone());
        registry.register("connections", "Open connections", connections.clone());
        Self { registry, requests, seconds, active, connections }
    }

    pub(crate) fn ended(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&Ended { route, status }).inc();
        self.seconds.get_or_create(&Route { route }).observe(took.as_secs_f64());
    }

    /// Returns the library's metrics and these.
    pub(crate) fn text(&self, realm: &realm::Realm) -> String {
        let mut text = realm.prometheus();
        // A text of OpenMetrics has one end.
        if let Some(body) = text.strip_suffix("# EOF\n") {
            text.truncate(body.len());
        }
        // Writing to a string never fails.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
