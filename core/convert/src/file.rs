//! Writes a model as a GGUF file, tensor by tensor: the memory that this takes is a few times that of the
//! largest tensor.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use realm_compute::quant::dequantize;
use realm_gguf::{Gguf, Metadata, TensorInfo, TensorType, Value, Writer};

use crate::recipe::Shape;
use crate::{Error, Importance, Recipe, quantize};

/// A file that has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Tensors of each type, with their bytes.
    pub types: Vec<(TensorType, usize, u64)>,
    /// Matrices whose rows are no whole blocks of the recipe's type and that got another one.
    pub other_types: usize,
}

/// Returns the types that the tensors of `model` get in a file of `recipe`.
pub fn types_of(model: &Gguf, recipe: Recipe) -> Vec<TensorType> {
    let shape = Shape::of(model);
    model.tensors().iter().map(|tensor| recipe.type_of(tensor, &shape).0).collect()
}

/// Writes `model` to the file `path` with the types of `recipe`, or with its own types if that is `None`. The
/// file appears under its name when it is complete. Calls `progress(done, total)` with bytes of the model.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written or exists already, [`Error::Gguf`] if a tensor cannot be read,
/// and [`Error::Tensor`] if it cannot be quantized.
pub fn write(
    model: &Gguf,
    path: &Path,
    recipe: Option<Recipe>,
    importance: &Importance,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written, Error> {
    let partial = Partial::new(path)?;
    let shape = Shape::of(model);
    let mut index = Vec::with_capacity(model.tensors().len());
    let mut other_types = 0;
    for tensor in model.tensors() {
        let (ty, fell_back) = recipe.map_or((tensor.ty, false), |recipe| recipe.type_of(tensor, &shape));
        other_types += usize::from(fell_back);
        let info = TensorInfo::new(tensor.name.clone(), tensor.shape.clone(), ty);
        index.push(info.ok_or_else(|| Error::in_tensor(&tensor.name, "has a shape that cannot be written"))?);
    }
    let mut metadata = of_one_file(model.metadata());
    if let Some(recipe) = recipe {
        metadata.push(("general.file_type".into(), Value::U32(recipe.file_type())));
        metadata.push(("general.quantization_version".into(), Value::U32(2)));
    }
    let io = |source| partial.error(source);
    let out = BufWriter::new(partial.create()?);
    let mut writer = Writer::new(out, &Metadata::from_entries(metadata), &index).map_err(io)?;
    let total = model.tensors().iter().map(|t| t.bytes() as u64).sum();
    let (mut done, mut buffer, mut floats, mut blocks) = (0, Vec::new(), Vec::new(), Vec::new());
    for (from, to) in model.tensors().iter().zip(&index) {
        let data = model.read(from, &mut buffer)?;
        let data = if from.ty == to.ty {
            data
        } else {
            floats.resize(from.len(), 0.0);
            blocks.clear();
            let columns = from.shape[0] as usize;
            let importance = importance.get(&from.name).map(Vec::as_slice);
            dequantize(from.ty, data, &mut floats).map_err(|why| Error::in_tensor(&from.name, why))?;
            quantize(to.ty, &floats, columns, importance, &mut blocks)
                .map_err(|why| Error::in_tensor(&from.name, why))?;
            &blocks
        };
        writer.tensor(data).map_err(io)?;
        done += from.bytes() as u64;
        progress(done, total);
    }
    let file = writer.finish().and_then(|out| Ok(out.into_inner()?)).map_err(io)?;
    file.sync_all().map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    partial.finish()?;
    Ok(Written { bytes, types: types(&index), other_types })
}

/// The metadata without the facts of a file's parts.
fn of_one_file(metadata: &Metadata) -> Vec<(String, Value)> {
    let whole = metadata.iter().filter(|(key, _)| !key.starts_with("split."));
    whole.map(|(key, value)| (key.to_owned(), value.clone())).collect()
}

fn types(index: &[TensorInfo]) -> Vec<(TensorType, usize, u64)> {
    let mut types: Vec<(TensorType, usize, u64)> = Vec::new();
    for tensor in index {
        let bytes = tensor.bytes() as u64;
        match types.iter_mut().find(|(ty, ..)| *ty == tensor.ty) {
            Some((_, count, sum)) => (*count, *sum) = (*count + 1, *sum + bytes),
            None => types.push((tensor.ty, 1, bytes)),
        }
    }
    types.sort_by_key(|&(.., bytes)| std::cmp::Reverse(bytes));
    types
}

/// A file under another name until it is complete.
pub(crate) struct Partial {
    path: PathBuf,
    partial: PathBuf,
    finished: bool,
}

impl Partial {
    pub(crate) fn new(path: &Path) -> Result<Self, Error> {
        if path.exists() {
            let source = io::Error::new(io::ErrorKind::AlreadyExists, "is there already; remove it first");
            return Err(Error::Io { path: path.to_owned(), source });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        Ok(Self { path: path.to_owned(), partial: partial.into(), finished: false })
    }

    pub(crate) fn create(&self) -> Result<File, Error> {
        File::create(&self.partial).map_err(|source| self.error(source))
    }

    pub(crate) fn error(&self, source: io::Error) -> Error {
        Error::Io { path: self.partial.clone(), source }
    }

    pub(crate) fn finish(mut self) -> Result<(), Error> {
        std::fs::rename(&self.partial, &self.path).map_err(|source| self.error(source))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // The error that ended the writing is the one to report.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}
