//! The `realm` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    realm_cli::run(std::env::args_os()).into()
}
