//! `realm convert` and `realm quantize`: write models as GGUF files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use realm::convert::{self, Importance, Recipe};
use realm::hub::{Hub, Reference};

use crate::output::{note, say};
use crate::progress::Bars;

/// Write a Hugging Face folder as a GGUF file
#[derive(clap::Args)]
pub(crate) struct ConvertArgs {
    /// A folder as transformers saves it (config.json, *.safetensors, tokenizer.json), or hf:owner/repo
    folder: String,
    /// The file to write; it must not exist
    out: PathBuf,
    /// Types of the matrices, such as q4_k_m, q8_0 or bf16 [default: those of the folder]
    #[arg(long = "type", value_name = "TYPE", value_parser = recipe)]
    recipe: Option<Recipe>,
    #[command(flatten)]
    importance: ImportanceOptions,
}

/// Write a model with matrices of another type
#[derive(clap::Args)]
pub(crate) struct QuantizeArgs {
    /// A GGUF file, a folder as transformers saves it, a catalog name, hf:owner/repo/file.gguf, or
    /// hf:owner/repo. Best is a model that was not quantized yet
    model: String,
    /// The file to write; it must not exist
    out: PathBuf,
    /// Types of the matrices, such as q4_k_m, q8_0 or bf16
    #[arg(long = "type", value_name = "TYPE", value_parser = recipe)]
    recipe: Recipe,
    #[command(flatten)]
    importance: ImportanceOptions,
}

/// The importances of columns.
#[derive(clap::Args)]
struct ImportanceOptions {
    /// Weigh errors by the importances in this file, which llama.cpp's `llama-imatrix --output-format gguf`
    /// wrote
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
}

impl ImportanceOptions {
    fn read(&self) -> Result<Importance> {
        let Some(path) = &self.imatrix else { return Ok(Importance::new()) };
        let read = convert::open(path).and_then(|file| convert::read_importance(&file));
        read.with_context(|| format!("--imatrix {}", path.display()))
    }
}

fn recipe(name: &str) -> Result<Recipe, String> {
    Recipe::named(name).map_err(|error| error.to_string())
}

pub(crate) fn convert(args: &ConvertArgs) -> Result<()> {
    let reference = match args.folder.starts_with("hf:") {
        true => Reference::parse(&args.folder)?,
        false => Reference::Path(PathBuf::from(&args.folder)),
    };
    let folder = Hub::new()?.resolve(&reference, &mut Bars::new())?;
    if !folder.is_dir() {
        let folder = folder.display();
        bail!(
            "{folder} is no folder; `realm quantize` takes GGUF files, catalog names and hf:owner/repo/file.gguf"
        );
    }
    write(&folder, &args.out, args.recipe, &args.importance)
}

pub(crate) fn quantize(args: &QuantizeArgs) -> Result<()> {
    let path = Hub::new()?.resolve(&Reference::parse(&args.model)?, &mut Bars::new())?;
    write(&path, &args.out, Some(args.recipe), &args.importance)
}

fn write(from: &Path, out: &Path, recipe: Option<Recipe>, importance: &ImportanceOptions) -> Result<()> {
    let importance = importance.read()?;
    let model = convert::open(from)?;
    let quantized = model.tensors().iter().filter(|tensor| tensor.ty.block_len() > 1).count();
    if recipe.is_some() && quantized > 0 {
        note!("{quantized} tensors are quantized already: what that lost stays lost");
    }
    let mut bars = Bars::new();
    let progress = &mut |done, total| bars.writing(done, total);
    let written = convert::write(&model, out, recipe, &importance, progress)?;
    for (ty, tensors, bytes) in &written.types {
        note!("{:<8} {tensors} tensors, {:.1} MB", ty.to_string(), *bytes as f64 / 1e6);
    }
    if written.other_types > 0 {
        let count = written.other_types;
        note!("{count} tensors have rows that are no whole blocks of their type and got another one");
    }
    say!("{}", out.display())?;
    Ok(())
}
