//! `realm convert` and `realm quantize`: write models as GGUF files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use realm::convert::{self, Gguf, Importance, Inputs, Recipe};
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
    /// Weigh errors by the importances in this file, which `--imatrix-save` or llama.cpp's `llama-imatrix`
    /// wrote
    #[arg(long, value_name = "FILE", conflicts_with = "imatrix_text")]
    imatrix: Option<PathBuf>,
    /// Weigh errors by the importances that columns have in this text: the model is run over it first, on the
    /// CPU
    #[arg(long, value_name = "FILE")]
    imatrix_text: Option<PathBuf>,
    /// Save the importances that the text gives, in llama.cpp's format; the file must not exist
    #[arg(long, value_name = "FILE", requires = "imatrix_text")]
    imatrix_save: Option<PathBuf>,
}

impl ImportanceOptions {
    fn of(&self, model: &Gguf) -> Result<Importance> {
        if let Some(path) = &self.imatrix {
            let read = convert::open_importance(path);
            return read.with_context(|| format!("--imatrix {}", path.display()));
        }
        let Some(path) = &self.imatrix_text else { return Ok(Importance::new()) };
        let option = || format!("--imatrix-text {}", path.display());
        let text = std::fs::read_to_string(path).with_context(option)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut bars = Bars::new();
        let progress = &mut |done, total| bars.running(done, total);
        let inputs = Inputs::of_text(model, &text, threads, progress).with_context(option)?;
        if let Some(to) = &self.imatrix_save {
            let dataset = path.file_name().unwrap_or_default().to_string_lossy();
            inputs.write(to, &dataset).with_context(|| format!("--imatrix-save {}", to.display()))?;
        }
        Ok(inputs.importance())
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
    let model = convert::open(from)?;
    let importance = importance.of(&model)?;
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
