//! `realm chat`: a conversation.

use anyhow::Result;
use realm::{Message, Model, Request};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::options::{AdapterOptions, ModelOptions, SamplingOptions, adapted};
use crate::output::note;
use crate::{interrupt, run};

/// Talk with a model
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapter: AdapterOptions,
    /// Instructions for the model before the conversation
    #[arg(long, allow_hyphen_values = true)]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingOptions,
}

const HELP: &str = "/clear forgets the conversation, /help shows this, /exit or Ctrl-D ends; // begins a text with a slash; \
                    Ctrl-C stops an answer";

/// A line that the user typed.
enum Line {
    Nothing,
    Exit,
    Clear,
    Help,
    Unknown(String),
    Say(String),
}

impl Line {
    fn read(line: &str) -> Self {
        let command = line.trim();
        match command {
            "" => Self::Nothing,
            "/exit" | "/quit" | "/bye" => Self::Exit,
            "/clear" | "/reset" | "/new" => Self::Clear,
            "/help" | "/?" => Self::Help,
            _ if command.starts_with("//") => Self::Say(command[1..].to_owned()),
            _ if command.starts_with('/') => {
                Self::Unknown(command.split_whitespace().next().unwrap_or_default().to_owned())
            }
            _ => Self::Say(line.to_owned()),
        }
    }
}

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
    note!("{HELP}");
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
        let text = match Line::read(&line) {
            Line::Say(text) => text,
            Line::Nothing => continue,
            Line::Exit => return Ok(()),
            Line::Help => {
                note!("{HELP}");
                continue;
            }
            Line::Unknown(command) => {
                note!("there is no command {command}: {HELP}");
                continue;
            }
            Line::Clear => {
                messages = start();
                note!("the conversation is forgotten");
                continue;
            }
        };
        // The chat continues even if the history cannot be kept.
        let _ = editor.add_history_entry(&line);
        messages.push(Message::user(text));
        // Ctrl-C at the prompt was meant for the prompt.
        interrupt::pressed();
        let request = adapted(args.sampling.apply(Request::chat(messages.clone())), &adapter);
        let answer = fitting(&model, request, &mut messages).and_then(|request| Ok(model.stream(request)?));
        match answer.and_then(run::print) {
            Ok((text, finish)) => {
                messages.push(Message::assistant(text));
                if let Some(finish) = finish {
                    run::report(&finish);
                }
            }
            Err(error) if crate::is_broken_pipe(&error) => return Err(error),
            Err(error) => {
                note!("{error:#}");
                messages.pop();
            }
        }
    }
}

/// Returns the request without the oldest turns if the context has no room for them; they are removed from
/// `messages` too.
fn fitting(model: &Model, request: Request, messages: &mut Vec<Message>) -> Result<Request> {
    let (request, dropped) = model.drop_oldest_turns(request)?;
    if dropped > 0 {
        if let realm::Prompt::Chat(kept) = &request.prompt {
            messages.clone_from(kept);
        }
        let plural = if dropped == 1 { "message is" } else { "messages are" };
        note!(
            "the context of {} tokens is full: the {dropped} oldest {plural} forgotten (`--context` sets its length)",
            model.info().context_length
        );
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_begins_a_command_and_two_a_text() {
        assert!(matches!(Line::read(" /clear "), Line::Clear));
        assert!(matches!(Line::read("/exit"), Line::Exit));
        assert!(matches!(Line::read("/?"), Line::Help));
        assert!(matches!(Line::read("  "), Line::Nothing));
        assert!(matches!(Line::read("/cleer now"), Line::Unknown(command) if command == "/cleer"));
        assert!(
            matches!(Line::read("//etc/hosts is a file"), Line::Say(text) if text == "/etc/hosts is a file")
        );
        assert!(matches!(Line::read(" 1/2?"), Line::Say(text) if text == " 1/2?"));
    }
}
