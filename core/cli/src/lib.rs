//! The `realm` command as a function, so that the packages of other languages have the command too.
#![forbid(unsafe_code)]

mod bench;
mod chat;
mod interrupt;
mod lines;
mod live;
mod models;
mod options;
mod program;
mod progress;
mod run;
mod scaffold;
mod tenants;
mod wasm;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

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
    #[command(subcommand)]
    Models(models::Command),
    #[command(subcommand)]
    Tenant(program::Command),
    Bench(bench::Args),
    Tokenize(lines::TokenizeArgs),
    Score(lines::ScoreArgs),
}

/// Runs the command with `arguments`, of which the first is the command's own name, and returns the exit status. Writes to
/// stdout and stderr; Ctrl-C is caught from the first generated token on. Blocks.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let command = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.command,
        Err(error) => {
            // Who can't be told can't be told that either.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let result = match command {
        Command::Run(args) => run::run(&args),
        Command::Chat(args) => chat::chat(&args),
        Command::Models(command) => models::models(&command),
        Command::Tenant(command) => program::tenant(&command),
        Command::Bench(args) => bench::bench(&args),
        Command::Tokenize(args) => lines::tokenize(&args),
        Command::Score(args) => lines::score(&args),
    };
    match result {
        Ok(()) => 0,
        // Whoever read our output has gone: that is no failure of ours.
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            eprintln!("realm: {error:#}");
            1
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
