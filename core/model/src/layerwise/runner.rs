//! The operations of the forward pass on a backend.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use realm_compute::{Backend, Batch, CacheSpec, CacheType, MatMul, PAGE_TOKENS, Want};

use super::tensor::{Part, Tensor, append, missing};
use super::{ActivationId, CacheId, Layerwise, Slice};
use crate::adapter::Active;
use crate::block::Layer;
use crate::names::TensorId;
use crate::pass::{Buffers, logits, rotate};
use crate::weights::Transformer;
use crate::work::{PassWork, Work};
use crate::{Error, ModelConfig};

/// Runs the operations of [`Layerwise`] on one thread.
pub struct LayerwiseRunner<B: Backend> {
    model: Arc<Transformer<B>>,
    kind: CacheType,
    work: PassWork,
    tensors: HashMap<ActivationId, Tensor<B>>,
    caches: HashMap<CacheId, Cached<B>>,
    buffers: Buffers<B>,
}

struct Cached<B: Backend> {
    cache: B::Cache,
    /// Number of tokens that the cache has of each layer.
    lens: Vec<usize>,
    /// Page tables of the layers' groups; every page is at its own index.
    tables: Vec<Vec<u32>>,
}

impl<B: Backend> LayerwiseRunner<B> {
    /// Creates a runner without tensors. Caches hold numbers as `kind`.
    pub fn new(model: Arc<Transformer<B>>, kind: CacheType) -> Result<Self, Error> {
        let buffers = Buffers::new(&*model.backend, &model.config)?;
        let work = PassWork::new(&model.config);
        Ok(Self { model, kind, work, tensors: HashMap::new(), caches: HashMap::new(), buffers })
    }

    /// Returns rows and width of a tensor, as far as it has been computed. A tensor that does not exist has
    /// no rows; the operation that wants it fails, and costs as much as one that moves nothing.
    fn shape(&self, x: ActivationId) -> [usize; 2] {
        self.tensors.get(&x).map_or([0, 1], |tensor| [tensor.rows(), tensor.width])
    }

    fn tensor(&self, x: ActivationId) -> Result<&Tensor<B>, Error> {
        self.tensors.get(&x).ok_or_else(|| missing("tensor"))
    }

    /// Copies rows to the layers' input buffer.
    fn input(&mut self, x: ActivationId, rows: Range<usize>) -> Result<(), Error> {
        let from = self.tensors.get(&x).ok_or_else(|| missing("tensor"))?;
        width(from.width, self.model.config.hidden)?;
        from.copy(&self.model.backend, rows, &mut self.buffers.x)
    }

    /// Appends a layer's output to a tensor.
    fn output(&mut self, to: ActivationId) -> Result<(), Error> {
        let hidden = self.model.config.hidden;
        let empty = self.model.backend.buffer(0, hidden)?;
        let rows = std::mem::replace(&mut self.buffers.x, empty);
        self.push(to, hidden, rows)
    }

    /// Appends rows to a tensor.
    fn push(&mut self, to: ActivationId, columns: usize, buffer: B::Buffer) -> Result<(), Error> {
        let tensor = self.tensors.entry(to).or_insert_with(|| Tensor { width: columns, parts: Vec::new() });
        width(columns, tensor.width)?;
        let start = tensor.rows();
        let rows = start..start + self.model.backend.rows(&buffer);
        tensor.parts.push(Part { rows, buffer });
        Ok(())
    }
}

fn width(given: usize, wanted: usize) -> Result<(), Error> {
    if given == wanted {
        return Ok(());
    }
    Err(Error::InvalidBatch(format!("rows of {given} numbers where {wanted} are due")))
}

/// Returns a layer whose attention and feed-forward network follow each other.
fn one_by_one<'a, B: Backend>(layer: Option<&'a Layer<B>>, c: &ModelConfig) -> Result<&'a Layer<B>, Error> {
    let layer = layer.ok_or_else(|| missing("layer"))?;
    if layer.feed_forward.is_beside_attention() {
        return Err(Error::Unsupported(format!(
            "{} layers compute attention and feed-forward network side by side, not one by one",
            c.architecture
        )));
    }
    Ok(layer)
}

/// Returns a weight matrix of a model.
fn matrix<B: Backend>(model: &Transformer<B>, id: TensorId) -> Option<&B::Matrix> {
    let (layer, tensor) = match id {
        TensorId::Embeddings => return Some(&model.embeddings),
        TensorId::Output => return Some(model.output().0),
        TensorId::OutputNorm => return None,
        TensorId::Layer(layer, tensor) => (model.layers.get(layer)?, tensor),
    };
    let linear = layer.attention.linear(tensor).or_else(|| layer.feed_forward.linear(tensor))?;
    Some(&linear.weight)
}

impl<B: Backend> Layerwise for LayerwiseRunner<B> {
    fn upload(
        &mut self,
        slice: &mut Slice<'_>,
        width: usize,
        values: &[f32],
        to: ActivationId,
    ) -> Result<(), Error> {
        let rows = slice.take(values.len() / width.max(1), width, |rows| Work::moved(2 * rows * width));
        let b = &self.model.backend;
        let mut buffer = b.buffer(rows.len(), width)?;
        b.write(&values[rows.start * width..rows.end * width], &mut buffer)?;
        self.push(to, width, buffer)
    }

    fn read(&self, slice: &mut Slice<'_>, x: ActivationId, out: &mut Vec<f32>) -> Result<(), Error> {
        let [whole, width] = self.shape(x);
        let rows = slice.take(whole, width, |rows| Work::moved(2 * rows * width));
        out.reserve_exact((whole - rows.start) * width);
        self.tensor(x)?.read(&self.model.backend, rows, out)
    }

    fn gather(
        &mut self,
        slice: &mut Slice<'_>,
        x: ActivationId,
        rows: &[u32],
        to: ActivationId,
    ) -> Result<(), Error> {
        let [_, width] = self.shape(x);
        let rows = &rows[slice.take(rows.len(), width, |rows| Work::moved(3 * rows * width))];
        let b = &self.model.backend;
        let from = self.tensor(x)?;
        let columns = from.width;
        let buffer = match &from.parts[..] {
            [part] => {
                let mut out = b.buffer(0, columns)?;
                b.gather(&part.buffer, rows, &mut out)?;
                out
            }
            _ => {
                let mut values = Vec::with_capacity(rows.len() * columns);
                for &row in rows {
                    from.read(b, row as usize..row as usize + 1, &mut values)?;
                }
                let mut out = b.buffer(rows.len(), columns)?;
                b.write(&values, &mut out)?;
                out
            }
        };
        self.push(to, columns, buffer)
    }

    fn add(
        &mut self,
        slice: &mut Slice<'_>,
        x: ActivationId,
        other: ActivationId,
        scale: f32,
    ) -> Result<(), Error> {
        let [whole, width] = self.shape(x);
        // Rows that were made together are changed together. They are read, changed and written.
        let part = self.tensors.get(&x).and_then(|tensor| tensor.parts.get(tensor.part(slice.done())?));
        let rows = slice.advance(whole, part.map_or(0..0, |part| part.rows.clone()));
        slice.charge(Work::moved(4 * rows.len() * width));
        let (tensor, added) = (self.tensor(x)?, self.tensor(other)?);
        if tensor.width != added.width || (added.rows() != 1 && added.rows() != tensor.rows()) {
            return Err(Error::InvalidBatch("tensors of other shapes can't be added".into()));
        }
        let at = tensor.part(rows.start).filter(|&at| tensor.parts[at].rows == rows);
        let at = at.ok_or_else(|| missing("part of a tensor"))?;
        // Rare and small, so no backend has an operation for it.
        let b = &self.model.backend;
        let (mut values, mut terms) = (Vec::with_capacity(rows.len() * tensor.width), Vec::new());
        tensor.read(b, rows.clone(), &mut values)?;
        added.read(b, if added.rows() == 1 { 0..1 } else { rows }, &mut terms)?;
        for row in values.chunks_exact_mut(terms.len().max(1)) {
            row.iter_mut().zip(&terms).for_each(|(value, added)| *value += added * scale);
        }
        let tensor = self.tensors.get_mut(&x).ok_or_else(|| missing("tensor"))?;
        Ok(self.model.backend.write(&values, &mut tensor.parts[at].buffer)?)
    }

    fn embed(&mut self, slice: &mut Slice<'_>, tokens: &[u32], to: ActivationId) -> Result<(), Error> {
        let (b, c) = (&self.model.backend, &self.model.config);
        let tokens = &tokens[slice.take(tokens.len(), c.hidden, |rows| Work::moved(2 * rows * c.hidden))];
        let mut out = b.buffer(0, c.hidden)?;
        b.embed(&self.model.embeddings, tokens, c.embedding_scale, &mut out)?;
        self.push(to, c.hidden, out)
    }

    fn attention(
        &mut self,
        slice: &mut Slice<'_>,
        layer: usize,
        x: ActivationId,
        rows: usize,
        cache: CacheId,
        to: ActivationId,
    ) -> Result<(), Error> {
        let seen = self.caches.get(&cache).and_then(|cached| cached.lens.get(layer)).copied().unwrap_or(0);
        let work = |rows| self.work.attention(layer, seen, rows);
        let rows = slice.take(rows, self.model.config.hidden, work);
        let new = rows.len();
        self.input(x, rows)?;
        let Self { model, caches, buffers, .. } = self;
        let (b, c) = (&*model.backend, &model.config);
        let weights = one_by_one(model.layers.get(layer), c)?;
        let cached = caches.get_mut(&cache).ok_or_else(|| missing("cache"))?;
        let len = cached.lens[layer];
        let room = cached.tables.first().map_or(0, |table| table.len() * PAGE_TOKENS);
        if len + new > room {
            return Err(Error::InvalidBatch(format!("{len} and {new} tokens in a cache for {room}")));
        }
        let mut batch = Batch::default();
        // After the embedding, the batch's tokens are not read.
        batch.push(&vec![0; new], len, &cached.tables, Want::Nothing);
        rotate(b, &model.ropes, &batch.positions, &mut buffers.rotations)?;
        let adapters = HashMap::new();
        let active = Active::new(&adapters, &batch);
        weights.attention.attend(b, c, layer, &batch, &mut cached.cache, buffers, &active)?;
        weights.attention.output(b, c, layer, buffers, &active)?;
        cached.lens[layer] += new;
        self.output(to)
    }

    fn feed_forward(
        &mut self,
        slice: &mut Slice<'_>,
        layer: usize,
        x: ActivationId,
        rows: usize,
        to: ActivationId,
    ) -> Result<(), Error> {
        let rows = slice.take(rows, self.model.config.hidden, |rows| self.work.feed_forward(layer, rows));
        self.input(x, rows)?;
        let Self { model, buffers, .. } = self;
        let weights = one_by_one(model.layers.get(layer), &model.config)?;
        let adapters = HashMap::new();
        let active = Active::new(&adapters, &Batch::default());
        weights.feed_forward.run(&*model.backend, &model.config, layer, buffers, &active)?;
        self.output(to)
    }

    fn matmul(
        &mut self,
        slice: &mut Slice<'_>,
        weight: &str,
        x: ActivationId,
        rows: usize,
        to: ActivationId,
    ) -> Result<(), Error> {
        let model = Arc::clone(&self.model);
        let id = TensorId::from_gguf(weight).ok_or_else(|| missing("weight"))?;
        let [outputs, inputs] = model.config.shape_of(id).ok_or_else(|| missing("weight"))?;
        let rows = slice.take(rows, outputs, |rows| self.work.matmul(rows, [outputs, inputs]));
        let matrix = matrix(&model, id).ok_or_else(|| missing("weight"))?;
        let b = &model.backend;
        let from = self.tensor(x)?;
        width(from.width, inputs)?;
        let mut out = b.buffer(rows.len(), outputs)?;
        let job = MatMul { weight: matrix, bias: None, out: &mut out, accumulate: false, lora: &[] };
        match &from.parts[..] {
            [part] if part.rows == rows => b.matmul(&part.buffer, &mut [job])?,
            _ => {
                let mut some = b.buffer(0, inputs)?;
                from.copy(b, rows, &mut some)?;
                b.matmul(&some, &mut [job])?;
            }
        }
        self.push(to, outputs, out)
    }

    fn logits(
        &mut self,
        slice: &mut Slice<'_>,
        x: ActivationId,
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let (whole, vocab) = (rows, self.work.vocab());
        let rows = slice.take(whole, vocab, |rows| self.work.logits(rows));
        out.reserve_exact((whole - rows.start) * vocab);
        self.input(x, rows)?;
        let Self { model, buffers, .. } = self;
        let (b, c) = (&*model.backend, &model.config);
        b.norm(&buffers.x, &model.output_norm.norm(c), &mut buffers.normed)?;
        logits(model, &buffers.normed, &[], &mut buffers.logits)?;
        append(b, &buffers.logits, out)
    }

    fn open_cache(&mut self, slice: &mut Slice<'_>, tokens: usize, to: CacheId) -> Result<(), Error> {
        // The cache's memory is taken when it is written to. Its tables take one number for each page.
        slice.charge(Work::moved(tokens));
        let layout = self.model.config.cache_layout();
        let (pages, groups) = (tokens.div_ceil(PAGE_TOKENS), layout.groups());
        let table = |group: usize| (0..pages).map(|page| (group * pages + page) as u32).collect();
        let tables = (0..groups).map(table).collect();
        let spec = CacheSpec { layout, pages: pages * groups, kind: self.kind };
        let cache = self.model.backend.cache(&spec)?;
        let lens = vec![0; self.model.config.layers.len()];
        self.caches.insert(to, Cached { cache, lens, tables });
        Ok(())
    }

    fn truncate_cache(&mut self, slice: &mut Slice<'_>, cache: CacheId, len: usize) -> Result<(), Error> {
        slice.charge(Work::command(0));
        if let Some(cached) = self.caches.get_mut(&cache) {
            cached.lens.iter_mut().for_each(|layer| *layer = len.min(*layer));
        }
        Ok(())
    }

    fn free_cache(&mut self, slice: &mut Slice<'_>, cache: CacheId) -> Result<(), Error> {
        slice.charge(Work::command(0));
        self.caches.remove(&cache);
        Ok(())
    }

    fn free(&mut self, slice: &mut Slice<'_>, x: ActivationId) -> Result<(), Error> {
        let [rows, width] = self.shape(x);
        // Freeing memory takes less time than allocating it.
        slice.charge(Work::command(rows * width / 8));
        self.discard(x);
        Ok(())
    }

    fn discard(&mut self, x: ActivationId) {
        self.tensors.remove(&x);
    }
}
