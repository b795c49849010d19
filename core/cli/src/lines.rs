//! `realm tokenize` and `realm score`: a JSON line in, a JSON line out.

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use crate::options::ModelOptions;

/// Turn lines of {"text": …} into lines of {"tokens": […]}
#[derive(clap::Args)]
pub(crate) struct TokenizeArgs {
    /// A GGUF file, a folder as transformers saves it, a catalog name, hf:owner/repo/file.gguf, or
    /// hf:owner/repo
    model: String,
    /// Parse special tokens spelled in the text
    #[arg(long)]
    special: bool,
    /// Add the begin token where the model's metadata asks for one
    #[arg(long)]
    bos: bool,
    /// Accepted for symmetry: input and output are always JSON lines
    #[arg(long)]
    json: bool,
}

/// Turn lines of {"tokens": […]} into lines of {"top": [[[id, logprob], …] for every position]}
#[derive(clap::Args)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    model: ModelOptions,
    /// Number of tokens at each position
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Accepted for symmetry: input and output are always JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<u32>,
}

pub(crate) fn tokenize(args: &TokenizeArgs) -> Result<()> {
    let tokenizer = realm::Realm::builder().threads(1).build()?.load_tokenizer(&args.model)?;
    let mut out = std::io::stdout().lock();
    each_line(|Text { text }| {
        let mut tokens = tokenizer.encode(&text, args.special, false);
        if let Some(bos) = tokenizer.bos().filter(|_| args.bos && tokenizer.adds_bos()) {
            tokens.insert(0, bos);
        }
        writeln!(out, "{}", json!({ "tokens": tokens }))?;
        Ok(out.flush()?)
    })
}

pub(crate) fn score(args: &ScoreArgs) -> Result<()> {
    let model = args.model.load()?;
    let mut out = std::io::stdout().lock();
    each_line(|Tokens { tokens }| {
        let scores = model.score(&tokens, args.top)?;
        let top: Vec<Vec<_>> =
            scores.iter().map(|row| row.top.iter().map(|t| json!([t.id, t.logprob])).collect()).collect();
        writeln!(out, "{}", json!({ "top": top }))?;
        Ok(out.flush()?)
    })
}

fn each_line<T: for<'a> Deserialize<'a>>(mut each: impl FnMut(T) -> Result<()>) -> Result<()> {
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.context("cannot read stdin")?;
        if line.trim().is_empty() {
            continue;
        }
        let value = match serde_json::from_str(&line) {
            Ok(value) => value,
            Err(error) => bail!("line {} of stdin: {error}", number + 1),
        };
        each(value).with_context(|| format!("line {} of stdin", number + 1))?;
    }
    Ok(())
}
