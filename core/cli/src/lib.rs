//! The `realm` command as a function, so that the packages of other languages have the command too.
//!
//! ```
//! assert_eq!(realm_cli::run(["realm".into(), "--version".into()]), 0);
//! ```
//!
//! Without the default feature `sandbox`, the command has no programs: `realm tenant` and `realm bench
//! --program` do not exist, and nothing of wasmtime is built. Without `server`, also a default, there is no
//! `realm serve`, no `realm api-key` and no `realm admin`.
#![forbid(unsafe_code)]

#[cfg(feature = "server")]
mod admin;
#[cfg(feature = "server")]
mod api_key;
mod bench;
mod chat;
mod convert;
mod interrupt;
mod lines;
mod models;
mod options;
mod output;
mod progress;
mod run;
#[cfg(feature = "server")]
mod serve;
#[cfg(feature = "sandbox")]
mod tenant;
mod words;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

/// Run large language models in this process, for many tenants at once.
#[derive(Parser)]
#[command(name = "realm", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Chat(chat::Args),
    #[cfg(feature = "server")]
    Serve(Box<serve::Args>),
    #[cfg(feature = "server")]
    #[command(subcommand)]
    ApiKey(api_key::Command),
    #[cfg(feature = "server")]
    Admin(admin::Args),
    #[command(subcommand)]
    Models(models::Command),
    #[cfg(feature = "sandbox")]
    #[command(subcommand)]
    Tenant(tenant::Command),
    Convert(convert::ConvertArgs),
    Quantize(convert::QuantizeArgs),
    Bench(bench::Args),
    Tokenize(lines::TokenizeArgs),
    Score(lines::ScoreArgs),
}

/// Runs the command with `arguments`, of which the first is the command's own name. Returns the exit status:
/// 0, 1 for a failure, 2 for invalid arguments, 130 after Ctrl-C. Writes results to stdout and everything
/// else to stderr; catches Ctrl-C from the first generated token on. Blocks.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let command = match Cli::try_parse_from(marked(arguments.into_iter().collect())) {
        Ok(cli) => cli.command,
        Err(error) => {
            // Nowhere is left to report a failed write.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    // Realm's own log, with messages about the arguments, such as too many threads. This fails if another
    // subscriber has the log already.
    let log = |level, _: &str, line: &str| output::note!("realm: {}{line}", kind(level));
    let _ = realm::log_to(realm::Level::Warn, Some(log));
    let result = match command {
        Command::Run(args) => run::run(&args),
        Command::Chat(args) => chat::chat(&args),
        #[cfg(feature = "server")]
        Command::Serve(args) => serve::serve(&args),
        #[cfg(feature = "server")]
        Command::ApiKey(command) => api_key::api_key(&command),
        #[cfg(feature = "server")]
        Command::Admin(args) => admin::admin(&args),
        Command::Models(command) => models::models(&command),
        #[cfg(feature = "sandbox")]
        Command::Tenant(command) => tenant::tenant(&command),
        Command::Convert(args) => convert::convert(&args),
        Command::Quantize(args) => convert::quantize(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Tokenize(args) => lines::tokenize(&args),
        Command::Score(args) => lines::score(&args),
    };
    match result {
        Ok(()) => 0,
        // The reader of the output has left, which is not a failure of the command.
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) if error.is::<interrupt::Interrupted>() => 130,
        Err(error) => {
            output::note!("realm: {error:#}");
            1
        }
    }
}

fn kind(level: realm::Level) -> &'static str {
    if level == realm::Level::Warn { "warning: " } else { "" }
}

/// Marks the words of a prompt that begin with a hyphen.
fn marked(arguments: Vec<OsString>) -> Vec<OsString> {
    let is = |at: usize, name: &str| arguments.get(at).is_some_and(|argument| argument == name);
    if !(is(1, "run") || is(1, "tenant") && is(2, "run")) {
        return arguments;
    }
    let command = Cli::command();
    let of = |command: &clap::Command| command.find_subcommand("run").cloned();
    let tenant = command.find_subcommand("tenant").and_then(of);
    let Some(run) = (if is(1, "run") { of(&command) } else { tenant }) else { return arguments };
    words::mark(arguments, |option| {
        let name = option.strip_prefix("--");
        name.is_some_and(|name| {
            run.get_arguments().any(|a| a.get_long() == Some(name) && a.get_action().takes_values())
        })
    })
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
