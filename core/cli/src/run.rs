//! `realm run`: one prompt, one answer.

use std::io::Write;

use anyhow::Result;
use realm::{ErrorCode, Finish, FinishReason, Generation, Message, Request};

use crate::interrupt::{self, Interrupted};
use crate::options::{AdapterOptions, GrammarOptions, ModelOptions, SamplingOptions, adapted};
use crate::output::note;
use crate::words::Words;

/// Answer one prompt
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapter: AdapterOptions,
    #[command(flatten)]
    pub(crate) prompt: Words,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    raw: bool,
    /// Instructions for the model before the prompt
    #[arg(long, conflicts_with = "raw", allow_hyphen_values = true)]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    grammar: GrammarOptions,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let prompt = args.prompt.read()?;
    let model = args.model.load()?;
    let adapter = args.adapter.load(&model)?;
    let request = if args.raw {
        Request::text(prompt)
    } else {
        let system = args.system.iter().map(Message::system);
        Request::chat(system.chain([Message::user(prompt)]))
    };
    let request = args.grammar.apply(adapted(args.sampling.apply(request), &adapter))?;
    let generation = model.stream(request).map_err(|error| {
        let base = !args.raw && error.code() == ErrorCode::Unsupported;
        let hint = if base {
            " (`--chat-template FILE|NAME` gives it one; `--raw` goes on from the prompt as it is)"
        } else {
            ""
        };
        anyhow::anyhow!("{error}{hint}")
    })?;
    interrupt::watch();
    let (_, finish) = print(generation)?;
    report(&finish.ok_or(Interrupted)?);
    Ok(())
}

/// Prints text as it arrives; returns it, and the end of the generation unless Ctrl-C ended it. Thoughts go
/// to stderr: they are not part of the answer.
pub(crate) fn print(mut generation: Generation) -> Result<(String, Option<Finish>)> {
    let mut out = std::io::stdout().lock();
    let (mut text, mut finish, mut thinking) = (String::new(), None, false);
    while let Some(chunk) = generation.next_blocking() {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                // The message gets a line of its own.
                if !text.is_empty() && !text.ends_with('\n') {
                    writeln!(out)?;
                }
                return Err(error.into());
            }
        };
        if !chunk.reasoning.is_empty() {
            write!(std::io::stderr(), "{}", chunk.reasoning).ok();
            thinking = true;
        }
        if thinking && !chunk.text.is_empty() {
            note!("\n");
            thinking = false;
        }
        out.write_all(chunk.text.as_bytes())?;
        out.flush()?;
        text += &chunk.text;
        finish = chunk.finish;
        if interrupt::pressed() {
            generation.cancel();
            finish = None;
        }
    }
    if !text.ends_with('\n') {
        writeln!(out)?;
    }
    Ok((text, finish))
}

pub(crate) fn report(finish: &Finish) {
    let (usage, timings) = (finish.usage, finish.timings);
    note!(
        "prompt {} tokens, {:.1} tokens/s; generated {} tokens, {:.1} tokens/s",
        usage.prompt_tokens,
        timings.prefill_rate(usage),
        usage.generated_tokens,
        timings.decode_rate(usage),
    );
    if finish.reason == FinishReason::Length {
        note!("the text ends there because of --max-tokens (-1: no limit) or --context");
    }
    if usage.draft_tokens > 0 {
        note!("drafts: {} of {} were right", usage.accepted_tokens, usage.draft_tokens);
    }
}
