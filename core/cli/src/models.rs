//! `realm models`: the models in the cache folder and in the catalog.

use anyhow::Result;
use realm::hub::{Hub, Reference, State, Status};

use crate::output::say;
use crate::progress::Bars;

/// List, fetch and remove models
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// The catalog, and the fetched models
    List,
    /// Fetch a model
    Pull {
        /// A catalog name, hf:owner/repo/file.gguf, or hf:owner/repo for a repository of safetensors
        model: String,
    },
    /// Remove a model from the cache folder
    Rm {
        /// A catalog name, hf:owner/repo/file.gguf, or hf:owner/repo for a repository of safetensors
        model: String,
    },
    /// Facts about a model
    Info {
        /// A GGUF file, a folder as transformers saves it, a catalog name, hf:owner/repo/file.gguf, or
        /// hf:owner/repo
        model: String,
    },
}

pub(crate) fn models(command: &Command) -> Result<()> {
    let hub = Hub::new()?;
    match command {
        Command::List => {
            for status in hub.list()? {
                say!("{}", line(&status))?;
            }
        }
        Command::Pull { model } => {
            let path = hub.pull(&Reference::parse(model)?, &mut Bars::new())?;
            say!("{}", path.display())?;
        }
        Command::Rm { model } => {
            let freed = hub.remove(&Reference::parse(model)?)?;
            say!("{:.0} MB freed", freed as f64 / 1e6)?;
        }
        Command::Info { model } => info(&hub, &Reference::parse(model)?)?,
    }
    Ok(())
}

fn line(status: &Status) -> String {
    let state = match status.state {
        State::Present(bytes) => format!("{:.0} MB", bytes as f64 / 1e6),
        State::Partial(bytes) => format!("{:.0} MB so far", bytes as f64 / 1e6),
        State::Absent => "not fetched".to_owned(),
    };
    let description = match &status.reference {
        Reference::Catalog(entry) => entry.description.as_str(),
        _ => "",
    };
    format!("{:<24} {:>16}  {description}", status.reference.to_string(), state).trim_end().to_owned()
}

fn info(hub: &Hub, reference: &Reference) -> Result<()> {
    let status = hub.info(reference)?;
    say!("{}", line(&status))?;
    say!("path            {}", status.path.display())?;
    if let Reference::Catalog(entry) = reference {
        say!("license         {}", entry.license)?;
        say!("sha256          {}", entry.sha256)?;
        for source in &entry.sources {
            say!("source          {source}")?;
        }
    }
    if !matches!(status.state, State::Present(_)) {
        return Ok(());
    }
    let file = realm::inspect(&status.path)?;
    say!("name            {}", file.name.as_deref().unwrap_or("-"))?;
    say!("architecture    {}", file.architecture)?;
    say!("parameters      {:.1} M", file.parameters as f64 / 1e6)?;
    say!("layers          {}", file.layers)?;
    say!("vocabulary      {} tokens", file.vocabulary)?;
    say!("context         {} tokens", file.trained_context_length)?;
    say!("chat template   {}", if file.chat_template { "yes" } else { "no" })?;
    for (name, tensors, bytes) in &file.tensor_types {
        say!("{name:<15} {tensors} tensors, {:.1} MB", *bytes as f64 / 1e6)?;
    }
    Ok(())
}
