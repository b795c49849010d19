//! The operations of scenarios, on the Rust API: each one converts its arguments, makes the call, and
//! converts the result.

use std::collections::HashMap;
use std::time::Duration;

use realm::{
    Adapter, Chunk, Completion, EmbedOptions, Error, Forwarded, Generation, Limits, LoadOptions, Model,
    Output, Pooling, Realm, Sequence, Served, Tenant, Token, Tokenizer, hub,
};
use serde_json::{Value, json};

use crate::folder;
use crate::request::{ids, request};

pub(crate) enum Object {
    Realm(Realm),
    Model(Model),
    Tokenizer(Box<Tokenizer>),
    Generation(Option<Box<Generation>>),
    Tenant(Tenant),
    #[cfg(feature = "sandbox")]
    Program(realm::Program),
    Sequence(Box<Sequence>),
    Adapter(Adapter),
    Chat(realm::ChatSession),
    Bytes(Vec<u8>),
    #[cfg(feature = "sandbox")]
    Log(crate::programs::Lines),
}

/// The objects and results of a scenario. `realm` and `model` outlive it.
pub(crate) struct Runner {
    pub(crate) objects: HashMap<String, Object>,
    values: HashMap<String, Value>,
    load: Box<Load>,
}

/// Loads a model of a realm.
pub(crate) type Load = dyn Fn(&Realm, &str, &LoadOptions, &mut Progress) -> Result<Model, Error>;

/// Borrows an object of a kind.
macro_rules! get {
    ($runner:expr, $kind:ident, $name:expr) => {{
        let name: &str = $name;
        match $runner.objects.get_mut(name) {
            Some(Object::$kind(object)) => object,
            _ => panic!("there is no {} `{name}`", stringify!($kind)),
        }
    }};
}

#[cfg(feature = "sandbox")]
pub(crate) use get;

impl Runner {
    /// Starts with a realm and its model; `load` loads further ones.
    pub(crate) fn new(realm: Realm, model: Model, load: Box<Load>) -> Self {
        let objects = [("realm".into(), Object::Realm(realm)), ("model".into(), Object::Model(model))];
        Self { objects: objects.into(), values: HashMap::new(), load }
    }

    /// Drops the objects and results of the last scenario.
    pub(crate) fn begin(&mut self) {
        self.objects.retain(|name, _| name == "realm" || name == "model");
        self.values.clear();
    }

    pub(crate) fn values(&self) -> &HashMap<String, Value> {
        &self.values
    }

    pub(crate) fn keep(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    pub(crate) fn model(&mut self, a: &Value) -> &mut Model {
        get!(self, Model, a["model"].as_str().unwrap_or("model"))
    }

    pub(crate) fn realm(&mut self) -> Realm {
        self.realm_of(&Value::Null)
    }

    fn realm_of(&mut self, a: &Value) -> Realm {
        get!(self, Realm, a["realm"].as_str().unwrap_or("realm")).clone()
    }

    pub(crate) fn add(&mut self, a: &Value, object: Object) {
        self.objects.insert(a["as"].as_str().unwrap_or("unnamed").to_owned(), object);
    }

    fn request(&mut self, a: &Value) -> Result<realm::Request, Error> {
        let objects = &self.objects;
        request(&a["request"], |name| match objects.get(name) {
            Some(Object::Adapter(adapter)) => Ok(adapter.clone()),
            _ => panic!("there is no adapter `{name}`"),
        })
    }

    pub(crate) fn operate(&mut self, a: &Value) -> Result<Value, Error> {
        let text = |key: &str| a[key].as_str().unwrap_or_else(|| panic!("`{key}` in {a}")).to_owned();
        let path = |key: &str| match &a[key] {
            Value::String(name) => folder().join(name),
            _ => panic!("`{key}` in {a}"),
        };
        Ok(match a["op"].as_str().expect("an operation") {
            // The runtime and models.
            "realm" => {
                let mut builder = Realm::builder();
                if let Some(threads) = a["threads"].as_u64() {
                    builder = builder.threads(threads as usize);
                }
                if let Some(device) = a["device"].as_str() {
                    builder = builder.device(device);
                }
                if let Some(key) = a["snapshot_key"].as_str() {
                    builder = builder.snapshot_key(key);
                }
                let realm = builder.build()?;
                self.add(a, Object::Realm(realm));
                Value::Null
            }
            "pull" => json!(self.realm().hub().pull(&hub::Reference::parse(&text("reference"))?, &mut ())?),
            "models" => {
                let listed = self.realm().hub().list()?;
                let row = |status: &hub::Status| {
                    json!({"reference": status.reference.to_string(), "state": match status.state {
                        hub::State::Absent => "absent",
                        hub::State::Partial(_) => "partial",
                        hub::State::Present(_) => "present",
                    }})
                };
                listed.iter().map(row).collect()
            }
            "inspect" => {
                let info = realm::inspect(&path("path"))?;
                json!({"name": info.name, "architecture": info.architecture, "parameters": info.parameters,
                    "layers": info.layers, "vocabulary": info.vocabulary,
                    "trained_context_length": info.trained_context_length, "chat_template": info.chat_template,
                    "tensor_types": info.tensor_types.iter()
                        .map(|(name, count, bytes)| json!({"name": name, "count": count, "bytes": bytes}))
                        .collect::<Vec<_>>()})
            }
            "load_model" => {
                let o = &a["options"];
                let options = LoadOptions {
                    // generated by ci/api: load options
                    kv_tokens: o["kv_tokens"].as_u64().map(|n| n as usize),
                    context_length: o["context_length"].as_u64().map(|n| n as usize),
                    kv_memory: o["kv_memory"].as_u64(),
                    cache_type: o["cache_type"].as_str().map(|name| name.parse().unwrap()),
                    chat_template: o["chat_template"].as_str().map(str::to_owned),
                    speculation: o["speculation"]
                        .as_str()
                        .map(|name| name.parse().unwrap())
                        .unwrap_or_default(),
                    draft_model: o["draft_model"].as_str().map(str::to_owned),
                    max_queued: o["max_queued"].as_u64().map(|n| n as usize),
                    gpu_layers: o["gpu_layers"].as_u64().map(|n| n as usize),
                    experts_on_cpu: o["experts_on_cpu"].as_bool(),
                    // end of load options
                };
                let mut progress = Progress::default();
                // A file of the scenarios, or a model's name.
                let reference = text("reference");
                let file = folder().join(&reference);
                let reference = if file.exists() { file.display().to_string() } else { reference };
                let realm = self.realm_of(a);
                let model = (self.load)(&realm, &reference, &options, &mut progress)?;
                self.add(a, Object::Model(model));
                json!({"done": progress.0, "total": progress.1})
            }
            "info" => {
                let model = self.model(a);
                let info = model.info();
                json!({"reference": model.reference(), "name": info.name, "architecture": info.architecture,
                    "parameters": info.parameters, "file_bytes": info.file_bytes, "vocabulary": info.vocabulary,
                    "layers": info.layers, "context_length": info.context_length,
                    "trained_context_length": info.trained_context_length, "hidden": info.hidden,
                    "pooling": info.pooling.as_str(),
                    "chat_template": info.chat_template, "device": info.device})
            }
            // Texts and tokens.
            "tokenizer" => {
                let tokenizer = self.realm().load_tokenizer(&text("reference"))?;
                let said = json!({"vocabulary": tokenizer.vocabulary_len(), "bos": tokenizer.bos(),
                    "eos": tokenizer.eos(), "adds_bos": tokenizer.adds_bos(),
                    "end_tokens": tokenizer.end_tokens()});
                self.add(a, Object::Tokenizer(Box::new(tokenizer)));
                said
            }
            "encode" => {
                let (special, boundaries) = (a["special"] == true, a["boundaries"] != false);
                let text = text("text");
                json!(match a["tokenizer"].as_str() {
                    Some(name) => get!(self, Tokenizer, name).encode(&text, special, boundaries),
                    None if special || !boundaries =>
                        self.model(a).encode_special(&text, special, boundaries),
                    None => self.model(a).encode(&text),
                })
            }
            "decode" => json!(self.model(a).decode(&ids(&a["tokens"]))?),
            "token_id" => json!(self.model(a).tokenizer().token_id(&text("text"))),
            "render" => {
                let request = self.request(a)?;
                json!(self.model(a).render(&request)?)
            }
            "render_tokens" => {
                let request = self.request(a)?;
                json!(self.model(a).render_tokens(&request)?)
            }
            // Generations.
            "generate" => {
                let request = self.request(a)?;
                completion(self.model(a).generate(request)?)
            }
            "stream" => {
                let request = self.request(a)?;
                let generation = self.model(a).stream(request)?;
                self.add(a, Object::Generation(Some(Box::new(generation))));
                Value::Null
            }
            "next" => {
                let generation = get!(self, Generation, &text("generation"));
                match generation.as_mut().expect("an open generation").next_blocking() {
                    Some(chunk) => chunk_json(&chunk?),
                    None => Value::Null,
                }
            }
            "collect" => {
                let generation =
                    get!(self, Generation, &text("generation")).take().expect("an open generation");
                let chunks: Vec<Chunk> = generation.into_iter().collect::<Result<_, _>>()?;
                json!({"text": chunks.iter().map(|chunk| chunk.text.as_str()).collect::<String>(),
                    "chunks": chunks.iter().map(chunk_json).collect::<Vec<_>>(), "count": chunks.len()})
            }
            "finish" => {
                let generation =
                    get!(self, Generation, &text("generation")).take().expect("an open generation");
                completion(generation.finish()?)
            }
            "cancel" => {
                get!(self, Generation, &text("generation")).as_mut().expect("an open generation").cancel();
                Value::Null
            }
            "close" => {
                self.objects.remove(&text("object")).expect("an object");
                Value::Null
            }
            // Scores and vectors.
            "score" => {
                let top = a["top"].as_u64().unwrap_or(0) as usize;
                let scored = self.model(a).score(&ids(&a["tokens"]), top)?;
                scored.iter().map(|s| json!({"next": s.next, "top": likeliest(&s.top)})).collect()
            }
            "log_likelihood" => {
                json!(self.model(a).log_likelihood(&ids(&a["prompt"]), &ids(&a["continuation"]))?)
            }
            "embed" => json!(match a["text"].as_str() {
                Some(text) => self.model(a).embed(text)?,
                None => {
                    let pooling = a["pooling"].as_str().map(str::parse::<Pooling>).transpose()?;
                    let options = EmbedOptions { pooling, normalize: a["normalize"] != false };
                    self.model(a).embed_with(&ids(&a["tokens"]), &options)?
                }
            }),
            // Sequences.
            "sequence" => {
                let sequence = self.model(a).sequence()?;
                self.add(a, Object::Sequence(Box::new(sequence)));
                Value::Null
            }
            "append" => {
                get!(self, Sequence, &text("sequence")).append(&ids(&a["tokens"]))?;
                Value::Null
            }
            "forward" => {
                let output = match a["output"].as_str().unwrap_or("last_logits") {
                    "nothing" => Output::Nothing,
                    "last_logits" => Output::LastLogits,
                    "logits" => Output::Logits,
                    "hidden" => Output::Hidden,
                    other => panic!("there is no output `{other}`"),
                };
                forwarded(&get!(self, Sequence, &text("sequence")).forward(output)?)
            }
            "sequence_state" => {
                let sequence = get!(self, Sequence, &text("sequence"));
                json!({"tokens": sequence.tokens(), "len": sequence.len(), "context_length": sequence.context_length()})
            }
            "fork" => {
                let fork = get!(self, Sequence, &text("sequence")).fork()?;
                self.add(a, Object::Sequence(Box::new(fork)));
                Value::Null
            }
            "truncate" => {
                get!(self, Sequence, &text("sequence"))
                    .truncate(a["len"].as_u64().expect("`len`") as usize)?;
                Value::Null
            }
            "save" => {
                let bytes = get!(self, Sequence, &text("sequence")).save()?;
                let length = bytes.len();
                self.add(a, Object::Bytes(bytes));
                json!(length)
            }
            "restore" => {
                let bytes = match a["bytes"].as_str() {
                    Some(name) => get!(self, Bytes, name).clone(),
                    None => text("junk").into_bytes(),
                };
                let sequence = match a["foreign"].as_bool() {
                    Some(true) => self.model(a).restore_foreign_sequence(&bytes)?,
                    _ => self.model(a).restore_sequence(&bytes)?,
                };
                self.add(a, Object::Sequence(Box::new(sequence)));
                Value::Null
            }
            // Adapters.
            "load_adapter" => {
                let model = self.model(a).clone();
                // A server has it by its name.
                let adapter = match model.is_remote() {
                    true => model.load_adapter(text("path"))?,
                    false => model.load_adapter(path("path"))?,
                };
                let said = json!({"rank": adapter.rank(), "bytes": adapter.bytes(), "name": adapter.name()});
                self.add(a, Object::Adapter(adapter));
                said
            }
            "adapted" => {
                let adapter = get!(self, Adapter, &text("adapter")).clone();
                let model = self.model(a).adapted(&adapter, a["scale"].as_f64().unwrap_or(1.0) as f32);
                self.add(a, Object::Model(model));
                Value::Null
            }
            // Tenants.
            "tenant" => {
                let tenant = self.realm().tenant(&text("name"), limits(&a["limits"]))?;
                self.add(a, Object::Tenant(tenant));
                Value::Null
            }
            "tenant_model" => {
                let model = self.model(a).clone();
                let seen = get!(self, Tenant, &text("tenant")).model(&model)?;
                self.add(a, Object::Model(seen));
                Value::Null
            }
            "set_limits" => {
                get!(self, Tenant, &text("tenant")).set_limits(limits(&a["limits"]))?;
                Value::Null
            }
            "tenant_state" => {
                let tenant = get!(self, Tenant, &text("tenant"));
                #[cfg(feature = "sandbox")]
                let has_program = tenant.program().is_some();
                #[cfg(not(feature = "sandbox"))]
                let has_program = false;
                json!({"name": tenant.name(), "running": tenant.running(), "waiting": tenant.waiting(),
                    "has_program": has_program, "limits": limits_json(&tenant.limits())})
            }
            "tenant_metrics" => served(&get!(self, Tenant, &text("tenant")).metrics()),
            // Numbers.
            "metrics" => {
                let metrics = self.model(a).metrics();
                let kv = metrics.kv;
                json!({"served": served(&metrics.served), "steps": metrics.step_seconds.count(),
                    "kv": {
                        // generated by ci/api: pages
                        "total": kv.total,
                        "used": kv.used,
                        "remembered": kv.remembered,
                        "free": kv.free,
                        "page_bytes": kv.page_bytes,
                        // end of pages
                    },
                    "tenants": metrics.tenants.iter()
                        .map(|tenant| json!({"name": tenant.name, "served": served(&tenant.served)}))
                        .collect::<Vec<_>>()})
            }
            "prometheus" => json!(self.realm().prometheus()),
            #[cfg(feature = "sandbox")]
            "load_program" | "compile_program" | "set_program" | "add_program" | "remove_program"
            | "set_grants" | "log_lines" => return self.operate_programs(a),
            _ => return self.operate_more(a),
        })
    }
}

/// The last progress report of a load.
#[derive(Default)]
pub(crate) struct Progress(u64, u64);

impl hub::Progress for Progress {}

impl realm::Progress for Progress {
    fn loading(&mut self, done: u64, total: u64) {
        *self = Self(done, total);
    }
}

pub(crate) fn likeliest(top: &[realm::TokenLogprob]) -> Value {
    top.iter().map(|t| json!({"id": t.id, "logprob": t.logprob})).collect()
}

fn tokens_json(tokens: &[Token]) -> Value {
    tokens.iter().map(|t| json!({"id": t.id, "logprob": t.logprob, "top": likeliest(&t.top)})).collect()
}

fn usage(usage: &realm::Usage) -> Value {
    json!({"prompt_tokens": usage.prompt_tokens, "cached_tokens": usage.cached_tokens,
        "generated_tokens": usage.generated_tokens, "reasoning_tokens": usage.reasoning_tokens, "draft_tokens": usage.draft_tokens,
        "accepted_tokens": usage.accepted_tokens})
}

pub(crate) fn completion(completion: Completion) -> Value {
    let seconds = completion.timings.decode.as_secs_f64();
    json!({"text": completion.text, "reasoning": completion.reasoning, "warnings": completion.warnings, "ids": completion.tokens.iter().map(|t| t.id).collect::<Vec<_>>(),
        "tokens": tokens_json(&completion.tokens), "tool_calls": calls(&completion.tool_calls), "finish_reason": completion.finish_reason.as_str(),
        "usage": usage(&completion.usage), "decode_seconds": seconds})
}

fn chunk_json(chunk: &Chunk) -> Value {
    let finish = chunk
        .finish
        .as_ref()
        .map(|finish| json!({"reason": finish.reason.as_str(), "usage": usage(&finish.usage)}));
    json!({"text": chunk.text, "reasoning": chunk.reasoning, "warnings": chunk.warnings, "tokens": tokens_json(&chunk.tokens), "tool_calls": calls(&chunk.tool_calls),
        "finish": finish})
}

fn calls(calls: &[realm::ToolCall]) -> Vec<Value> {
    let call = |c: &realm::ToolCall| json!({"id": c.id, "name": c.name, "arguments": c.arguments});
    calls.iter().map(call).collect()
}

fn forwarded(forwarded: &Forwarded) -> Value {
    let argmax = |row: &[f32]| (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let rows: Vec<_> = forwarded.rows().map(argmax).collect();
    json!({"rows": rows.len(), "width": forwarded.width, "cached": forwarded.cached, "argmax": rows,
        "values": forwarded.values})
}

fn served(served: &Served) -> Value {
    json!({
        // generated by ci/api: counters
        "prompt_tokens": served.tokens.prompt,
        "cached_tokens": served.tokens.cached,
        "generated_tokens": served.tokens.generated,
        "recomputed_tokens": served.tokens.recomputed,
        "draft_tokens": served.tokens.drafted,
        "accepted_tokens": served.tokens.accepted,
        "finished": served.requests.finished,
        "cancelled": served.requests.cancelled,
        "timed_out": served.requests.timed_out,
        "refused": served.requests.refused,
        "failed": served.requests.failed,
        // end of counters
        "preemptions": served.preemptions, "running": served.running, "waiting": served.waiting,
        "kv_pages": served.kv_pages, "first_tokens": served.first_token_seconds.count()})
}

fn limits(asked: &Value) -> Limits {
    let mut limits = Limits::default();
    for (key, value) in asked.as_object().into_iter().flatten() {
        let count = || value.as_u64().expect("a count") as usize;
        let names = || serde_json::from_value(value.clone()).expect("names");
        match key.as_str() {
            // generated by ci/api: limits
            "weight" => limits.weight = value.as_f64().expect("a number") as f32,
            "max_concurrent" => limits.max_concurrent = Some(count()),
            "max_queued" => limits.max_queued = count(),
            "kv_tokens" => limits.kv_tokens = Some(count()),
            "tokens_per_minute" => limits.tokens_per_minute = Some(count() as u32),
            "request_timeout_ms" => limits.request_timeout = Some(Duration::from_millis(count() as u64)),
            "memory" => limits.memory = count(),
            "models" => limits.models = Some(names()),
            "adapters" => limits.adapters = Some(names()),
            "program_memory" => limits.program.memory = count(),
            "program_cpu_time_ms" => limits.program.cpu_time = Duration::from_millis(count() as u64),
            "program_handles" => limits.program.handles = count(),
            "program_output" => limits.program.output = count(),
            // end of limits
            other => panic!("there is no limit `{other}`"),
        }
    }
    limits
}

fn limits_json(limits: &Limits) -> Value {
    json!({
        // generated by ci/api: limits as JSON
        "weight": limits.weight,
        "max_concurrent": limits.max_concurrent,
        "max_queued": limits.max_queued,
        "kv_tokens": limits.kv_tokens,
        "tokens_per_minute": limits.tokens_per_minute,
        "request_timeout_ms": limits.request_timeout.map(|time| time.as_millis() as u64),
        "memory": limits.memory,
        "models": limits.models,
        "adapters": limits.adapters,
        "program_memory": limits.program.memory,
        "program_cpu_time_ms": limits.program.cpu_time.as_millis() as u64,
        "program_handles": limits.program.handles,
        "program_output": limits.program.output,
        // end of limits as JSON
    })
}
