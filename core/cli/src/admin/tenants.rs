//! `realm admin tenants`, `adapters` and `programs`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::client::{Client, escaped, pair};
use super::shown::table;
use crate::output::note;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// The tenants
    List,
    /// The settings of a tenant
    Show {
        /// The tenant
        tenant: String,
    },
    /// Set limits and grants, by the names of the configuration; others stay
    Set {
        /// The tenant
        tenant: String,
        /// Settings, such as limits.weight=3, rates.tokens-per-minute=100000, 'models=["small"]' or
        /// grants.clock=true
        #[arg(value_name = "NAME=VALUE")]
        settings: Vec<String>,
        /// A setting to remove, such as limits.weight; may be given several times
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
    /// Remove a tenant's settings
    Remove {
        /// The tenant
        tenant: String,
    },
}

impl Command {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        let path = |tenant: &str| format!("/admin/tenants/{}", escaped(tenant));
        match self {
            Self::List => {
                let all = client.get("/admin/tenants")?;
                if client.json {
                    return client.show(&all);
                }
                let columns = ["name", "keys", "config.limits.weight", "config.models", "origin"];
                table(&all["tenants"], &columns)
            }
            Self::Show { tenant } => client.show(&client.get(&path(tenant))?),
            Self::Set { tenant, settings, unset } => {
                let mut config = match client.get(&path(tenant)) {
                    Ok(mut found) => found["config"].take(),
                    Err(_) => json!({}),
                };
                for setting in settings {
                    merge(&mut config, parse(setting)?);
                }
                for name in unset {
                    remove(&mut config, name)?;
                }
                client.show(&client.send("PUT", &path(tenant), &config)?)
            }
            Self::Remove { tenant } => {
                client.send("DELETE", &path(tenant), &Value::Null)?;
                note!("the tenant `{tenant}` is removed");
                Ok(())
            }
        }
    }
}

/// Reads a setting as TOML; a value that is none is a text.
fn parse(setting: &str) -> Result<Value> {
    let (name, value) = pair(setting).map_err(anyhow::Error::msg)?;
    let read = |text: &str| toml::from_str::<Value>(text);
    let quoted = || read(&format!("{name} = {}", Value::from(value.as_str())));
    read(setting).or_else(|_| quoted()).with_context(|| format!("`{setting}` is no setting"))
}

fn merge(into: &mut Value, new: Value) {
    match (into, new) {
        (Value::Object(into), Value::Object(new)) => {
            for (key, value) in new {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, new) => *into = new,
    }
}

fn remove(config: &mut Value, name: &str) -> Result<()> {
    let (parents, last) = name.rsplit_once('.').unwrap_or(("", name));
    let mut place = Some(config);
    for key in parents.split('.').filter(|key| !key.is_empty()) {
        place = place.and_then(|value| value.get_mut(key));
    }
    match place.and_then(Value::as_object_mut).and_then(|object: &mut Map<_, _>| object.remove(last)) {
        Some(_) => Ok(()),
        None => bail!("there is no setting `{name}`"),
    }
}

/// The tenant that an adapter or a program belongs to.
#[derive(clap::Args)]
pub(crate) struct Owner {
    /// The tenant
    #[arg(long, default_value = "default")]
    tenant: String,
}

impl Owner {
    fn path(&self, kind: &str, name: Option<&str>) -> String {
        let all = format!("/admin/tenants/{}/{kind}", escaped(&self.tenant));
        name.map_or_else(|| all.clone(), |name| format!("{all}/{}", escaped(name)))
    }
}

#[derive(clap::Subcommand)]
pub(crate) enum Adapters {
    /// A tenant's adapters, and those granted to it
    List {
        #[command(flatten)]
        owner: Owner,
    },
    /// Load an adapter, or replace one of this name
    Load {
        /// The name that requests give, and a path on the server: a GGUF file or PEFT's folder
        #[arg(value_name = "NAME=SOURCE", value_parser = pair)]
        adapter: (String, String),
        /// The model that it adapts
        #[arg(long)]
        model: String,
        #[command(flatten)]
        owner: Owner,
    },
    /// Unload an adapter; requests that run keep it
    Unload {
        /// The name that requests give
        name: String,
        #[command(flatten)]
        owner: Owner,
    },
}

impl Adapters {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        match self {
            Self::List { owner } => {
                let all = client.get(&owner.path("adapters", None))?;
                if client.json {
                    return client.show(&all);
                }
                table(&all["adapters"], &["name", "model", "state", "rank", "bytes", "source", "error"])
            }
            Self::Load { adapter: (name, source), model, owner } => {
                let body = json!({"model": model, "source": source});
                client.send("PUT", &owner.path("adapters", Some(name)), &body)?;
                note!("the adapter `{name}` of `{}` is loaded", owner.tenant);
                Ok(())
            }
            Self::Unload { name, owner } => {
                client.send("DELETE", &owner.path("adapters", Some(name)), &Value::Null)?;
                note!("the adapter `{name}` of `{}` is unloaded", owner.tenant);
                Ok(())
            }
        }
    }
}

#[derive(clap::Subcommand)]
pub(crate) enum Programs {
    /// A tenant's programs with their versions, and those granted to it
    List {
        #[command(flatten)]
        owner: Owner,
    },
    /// Upload a program, or a new version of one; it answers from now on
    Put {
        /// The name that requests give, and a file: a WebAssembly component or module
        #[arg(value_name = "NAME=FILE", value_parser = pair)]
        program: (String, String),
        #[command(flatten)]
        owner: Owner,
    },
    /// Go back to an earlier version
    Rollback {
        /// The name that requests give
        name: String,
        /// The version's number [default: the one before]
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        #[command(flatten)]
        owner: Owner,
    },
    /// Remove a program with all its versions
    Remove {
        /// The name that requests give
        name: String,
        #[command(flatten)]
        owner: Owner,
    },
}

impl Programs {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        match self {
            Self::List { owner } => {
                let all = client.get(&owner.path("programs", None))?;
                if client.json {
                    return client.show(&all);
                }
                let mut rows = all["programs"].clone();
                for row in rows.as_array_mut().into_iter().flatten() {
                    let numbers: Vec<_> = row["versions"].as_array().into_iter().flatten().collect();
                    row["versions"] = numbers.into_iter().map(|version| version["number"].clone()).collect();
                }
                table(&rows, &["name", "state", "version", "versions", "origin", "error"])
            }
            Self::Put { program: (name, file), owner } => {
                let file = PathBuf::from(file);
                let wasm = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let answer = client.call("PUT", &owner.path("programs", Some(name)), &wasm)?;
                note!("version {} of `{name}` of `{}` answers now", answer["version"], owner.tenant);
                Ok(())
            }
            Self::Rollback { name, version, owner } => {
                let path = format!("{}/rollback", owner.path("programs", Some(name)));
                let answer = client.send("POST", &path, &json!({"version": version}))?;
                note!("version {} of `{name}` of `{}` answers now", answer["version"], owner.tenant);
                Ok(())
            }
            Self::Remove { name, owner } => {
                client.send("DELETE", &owner.path("programs", Some(name)), &Value::Null)?;
                note!("the program `{name}` of `{}` is removed", owner.tenant);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_toml_and_merged() {
        let mut config = json!({"limits": {"weight": 1.0, "memory": 5}, "models": ["a"]});
        for setting in ["limits.weight=3", "models=[\"b\"]", "program=router", "grants.clock=true"] {
            merge(&mut config, parse(setting).unwrap());
        }
        remove(&mut config, "limits.memory").unwrap();
        assert!(remove(&mut config, "limits.nothing").is_err());
        let expected =
            json!({"limits": {"weight": 3}, "models": ["b"], "program": "router", "grants": {"clock": true}});
        assert_eq!(config, expected);
        assert!(parse("weight").is_err());
    }
}
