//! `realm chat`: a conversation.

use anyhow::Result;
use realm::{Message, Request};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::options::{AdapterOptions, ModelOptions, SamplingOptions, adapted};
use crate::{interrupt, run};

/// Talk with a model
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapter: AdapterOptions,
    /// What the model is told before the conversation
    #[arg(long)]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingOptions,
}

const HELP: &str = "/clear forgets the conversation, /exit or Ctrl-D ends; Ctrl-C stops an answer";

pub(crate) fn chat(args: &Args) -> Result<()> {
    let model = args.model.load()?;
    let adapter = args.adapter.load(&model)?;
    if !model.info().chat_template {
        anyhow::bail!(
            "this model has no chat template (a base model?): `--chat-template FILE|NAME` gives it one, and `realm run --raw` \
             goes on from text"
        );
    }
    interrupt::watch();
    eprintln!("{HELP}");
    let start = || args.system.iter().map(Message::system).collect::<Vec<_>>();
    let mut messages = start();
    let mut editor = DefaultEditor::new()?;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match line.trim() {
            "" => continue,
            "/exit" | "/quit" => return Ok(()),
            "/clear" => {
                messages = start();
                continue;
            }
            command if command.starts_with('/') => {
                eprintln!("{HELP}");
                continue;
            }
            _ => {}
        }
        // A history that can't be kept is no reason to stop.
        let _ = editor.add_history_entry(&line);
        messages.push(Message::user(line));
        // Ctrl-C at the prompt was meant for the prompt.
        interrupt::pressed();
        let request = adapted(args.sampling.apply(Request::chat(messages.clone())), &adapter);
        let answer = model.stream(request).map_err(anyhow::Error::from);
        match answer.and_then(run::print) {
            Ok((text, finish)) => {
                messages.push(Message::assistant(text));
                if let Some(finish) = finish {
                    run::report(&finish);
                }
            }
            Err(error) => {
                eprintln!("{error:#}");
                messages.pop();
            }
        }
    }
}
