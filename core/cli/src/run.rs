//! `realm run`: one prompt, one answer.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use realm::{ErrorCode, Finish, FinishReason, Generation, Message, Request};

use crate::interrupt;
use crate::options::{AdapterOptions, GrammarOptions, ModelOptions, SamplingOptions, adapted};

/// Answer one prompt
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapter: AdapterOptions,
    /// What to answer; `-` reads it from stdin
    prompt: String,
    /// Go on from the prompt as it is, without the chat template
    #[arg(long)]
    raw: bool,
    /// What the model is told before the prompt
    #[arg(long, conflicts_with = "raw")]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    grammar: GrammarOptions,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut prompt = args.prompt.clone();
    if prompt == "-" {
        prompt.clear();
        std::io::stdin().read_to_string(&mut prompt).context("cannot read the prompt from stdin")?;
    }
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
    if let (_, Some(finish)) = print(generation)? {
        report(&finish);
    }
    Ok(())
}

/// Prints text as it comes; returns it, and how it ended unless Ctrl-C did. What the model thinks goes to the error stream: it is
/// no part of the answer.
pub(crate) fn print(mut generation: Generation) -> Result<(String, Option<Finish>)> {
    let mut out = std::io::stdout().lock();
    let (mut text, mut finish, mut thinking) = (String::new(), None, false);
    while let Some(chunk) = generation.next_blocking() {
        let chunk = chunk?;
        if !chunk.reasoning.is_empty() {
            eprint!("{}", chunk.reasoning);
            thinking = true;
        }
        if thinking && !chunk.text.is_empty() {
            eprintln!("\n");
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
    eprintln!(
        "prompt {} tokens, {:.1} tokens/s; generated {} tokens, {:.1} tokens/s",
        usage.prompt_tokens,
        timings.prefill_rate(usage),
        usage.generated_tokens,
        timings.decode_rate(usage),
    );
    if finish.reason == FinishReason::Length {
        eprintln!("the text ends there because of --max-tokens or --context");
    }
    if usage.draft_tokens > 0 {
        eprintln!("drafts: {} of {} were right", usage.accepted_tokens, usage.draft_tokens);
    }
}
