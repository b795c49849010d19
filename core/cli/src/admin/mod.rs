//! `realm admin`: administration of a running server.

mod client;
mod keys;
mod models;
mod shown;
mod tenants;

use anyhow::Result;
use serde_json::Value;

use self::client::Client;
use crate::output::say;

/// Administer a running server: models, tenants, adapters, programs and keys
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The address of administration: `--admin` of `realm serve` [default: $REALM_ADMIN_URL, or
    /// http://127.0.0.1:8081]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// A file with an API key of the scope administration; `-` for stdin [default: $REALM_ADMIN_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<std::path::PathBuf>,
    /// Print the server's answers as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Load, list and unload models, and give them further names
    #[command(subcommand)]
    Models(models::Command),
    /// Set the limits and grants of tenants
    #[command(subcommand)]
    Tenants(tenants::Command),
    /// Load, list and unload LoRA adapters of tenants
    #[command(subcommand)]
    Adapters(tenants::Adapters),
    /// Upload programs of tenants, and go back to earlier versions
    #[command(subcommand)]
    Programs(tenants::Programs),
    /// Make, list, rotate and revoke API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Have the server read its configuration again
    Reload,
    /// The server's version, and the numbers of its entries
    Status,
}

pub(crate) fn admin(args: &Args) -> Result<()> {
    let client = Client::new(args.url.as_deref(), args.key_file.as_deref(), args.json)?;
    match &args.command {
        Command::Models(command) => command.run(&client),
        Command::Tenants(command) => command.run(&client),
        Command::Adapters(command) => command.run(&client),
        Command::Programs(command) => command.run(&client),
        Command::Keys(command) => command.run(&client),
        Command::Reload => {
            client.send("POST", "/admin/reload", &Value::Null)?;
            say!("the configuration was read again")?;
            Ok(())
        }
        Command::Status => client.show(&client.get("/admin/status")?),
    }
}
