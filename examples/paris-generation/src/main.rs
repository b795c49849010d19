//! The Paris test: a real model answers a question. This is the shortest way to a first answer: it builds
//! Realm without tenants' programs.
//!
//!     cargo run --release -p paris-generation MODEL.gguf
//!
//! MODEL is a GGUF file or a name of the catalog; without one it is `qwen2.5-coder-0.5b`, which is fetched
//! once.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use realm::{LoadOptions, Message, Realm, Request, hub};

fn main() -> anyhow::Result<ExitCode> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "qwen2.5-coder-0.5b".into());
    let realm = Realm::builder().build()?;
    let model = realm.load_model_with(&name, &LoadOptions::default(), &mut Bar::default())?;

    let question =
        Request::chat([Message::user("What is the capital of France?")]).temperature(0.0).max_tokens(64);
    let answer = model.generate(question)?;
    println!("Response: {}", answer.text);
    if answer.text.contains("Paris") {
        println!("SUCCESS");
        return Ok(ExitCode::SUCCESS);
    }
    println!("FAILURE: the answer does not name Paris");
    Ok(ExitCode::FAILURE)
}

/// A progress bar on stderr while the model is fetched; silent if stderr is not a terminal.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl hub::Progress for Bar {
    fn started(&mut self, file: &str, source: &hub::Source) {
        eprintln!("fetching {file} from {source}");
    }

    fn advanced(&mut self, _source: &hub::Source, done: u64, total: Option<u64>) {
        let bar = self.0.get_or_insert_with(|| match total {
            Some(total) => {
                let style = ProgressStyle::with_template("[{bar:40}] {bytes} of {total_bytes}, {eta} left");
                ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            }
            None => ProgressBar::new_spinner(),
        });
        bar.set_position(done);
    }

    fn finished(&mut self, _file: &str, _bytes: u64) {
        self.0.take();
    }
}

impl realm::Progress for Bar {}
