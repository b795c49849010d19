//! The forward pass in single operations, for programs that combine them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use realm_compute::{Backend, Batch, CacheSpec, CacheType, MatMul, PAGE_TOKENS, Want};

use crate::adapter::Active;
use crate::transformer::{Buffers, attention, attention_output, feed_forward, rotate};
use crate::weights::Transformer;
use crate::{Error, ModelConfig};

/// The number of a tensor or a cache, chosen by the caller.
pub type PieceId = u64;

/// Tensors, caches of keys and values, and operations on them: the object-safe interface of a
/// [`PieceRunner`]. Tensors are `[rows, width]`.
///
/// Every operation takes some rows and can be split into several calls of fewer rows, so that a long
/// operation does not delay other requests. Its result is appended to the rows of the tensor `to`, which the
/// first call creates. A row's result does not depend on the number of rows computed at once.
pub trait Pieces: Send {
    /// Returns rows and width of a tensor, as far as it has been computed; `None` if there is no tensor with
    /// this number.
    fn shape(&self, x: PieceId) -> Option<[usize; 2]>;

    /// Returns the rows that were made in one call together with row `row`, which [`add`](Self::add) takes.
    fn made_with(&self, x: PieceId, row: usize) -> Option<Range<usize>>;

    /// Appends rows of values to a tensor.
    fn upload(&mut self, to: PieceId, width: usize, values: &[f32]) -> Result<(), Error>;

    /// Appends the values of some of a tensor's rows to `out`, row by row.
    fn read(&self, x: PieceId, rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), Error>;

    /// Appends some of a tensor's rows to another tensor.
    fn gather(&mut self, x: PieceId, rows: &[u32], to: PieceId) -> Result<(), Error>;

    /// `x += other * scale` in rows that were [made together](Self::made_with); an `other` of one row is
    /// added to every row.
    fn add(&mut self, x: PieceId, rows: Range<usize>, other: PieceId, scale: f32) -> Result<(), Error>;

    /// Appends the embeddings of tokens, `[tokens, hidden]`, the first layer's input.
    fn embed(&mut self, tokens: &[u32], to: PieceId) -> Result<(), Error>;

    /// Computes a layer's attention with its norm, projections and residual connection, `[rows, hidden]`. The
    /// rows' keys and values are appended to the cache of this layer.
    fn attention(
        &mut self,
        layer: usize,
        x: PieceId,
        rows: Range<usize>,
        cache: PieceId,
        to: PieceId,
    ) -> Result<(), Error>;

    /// Computes a layer's feed-forward network with its norm and residual connection, `[rows, hidden]`.
    fn feed_forward(
        &mut self,
        layer: usize,
        x: PieceId,
        rows: Range<usize>,
        to: PieceId,
    ) -> Result<(), Error>;

    /// Computes the product with a weight matrix, named as in a GGUF file, without its bias.
    fn matmul(&mut self, weight: &str, x: PieceId, rows: Range<usize>, to: PieceId) -> Result<(), Error>;

    /// Computes output norm and output matrix, `[rows, vocab]`, and appends the logits to `out`, row by row.
    fn logits(&mut self, x: PieceId, rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), Error>;

    /// Makes an empty cache for `tokens` tokens.
    fn open_cache(&mut self, cache: PieceId, tokens: usize) -> Result<(), Error>;

    /// Returns the number of a layer's tokens in a cache.
    fn cached(&self, cache: PieceId, layer: usize) -> usize;

    /// Drops tokens from the `len`th on, in all layers.
    fn truncate_cache(&mut self, cache: PieceId, len: usize);

    /// Frees a tensor or a cache.
    fn free(&mut self, piece: PieceId);
}

/// Returns outputs and inputs of a weight matrix, named as in a GGUF file; `None` if a model of this shape
/// has no such matrix.
pub(crate) fn shape_of(config: &ModelConfig, weight: &str) -> Option<[usize; 2]> {
    let c = config;
    let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    if matches!(weight, "token_embd.weight" | "output.weight") {
        return Some([c.vocab, c.hidden]);
    }
    let (_, part) = split(weight).filter(|&(layer, _)| layer < c.layers)?;
    match part {
        "attn_q" => Some([q, c.hidden]),
        "attn_k" | "attn_v" => Some([kv, c.hidden]),
        "attn_output" => Some([c.hidden, q]),
        "ffn_gate" | "ffn_up" => Some([c.feed_forward, c.hidden]),
        "ffn_down" => Some([c.hidden, c.feed_forward]),
        _ => None,
    }
}

/// Splits a name such as `blk.0.attn_q.weight` into layer and part.
fn split(weight: &str) -> Option<(usize, &str)> {
    let (layer, part) = weight.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// Runs the operations of [`Pieces`] on one thread.
pub struct PieceRunner<B: Backend> {
    model: Arc<Transformer<B>>,
    kind: CacheType,
    tensors: HashMap<PieceId, Tensor<B>>,
    caches: HashMap<PieceId, Cached<B>>,
    buffers: Buffers<B>,
}

/// A tensor: one buffer for each call that appended rows.
struct Tensor<B: Backend> {
    width: usize,
    parts: Vec<Part<B>>,
}

struct Part<B: Backend> {
    rows: Range<usize>,
    buffer: B::Buffer,
}

impl<B: Backend> Tensor<B> {
    fn rows(&self) -> usize {
        self.parts.last().map_or(0, |part| part.rows.end)
    }

    /// Index of the buffer that has a row.
    fn part(&self, row: usize) -> Option<usize> {
        let at = self.parts.partition_point(|part| part.rows.end <= row);
        (at < self.parts.len()).then_some(at)
    }

    /// Returns the buffer that has all of these rows, and their range in it.
    fn within(&self, rows: &Range<usize>) -> Option<(&B::Buffer, Range<usize>)> {
        let part = &self.parts[self.part(rows.start)?];
        let (start, end) = (rows.start - part.rows.start, rows.end - part.rows.start);
        (rows.end <= part.rows.end).then_some((&part.buffer, start..end))
    }

    /// Appends rows' values to `out`.
    fn read(&self, b: &B, rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), Error> {
        let mut row = rows.start;
        while row < rows.end {
            let part = self.part(row).and_then(|at| self.parts.get(at)).ok_or_else(|| missing("row"))?;
            let end = rows.end.min(part.rows.end);
            let (from, to) = (row - part.rows.start, end - part.rows.start);
            if let Some(host) = b.host(&part.buffer) {
                out.extend_from_slice(&host[from * self.width..to * self.width]);
            } else if to - from == part.rows.len() {
                append(b, &part.buffer, out)?;
            } else {
                let mut some = b.buffer(0, self.width)?;
                b.gather(&part.buffer, &range(from..to), &mut some)?;
                append(b, &some, out)?;
            }
            row = end;
        }
        Ok(())
    }

    /// Copies rows to a buffer of their own.
    fn copy(&self, b: &B, rows: Range<usize>, out: &mut B::Buffer) -> Result<(), Error> {
        match self.within(&rows) {
            Some((buffer, rows)) => b.gather(buffer, &range(rows), out)?,
            None => {
                let mut values = Vec::new();
                self.read(b, rows.clone(), &mut values)?;
                *out = b.buffer(rows.len(), self.width)?;
                b.write(&values, out)?;
            }
        }
        Ok(())
    }
}

struct Cached<B: Backend> {
    cache: B::Cache,
    /// Number of tokens that the cache has of each layer.
    lens: Vec<usize>,
    /// Page tables of the layers' groups; every page is at its own index.
    tables: Vec<Vec<u32>>,
}

impl<B: Backend> PieceRunner<B> {
    /// Creates a runner without tensors. Caches hold numbers as `kind`.
    pub fn new(model: Arc<Transformer<B>>, kind: CacheType) -> Result<Self, Error> {
        let buffers = Buffers::new(&*model.backend, &model.config)?;
        Ok(Self { model, kind, tensors: HashMap::new(), caches: HashMap::new(), buffers })
    }

    fn tensor(&self, x: PieceId) -> Result<&Tensor<B>, Error> {
        self.tensors.get(&x).ok_or_else(|| missing("tensor"))
    }

    /// Copies rows to the layers' input buffer.
    fn input(&mut self, x: PieceId, rows: Range<usize>) -> Result<(), Error> {
        let from = self.tensors.get(&x).ok_or_else(|| missing("tensor"))?;
        width(from.width, self.model.config.hidden)?;
        from.copy(&self.model.backend, rows, &mut self.buffers.x)
    }

    /// Appends a layer's output to a tensor.
    fn output(&mut self, to: PieceId) -> Result<(), Error> {
        let hidden = self.model.config.hidden;
        let empty = self.model.backend.buffer(0, hidden)?;
        let rows = std::mem::replace(&mut self.buffers.x, empty);
        self.push(to, hidden, rows)
    }

    /// Appends rows to a tensor.
    fn push(&mut self, to: PieceId, columns: usize, buffer: B::Buffer) -> Result<(), Error> {
        let tensor = self.tensors.entry(to).or_insert_with(|| Tensor { width: columns, parts: Vec::new() });
        width(columns, tensor.width)?;
        let start = tensor.rows();
        let rows = start..start + self.model.backend.rows(&buffer);
        tensor.parts.push(Part { rows, buffer });
        Ok(())
    }
}

fn missing(what: &str) -> Error {
    Error::InvalidBatch(format!("there is no such {what}"))
}

fn width(given: usize, wanted: usize) -> Result<(), Error> {
    if given == wanted {
        return Ok(());
    }
    Err(Error::InvalidBatch(format!("rows of {given} numbers where {wanted} are due")))
}

/// Appends a buffer's values to `out`.
fn append<B: Backend>(b: &B, buffer: &B::Buffer, out: &mut Vec<f32>) -> Result<(), Error> {
    if let Some(host) = b.host(buffer) {
        out.extend_from_slice(host);
        return Ok(());
    }
    let mut values = Vec::new();
    b.read(buffer, &mut values)?;
    out.append(&mut values);
    Ok(())
}

fn range(rows: Range<usize>) -> Vec<u32> {
    (rows.start as u32..rows.end as u32).collect()
}

impl<B: Backend> Pieces for PieceRunner<B> {
    fn shape(&self, x: PieceId) -> Option<[usize; 2]> {
        self.tensors.get(&x).map(|tensor| [tensor.rows(), tensor.width])
    }

    fn made_with(&self, x: PieceId, row: usize) -> Option<Range<usize>> {
        let tensor = self.tensors.get(&x)?;
        Some(tensor.parts[tensor.part(row)?].rows.clone())
    }

    fn upload(&mut self, to: PieceId, width: usize, values: &[f32]) -> Result<(), Error> {
        let b = &self.model.backend;
        let mut buffer = b.buffer(values.len() / width.max(1), width)?;
        b.write(values, &mut buffer)?;
        self.push(to, width, buffer)
    }

    fn read(&self, x: PieceId, rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), Error> {
        self.tensor(x)?.read(&self.model.backend, rows, out)
    }

    fn gather(&mut self, x: PieceId, rows: &[u32], to: PieceId) -> Result<(), Error> {
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

    fn add(&mut self, x: PieceId, rows: Range<usize>, other: PieceId, scale: f32) -> Result<(), Error> {
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

    fn embed(&mut self, tokens: &[u32], to: PieceId) -> Result<(), Error> {
        let (b, c) = (&self.model.backend, &self.model.config);
        let mut out = b.buffer(0, c.hidden)?;
        b.embed(&self.model.embeddings, tokens, c.embedding_scale(), &mut out)?;
        self.push(to, c.hidden, out)
    }

    fn attention(
        &mut self,
        layer: usize,
        x: PieceId,
        rows: Range<usize>,
        cache: PieceId,
        to: PieceId,
    ) -> Result<(), Error> {
        let new = rows.len();
        self.input(x, rows)?;
        let Self { model, caches, buffers, .. } = self;
        let (b, c) = (&*model.backend, &model.config);
        let weights = model.layers.get(layer).ok_or_else(|| missing("layer"))?;
        let cached = caches.get_mut(&cache).ok_or_else(|| missing("cache"))?;
        let len = cached.lens[layer];
        let room = cached.tables.first().map_or(0, |table| table.len() * PAGE_TOKENS);
        if len + new > room {
            return Err(Error::InvalidBatch(format!("{len} and {new} tokens in a cache for {room}")));
        }
        let mut batch = Batch::default();
        // After the embedding, the batch's tokens are not read.
        batch.push(&vec![0; new], len, &cached.tables, Want::Nothing);
        rotate(b, &model.rope, &batch.positions, &mut buffers.rotations)?;
        if let Some(rope) = &model.rope_local {
            rotate(b, rope, &batch.positions, &mut buffers.rotations_local)?;
        }
        let adapters = HashMap::new();
        let active = Active::new(&adapters, &batch);
        let local_rope = model.rope_local.is_some();
        attention(b, c, layer, weights, &batch, &mut cached.cache, buffers, local_rope, &active)?;
        attention_output(b, c, layer, weights, buffers, &active)?;
        cached.lens[layer] += new;
        self.output(to)
    }

    fn feed_forward(
        &mut self,
        layer: usize,
        x: PieceId,
        rows: Range<usize>,
        to: PieceId,
    ) -> Result<(), Error> {
        self.input(x, rows)?;
        let Self { model, buffers, .. } = self;
        let weights = model.layers.get(layer).ok_or_else(|| missing("layer"))?;
        let adapters = HashMap::new();
        let active = Active::new(&adapters, &Batch::default());
        feed_forward(&*model.backend, &model.config, layer, weights, buffers, &active)?;
        self.output(to)
    }

    fn matmul(&mut self, weight: &str, x: PieceId, rows: Range<usize>, to: PieceId) -> Result<(), Error> {
        let model = Arc::clone(&self.model);
        let [outputs, inputs] = shape_of(&model.config, weight).ok_or_else(|| missing("weight"))?;
        let matrix = match weight {
            "token_embd.weight" => &model.embeddings,
            "output.weight" => model.output.as_ref().unwrap_or(&model.embeddings),
            _ => {
                let (index, part) = split(weight).ok_or_else(|| missing("weight"))?;
                let layer = model.layers.get(index).ok_or_else(|| missing("layer"))?;
                let linear = match part {
                    "attn_q" => &layer.q,
                    "attn_k" => &layer.k,
                    "attn_v" => &layer.v,
                    "attn_output" => &layer.attention_output,
                    "ffn_gate" => &layer.gate,
                    "ffn_up" => &layer.up,
                    "ffn_down" => &layer.down,
                    _ => return Err(missing("weight")),
                };
                &linear.weight
            }
        };
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

    fn logits(&mut self, x: PieceId, rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), Error> {
        self.input(x, rows)?;
        let Self { model, buffers, .. } = self;
        let (b, c) = (&*model.backend, &model.config);
        b.rms_norm(&buffers.x, &model.output_norm, c.rms_eps, &mut buffers.normed)?;
        let weight = model.output.as_ref().unwrap_or(&model.embeddings);
        let job = MatMul { weight, bias: None, out: &mut buffers.logits, accumulate: false, lora: &[] };
        b.matmul(&buffers.normed, &mut [job])?;
        if let Some(cap) = c.final_soft_cap {
            b.soft_cap(&mut buffers.logits, cap)?;
        }
        append(b, &buffers.logits, out)
    }

    fn open_cache(&mut self, id: PieceId, tokens: usize) -> Result<(), Error> {
        let layout = self.model.config.cache_layout();
        let (pages, groups) = (tokens.div_ceil(PAGE_TOKENS), layout.groups());
        let table = |group: usize| (0..pages).map(|page| (group * pages + page) as u32).collect();
        let tables = (0..groups).map(table).collect();
        let spec = CacheSpec { layout, pages: pages * groups, kind: self.kind };
        let cache = self.model.backend.cache(&spec)?;
        let lens = vec![0; self.model.config.layers];
        self.caches.insert(id, Cached { cache, lens, tables });
        Ok(())
    }

    fn cached(&self, cache: PieceId, layer: usize) -> usize {
        self.caches.get(&cache).and_then(|cached| cached.lens.get(layer)).copied().unwrap_or(0)
    }

    fn truncate_cache(&mut self, cache: PieceId, len: usize) {
        if let Some(cached) = self.caches.get_mut(&cache) {
            cached.lens.iter_mut().for_each(|layer| *layer = len.min(*layer));
        }
    }

    fn free(&mut self, piece: PieceId) {
        self.tensors.remove(&piece);
        self.caches.remove(&piece);
    }
}
