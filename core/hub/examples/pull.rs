//! Fetches models into the cache folder and prints their paths: `cargo run -p realm-hub --example pull --
//! smollm2-135m hf:owner/repo/file.gguf`.

use std::process::ExitCode;

use realm_hub::{Error, Hub, Progress, Reason, Reference, Source};

/// Prints lines to standard error, one for every tenth of a file.
#[derive(Default)]
struct Lines {
    tenths: u64,
}

impl Progress for Lines {
    fn waiting(&mut self, file: &str) {
        eprintln!("{file}: another process fetches it, waiting");
    }

    fn started(&mut self, file: &str, source: &Source) {
        self.tenths = 0;
        eprintln!("{file}: from {source}");
    }

    fn advanced(&mut self, _: &Source, done: u64, total: Option<u64>) {
        let Some(total) = total.filter(|&total| total > 0) else { return };
        let tenths = done * 10 / total;
        if tenths > self.tenths {
            self.tenths = tenths;
            eprintln!("  {} of {} MB", done / 1_000_000, total / 1_000_000);
        }
    }

    fn failed(&mut self, _: &Source, reason: &Reason) {
        eprintln!("  {reason}");
    }
}

fn main() -> ExitCode {
    match pull(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pull(names: impl Iterator<Item = String>) -> Result<(), Error> {
    let hub = Hub::new()?;
    for name in names {
        let reference = Reference::parse(&name)?;
        println!("{}", hub.resolve(&reference, &mut Lines::default())?.display());
    }
    Ok(())
}
