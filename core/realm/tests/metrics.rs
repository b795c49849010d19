//! Metrics as a monitoring system reads them.

use std::collections::{BTreeMap, HashSet};

use realm::{Limits, Realm, Request};

/// Series by name and labels, as the text format has them.
type Series = BTreeMap<String, f64>;

/// Reads the text as a strict scraper does: every series belongs to the family named just before it and
/// occurs once, labels are quoted, histograms rise, and the end is marked.
fn parse(text: &str) -> Series {
    let mut series = Series::new();
    let mut families = HashSet::new();
    let (mut family, mut kind) = ("", "");
    let body = text.strip_suffix("# EOF\n").expect("the end");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split_once(' ').unwrap().0;
            assert!(family.starts_with("realm_") && families.insert(family), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest.split_once(' ').unwrap().0, family);
            kind = rest.split_once(' ').unwrap().1;
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (base, labels) = name.split_once('{').unwrap();
        let suffix = base.strip_prefix(family).unwrap_or_else(|| panic!("{line} after {family}"));
        let allowed: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_sum", "_count", "_bucket"],
            other => panic!("{other}"),
        };
        assert!(allowed.contains(&suffix), "{line} is no {kind}");
        check_labels(labels.strip_suffix('}').unwrap());
        let value: f64 = value.parse().unwrap();
        assert!(value >= 0.0 && series.insert(name.to_owned(), value).is_none(), "{line}");
    }
    for (name, count) in series.iter().filter(|(name, _)| name.contains("_count{")) {
        let labels = name.split_once('{').unwrap().1;
        let bucket = name.replace("_count{", "_bucket{le=\"+Inf\",");
        assert_eq!(series.get(&bucket), Some(count), "{bucket} {labels}");
    }
    series
}

/// `name="value",…` with backslashes before quotes, backslashes and line ends.
fn check_labels(labels: &str) {
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{labels}");
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = &value[end.expect("a closing quote") + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[test]
fn prometheus_reads_every_model_and_every_tenant_while_it_is_there() {
    let realm = Realm::builder().threads(2).build().unwrap();
    // The application's own memory has a series even without a model.
    let of_models = || {
        parse(&realm.prometheus()).into_keys().filter(|name| !name.starts_with("realm_tenant_memory_bytes"))
    };
    assert_eq!(of_models().count(), 0);
    let model = realm.load_model("smollm2-135m").unwrap();
    // A name that would forge a series if it were not escaped.
    let name = "a\"} 1\nrealm_forged{x=\"";
    let tenant = realm.tenant(name, Limits::default()).unwrap();
    let seen = tenant.model(&model).unwrap();
    let done =
        seen.generate(Request::text("The capital of France is").temperature(0.0).max_tokens(4)).unwrap();

    let series = parse(&realm.prometheus());
    let labels = "model=\"smollm2-135m\"";
    let label = "tenant=\"a\\\"} 1\\nrealm_forged{x=\\\"\"";
    let generated = done.usage.generated_tokens as f64;
    assert_eq!(series[&format!("realm_tokens_total{{{labels},kind=\"generated\"}}")], generated);
    assert_eq!(
        series[&format!("realm_tenant_tokens_total{{{labels},{label},kind=\"generated\"}}")],
        generated
    );
    assert_eq!(series[&format!("realm_tenant_requests_total{{{labels},{label},outcome=\"finished\"}}")], 1.0);
    assert_eq!(series[&format!("realm_time_to_first_token_seconds_count{{{labels}}}")], 1.0);
    assert!(series[&format!("realm_kv_pages{{{labels},state=\"free\"}}")] > 0.0);
    assert!(series[&format!("realm_step_seconds_sum{{{labels}}}")] > 0.0);
    assert_eq!(tenant.metrics().tokens.generated as f64, generated);
    assert_eq!(model.metrics().served.tokens.generated as f64, generated);

    // Two tenants of the same name have one series together.
    let twin = realm.tenant(name, Limits::default()).unwrap();
    twin.model(&model).unwrap().generate(Request::text("1 + 1 =").max_tokens(2)).unwrap();
    let both = parse(&realm.prometheus());
    assert!(both[&format!("realm_tenant_tokens_total{{{labels},{label},kind=\"generated\"}}")] > generated);
    assert!(twin.metrics().tokens.generated <= 2);

    drop((tenant, twin, seen));
    let start = std::time::Instant::now();
    let gone = loop {
        let series = parse(&realm.prometheus());
        if !series.keys().any(|name| name.contains("forged")) {
            break series;
        }
        assert!(start.elapsed().as_secs() < 60);
    };
    assert!(gone[&format!("realm_tokens_total{{{labels},kind=\"generated\"}}")] > generated);
    drop(model);
    assert_eq!(of_models().count(), 0);
}
