//! `realm models`: what is in the cache folder and what could be.

use anyhow::Result;
use realm::hub::{Hub, Reference, State, Status};

use crate::progress::Bars;

/// List, fetch and remove models
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// The catalog, and what has been fetched
    List,
    /// Fetch a model
    Pull {
        /// A catalog name, or hf:owner/repo/file.gguf
        model: String,
    },
    /// Remove a model from the cache folder
    Rm {
        /// A catalog name, or hf:owner/repo/file.gguf
        model: String,
    },
    /// What is known about a model
    Info {
        /// A GGUF file, a catalog name, or hf:owner/repo/file.gguf
        model: String,
    },
}

pub(crate) fn models(command: &Command) -> Result<()> {
    let hub = Hub::new()?;
    match command {
        Command::List => {
            for status in hub.list()? {
                println!("{}", line(&status));
            }
        }
        Command::Pull { model } => {
            let path = hub.pull(&Reference::parse(model)?, &mut Bars::new())?;
            println!("{}", path.display());
        }
        Command::Rm { model } => {
            let freed = hub.remove(&Reference::parse(model)?)?;
            println!("{:.0} MB freed", freed as f64 / 1e6);
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
    println!("{}", line(&status));
    println!("path            {}", status.path.display());
    if let Reference::Catalog(entry) = reference {
        println!("license         {}", entry.license);
        println!("sha256          {}", entry.sha256);
        for source in &entry.sources {
            println!("source          {source}");
        }
    }
    if !matches!(status.state, State::Present(_)) {
        return Ok(());
    }
    let file = realm::inspect(&status.path)?;
    println!("name            {}", file.name.as_deref().unwrap_or("-"));
    println!("architecture    {}", file.architecture);
    println!("parameters      {:.1} M", file.parameters as f64 / 1e6);
    println!("layers          {}", file.layers);
    println!("vocabulary      {} tokens", file.vocabulary);
    println!("context         {} tokens", file.trained_context_length);
    println!("chat template   {}", if file.chat_template { "yes" } else { "no" });
    for (name, tensors, bytes) in &file.tensor_types {
        println!("{name:<15} {tensors} tensors, {:.1} MB", *bytes as f64 / 1e6);
    }
    Ok(())
}
