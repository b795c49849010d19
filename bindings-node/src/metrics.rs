//! Metrics as JSON.

use serde_json::{Value, json};

fn histogram(histogram: &realm::Histogram) -> Value {
    // JSON has no infinity: the last bound is `null`, which `ts/` converts to Infinity.
    json!({"buckets": histogram.buckets, "sum": histogram.sum, "count": histogram.count()})
}

/// Returns the counters and gauges of one tenant, or of all.
pub(crate) fn served(served: &realm::Served) -> Value {
    let (tokens, requests) = (&served.tokens, &served.requests);
    json!({
        "tokens": {
            "prompt": tokens.prompt, "cached": tokens.cached, "generated": tokens.generated,
            "recomputed": tokens.recomputed, "drafted": tokens.drafted, "accepted": tokens.accepted,
        },
        "requests": {
            "finished": requests.finished, "cancelled": requests.cancelled, "timedOut": requests.timed_out,
            "refused": requests.refused, "failed": requests.failed,
        },
        "preemptions": served.preemptions,
        "queueSeconds": histogram(&served.queue_seconds),
        "firstTokenSeconds": histogram(&served.first_token_seconds),
        "interTokenSeconds": histogram(&served.inter_token_seconds),
        "running": served.running, "waiting": served.waiting, "kvPages": served.kv_pages,
    })
}

/// Returns the bytes of memory that a tenant holds, by kind.
pub(crate) fn memory(memory: &realm::MemoryUse) -> Value {
    let kinds = memory.iter().map(|(kind, bytes)| (kind.as_str().to_owned(), Value::from(bytes)));
    Value::Object(kinds.chain([("total".to_owned(), memory.total().into())]).collect())
}

/// Returns the counters and gauges of a model.
pub(crate) fn metrics(metrics: &realm::Metrics) -> Value {
    let kv = &metrics.kv;
    let tenants = metrics.tenants.iter();
    let tenants = tenants.map(|tenant| json!({"name": tenant.name, "served": served(&tenant.served)}));
    json!({
        "served": served(&metrics.served),
        "batchRows": histogram(&metrics.batch_rows),
        "batchSequences": histogram(&metrics.batch_sequences),
        "stepSeconds": histogram(&metrics.step_seconds),
        "forwardSeconds": metrics.forward_seconds,
        "kv": {
            "total": kv.total, "used": kv.used, "remembered": kv.remembered, "free": kv.free,
            "pageBytes": kv.page_bytes,
        },
        "tenants": tenants.collect::<Value>(),
    })
}
