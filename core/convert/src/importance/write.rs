//! Writes importances as llama.cpp's `llama-imatrix --output-format gguf` does.

use std::path::Path;

use realm_gguf::{Array, Metadata, TensorInfo, TensorType, Value, Writer};

use super::{COUNTS, Inputs, SUMS};
use crate::Error;
use crate::file::Partial;

impl Inputs {
    /// Writes the file `path`, which llama.cpp's tools read, too. `dataset` names the text.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written or exists already.
    pub fn write(&self, path: &Path, dataset: &str) -> Result<(), Error> {
        let partial = Partial::new(path)?;
        let io = |source| partial.error(source);
        let mut index = Vec::with_capacity(2 * self.sums.len());
        for (name, inputs) in &self.sums {
            let (columns, count) = (inputs.columns as u64, inputs.counts.len() as u64);
            for (suffix, shape) in [(SUMS, [columns, count]), (COUNTS, [1, count])] {
                let info = TensorInfo::new(format!("{name}{suffix}"), shape.to_vec(), TensorType::F32);
                index.push(info.ok_or_else(|| Error::in_tensor(name, "has no inputs"))?);
            }
        }
        let entries = [
            ("general.type", Value::String("imatrix".into())),
            ("imatrix.datasets", Value::Array(Array::Strings([dataset.as_bytes()].into_iter().collect()))),
            ("imatrix.chunk_count", Value::U32(self.chunks as u32)),
            ("imatrix.chunk_size", Value::U32(super::collect::CHUNK as u32)),
        ];
        let metadata = Metadata::from_entries(entries.map(|(key, value)| (key.into(), value)));
        let mut writer =
            Writer::new(std::io::BufWriter::new(partial.create()?), &metadata, &index).map_err(io)?;
        let bytes = |numbers: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
            numbers.flat_map(f32::to_le_bytes).collect()
        };
        for inputs in self.sums.values() {
            writer.tensor(&bytes(&mut inputs.sums.iter().map(|&sum| sum as f32))).map_err(io)?;
            writer.tensor(&bytes(&mut inputs.counts.iter().map(|&count| count as f32))).map_err(io)?;
        }
        let file = writer.finish().and_then(|out| Ok(out.into_inner()?)).map_err(io)?;
        file.sync_all().map_err(io)?;
        partial.finish()
    }
}
