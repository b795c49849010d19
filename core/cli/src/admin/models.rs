//! `realm admin models`.

use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::client::{Client, escaped, pair};
use super::shown::table;
use crate::output::note;

/// The time between two looks at a load.
const LOOK: Duration = Duration::from_millis(200);

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// The models and their further names
    List,
    /// All that is known of a model
    Show {
        /// The name that clients give
        name: String,
    },
    /// Load a model, or replace one of this name; clients can name it when it is loaded
    Load(Load),
    /// Unload a model: new requests find none, and those that run end by themselves
    Unload {
        /// The name that clients give
        name: String,
        /// Return at once, not when the last request has ended
        #[arg(long)]
        no_wait: bool,
    },
    /// Make a further name stand for a model, or for another one
    Alias {
        /// The further name, and the model's
        #[arg(value_name = "ALIAS=MODEL", value_parser = pair)]
        alias: (String, String),
    },
    /// Remove a further name
    Unalias {
        /// The further name
        alias: String,
    },
}

#[derive(clap::Args)]
pub(crate) struct Load {
    /// The name that clients give, and the model: a path on the server, a catalog name, or an hf: reference
    #[arg(value_name = "NAME=SOURCE", value_parser = pair)]
    model: (String, String),
    /// The longest context of one request, in tokens
    #[arg(long, value_name = "TOKENS")]
    context_length: Option<usize>,
    /// Tokens that the KV cache holds
    #[arg(long, value_name = "TOKENS")]
    kv_tokens: Option<usize>,
    /// The name of a builtin chat template in place of the file's own, or its source
    #[arg(long, value_name = "NAME|SOURCE")]
    chat_template: Option<String>,
    /// A smaller model of the same vocabulary that drafts
    #[arg(long, value_name = "MODEL")]
    draft_model: Option<String>,
    /// Layers that the GPU computes
    #[arg(long, value_name = "N")]
    gpu_layers: Option<usize>,
    /// Return at once, not when the model is loaded
    #[arg(long)]
    no_wait: bool,
}

impl Command {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        match self {
            Self::List => list(client),
            Self::Show { name } => client.show(&client.get(&path(name))?),
            Self::Load(load) => load.run(client),
            Self::Unload { name, no_wait } => unload(client, name, *no_wait),
            Self::Alias { alias: (alias, model) } => {
                client.send("PUT", &alias_path(alias), &json!({"model": model}))?;
                note!("`{alias}` stands for `{model}`");
                Ok(())
            }
            Self::Unalias { alias } => {
                client.send("DELETE", &alias_path(alias), &Value::Null)?;
                note!("`{alias}` stands for no model");
                Ok(())
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("/admin/models/{}", escaped(name))
}

fn alias_path(name: &str) -> String {
    format!("/admin/aliases/{}", escaped(name))
}

fn list(client: &Client) -> Result<()> {
    let mut all = client.get("/admin/models")?["models"].take();
    let aliases = client.get("/admin/aliases")?["aliases"].take();
    if client.json {
        return client.show(&json!({"models": all, "aliases": aliases}));
    }
    for alias in aliases.as_array().into_iter().flatten() {
        let source = format!("= {}", alias["model"].as_str().unwrap_or("?"));
        let row = json!({
            "name": alias["name"], "state": "alias", "origin": alias["origin"], "config": {"source": source},
        });
        all.as_array_mut().map(|list| list.push(row)).unwrap_or_default();
    }
    table(&all, &["name", "state", "running", "origin", "config.source", "error"])
}

impl Load {
    fn run(&self, client: &Client) -> Result<()> {
        let (name, source) = &self.model;
        let mut body = Map::from_iter([("source".to_owned(), json!(source))]);
        for (key, value) in [
            ("context-length", json!(self.context_length)),
            ("kv-tokens", json!(self.kv_tokens)),
            ("chat-template", json!(self.chat_template)),
            ("draft-model", json!(self.draft_model)),
            ("gpu-layers", json!(self.gpu_layers)),
        ] {
            if !value.is_null() {
                body.insert(key.to_owned(), value);
            }
        }
        client.send("PUT", &path(name), &body.into())?;
        if self.no_wait {
            note!("`{name}` is being loaded; `realm admin models show {name}` says how far it is");
            return Ok(());
        }
        let bar = ProgressBar::new(0);
        // The template is valid; otherwise the default style is used.
        let style = ProgressStyle::with_template("{msg} [{bar:32}] {bytes}/{total_bytes}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        loop {
            let model = client.get(&path(name))?;
            let load = &model["loading"];
            if load.is_null() {
                bar.finish_and_clear();
                if let Some(why) = model["error"].as_str() {
                    bail!("`{name}` can't be loaded: {why}");
                }
                note!("`{name}` is loaded");
                return Ok(());
            }
            bar.set_message(load["stage"].as_str().unwrap_or_default().to_owned());
            bar.set_length(load["total"].as_u64().unwrap_or(0));
            bar.set_position(load["done"].as_u64().unwrap_or(0));
            std::thread::sleep(LOOK);
        }
    }
}

fn unload(client: &Client, name: &str, no_wait: bool) -> Result<()> {
    let answer = client.send("DELETE", &path(name), &Value::Null)?;
    let mut running = answer["running"].as_u64().unwrap_or(0);
    while running > 0 && !no_wait {
        note!("waiting for {running} requests of `{name}`");
        let before = running;
        while running == before {
            std::thread::sleep(LOOK);
            let models = client.get("/admin/models")?;
            let entry = models["models"].as_array().into_iter().flatten().find(|model| model["name"] == name);
            let left = entry.and_then(|entry| entry["unloading"].as_array());
            running = left.map_or(0, |left| left.iter().filter_map(|one| one["running"].as_u64()).sum());
        }
    }
    note!("`{name}` is unloaded{}", if running > 0 { " when its requests have ended" } else { "" });
    Ok(())
}
