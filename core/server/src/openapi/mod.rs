//! `/openapi.json`: the calls of the table of routes, with the fields of `clients.json` and `admin.json`.
//!
//! Those files are short forms. A schema is an object of fields, each with its type and its description; `!`
//! marks a field that is always there. `+` adds the fields of other schemas, `-` leaves some of them out, and
//! `*` allows more fields. Types are those of JSON, `any`, `#Name` for another schema, and `[]` for lists.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::routes::{self, Power};

/// Returns the description of the calls at clients' address.
pub(crate) fn clients() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let calls = routes::clients().iter().map(|(method, path)| Call { method, path, power: None });
        document("Realm", include_str!("clients.json"), calls)
    })
}

/// Returns the description of administration.
pub(crate) fn administration() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let own = ["/health", "/openapi.json"].map(|path| Call { method: "GET", path, power: None });
        let acts = routes::ADMIN.iter().map(|route| Call {
            method: route.method,
            path: route.path,
            power: Some((route.power, route.summary)),
        });
        document("Realm's administration", include_str!("admin.json"), own.into_iter().chain(acts))
    })
}

struct Call<'a> {
    method: &'a str,
    path: &'a str,
    /// The party that may call, and what it does, for administration.
    power: Option<(Power, &'a str)>,
}

fn document<'a>(title: &str, short: &str, calls: impl Iterator<Item = Call<'a>>) -> String {
    // A test reads both files.
    let short: Value = serde_json::from_str(short).unwrap_or_default();
    let mut paths = Map::new();
    for call in calls {
        let details = &short["calls"][format!("{} {}", call.method, call.path)];
        let path = call.path.split('/').map(|word| match word {
            "NAME" | "TENANT" | "ID" => format!("{{{}}}", word.to_lowercase()),
            word => word.to_owned(),
        });
        let path = path.collect::<Vec<_>>().join("/");
        let parameters = parameters(&path);
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        operations[call.method.to_lowercase()] = operation(&call, details, parameters);
    }
    let mut schemas = Map::new();
    for (name, _) in short["schemas"].as_object().into_iter().flatten() {
        schemas.insert(name.clone(), schema(&short["schemas"], name));
    }
    let text = |description: &str| json!({"type": "string", "description": description});
    let error = json!({"type": "object", "properties": {
        "message": text("what was wrong, and what would be right"),
        "type": text("the kind of failure"),
        "param": {"description": "the field at fault, or null"},
        "code": text("the failure's name, which does not change"),
    }, "required": ["message", "type", "param", "code"]});
    schemas.insert(
        "Error".into(),
        json!({"type": "object", "properties": {"error": error}, "required": ["error"]}),
    );
    json!({
        "openapi": "3.1.0",
        "info": {"title": title, "version": env!("CARGO_PKG_VERSION"), "license": {"name": "MIT OR Apache-2.0"}},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "a key of `realm api-key`; none if the server has no keys"}},
        },
    })
    .to_string()
}

/// Returns the parameters in a path.
fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|word| word.strip_prefix('{')?.strip_suffix('}'));
    let parameter =
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    names.map(parameter).collect()
}

fn operation(call: &Call<'_>, details: &Value, parameters: Vec<Value>) -> Value {
    let reference = |name: &Value| {
        let name = name.as_str().unwrap_or("Any");
        json!({"$ref": format!("#/components/schemas/{name}")})
    };
    let media = |kind: &str, schema: Value| json!({kind: {"schema": schema}});
    let mut content = if details["text"] == true {
        media(crate::metrics::CONTENT_TYPE, json!({"type": "string"}))
    } else {
        media("application/json", reference(&details["response"]))
    };
    for (key, kind) in [("events", "text/event-stream"), ("lines", "application/x-ndjson")] {
        if details[key] == true {
            content[kind] = json!({"schema": {"type": "string"}});
        }
    }
    let mut responses = json!({"200": {"description": "the answer", "content": content.clone()}});
    if details["accepted"] == true {
        responses["202"] = json!({"description": "it has begun", "content": content});
    }
    responses["default"] =
        json!({"description": "a failure", "content": media("application/json", reference(&json!("Error")))});
    let mut operation = json!({"responses": responses});
    if let Some((power, summary)) = call.power {
        let scope = match power {
            Power::Everything => "`administration`",
            Power::Tenant => "`administration`, or `tenant-administration` for the key's own tenant",
        };
        operation["summary"] = json!(summary);
        operation["description"] = json!(format!("Needs the scope {scope}."));
        operation["tags"] = json!(["administration"]);
    } else {
        operation["summary"] = details["summary"].clone();
        operation["tags"] = json!([details["tag"]]);
    }
    if call.path == "/health" {
        operation["security"] = json!([]);
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if details["wasm"] == true {
        let bytes = media("application/wasm", json!({"type": "string", "format": "binary"}));
        operation["requestBody"] = json!({"required": true, "content": bytes});
    } else if details["request"].is_string() {
        let body = media("application/json", reference(&details["request"]));
        operation["requestBody"] = json!({"required": true, "content": body});
    }
    operation
}

/// Expands a schema's short form.
fn schema(all: &Value, name: &str) -> Value {
    let Some(short) = all[name].as_object().filter(|short| !short.is_empty()) else { return json!({}) };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    let mut fields: Vec<(&String, &Value)> = Vec::new();
    for other in short.get("+").and_then(Value::as_array).into_iter().flatten() {
        fields.extend(other.as_str().and_then(|other| all[other].as_object()).into_iter().flatten());
    }
    let out: Vec<&str> =
        short.get("-").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    fields.extend(short);
    for (field, value) in fields {
        let plain = field.trim_end_matches('!');
        let (Some(kind), Some(description)) = (value[0].as_str(), value[1].as_str()) else { continue };
        if out.contains(&plain) || ["+", "-"].contains(&plain) {
            continue;
        }
        if field.ends_with('!') {
            required.push(plain);
        }
        let mut of_type = of_type(kind);
        of_type["description"] = json!(description);
        properties.insert(plain.to_owned(), of_type);
    }
    let open = short.contains_key("*");
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": open})
}

fn of_type(kind: &str) -> Value {
    if let Some(item) = kind.strip_suffix("[]") {
        return json!({"type": "array", "items": of_type(item)});
    }
    if let Some(name) = kind.strip_prefix('#') {
        return json!({"$ref": format!("#/components/schemas/{name}")});
    }
    if kind == "any" { json!({}) } else { json!({"type": kind}) }
}
