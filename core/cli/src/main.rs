//! The `realm` command.
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

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Run large language models in this process, for many tenants at once.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
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

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Chat(args) => chat::chat(&args),
        Command::Models(command) => models::models(&command),
        Command::Tenant(command) => program::tenant(&command),
        Command::Bench(args) => bench::bench(&args),
        Command::Tokenize(args) => lines::tokenize(&args),
        Command::Score(args) => lines::score(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has gone: that is no failure of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("realm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
