//! The operations of scenarios for tenants' programs.

use std::sync::{Arc, Mutex};

use realm::{Error, Grants, Random, Store};
use serde_json::{Value, json};

use crate::folder;
use crate::operations::{Object, Runner, get};

/// The lines that a log has received.
pub(crate) type Lines = Arc<Mutex<Vec<Value>>>;

impl Runner {
    pub(crate) fn operate_programs(&mut self, a: &Value) -> Result<Value, Error> {
        let text = |key: &str| a[key].as_str().unwrap_or_else(|| panic!("`{key}` in {a}")).to_owned();
        Ok(match a["op"].as_str().expect("an operation") {
            "load_program" | "compile_program" => {
                let file = folder().join(text("file"));
                let bytes = || std::fs::read(&file).unwrap();
                let program = match (a["op"].as_str(), a["tenant"].as_str()) {
                    (Some("load_program"), _) => self.realm().load_program(file)?,
                    (_, Some(tenant)) => get!(self, Tenant, tenant).compile_program(&bytes())?,
                    _ => self.realm().compile_program(&bytes())?,
                };
                let info = program.info();
                let said = json!({"contract": info.contract.as_str(), "imports": info.imports, "exports": info.exports,
                    "bytes": info.bytes});
                self.add(a, Object::Program(program));
                said
            }
            "set_program" => {
                let program = a["program"].as_str().map(|name| get!(self, Program, name).clone());
                get!(self, Tenant, &text("tenant")).set_program(program.as_ref());
                Value::Null
            }
            "add_program" => {
                let program = get!(self, Program, &text("program")).clone();
                get!(self, Tenant, &text("tenant")).add_program(text("name"), &program);
                Value::Null
            }
            "remove_program" => json!(get!(self, Tenant, &text("tenant")).remove_program(&text("name"))),
            "set_grants" => {
                let (grants, lines) = grants(a);
                get!(self, Tenant, &text("tenant")).set_grants(grants);
                self.add(a, Object::Log(lines));
                Value::Null
            }
            "log_lines" => json!(*get!(self, Log, &text("log")).lock().unwrap()),
            other => panic!("there is no operation `{other}` of programs"),
        })
    }
}

/// Returns the grants of a step, and the lines that its log receives.
fn grants(a: &Value) -> (Grants, Lines) {
    let lines = Lines::default();
    let mut grants = Grants::none();
    if a["log"] == true {
        let lines = Arc::clone(&lines);
        grants = grants.log_to(move |tenant, level, message| {
            let line = json!({"tenant": tenant, "level": level.as_str(), "message": message});
            lines.lock().unwrap().push(line);
        });
    }
    if a["clock"] == true {
        grants = grants.clock();
    }
    match &a["random"] {
        Value::Number(seed) => grants = grants.random(Random::Seed(seed.as_u64().unwrap())),
        Value::String(_) => grants = grants.random(Random::System),
        _ => {}
    }
    if let Some(quota) = a["store"].as_u64() {
        grants = grants.store(Store::in_memory(quota as usize));
    }
    for host in a["http"].as_array().into_iter().flatten() {
        grants = grants.http(host.as_str().expect("a host"));
    }
    for (name, tool) in a["tools"].as_object().into_iter().flatten() {
        let tool = tool.clone();
        grants =
            grants.tool(name.as_str(), move |arguments| match (&tool["answer"], tool["error"].as_str()) {
                (_, Some(complaint)) => Err(complaint.to_owned()),
                (Value::Null, None) => Ok(arguments),
                (answer, None) => Ok(answer.to_string()),
            });
    }
    (grants, lines)
}
