//! The forward pass in pieces, for programs that put it together themselves.

use std::collections::HashMap;
use std::sync::Arc;

use realm_compute::{Backend, Batch, CacheSpec, CacheType, MatMul, PAGE_TOKENS, Want};

use crate::adapter::Active;
use crate::transformer::{Buffers, attention, attention_output, feed_forward, rotate};
use crate::weights::Transformer;
use crate::{Error, ModelConfig};

/// A tensor or a cache, by the number that whoever asked for it gave.
pub type PieceId = u64;

/// Tensors, caches of keys and values, and what can be computed with them: the object-safe face of a [`PieceRunner`].
/// A tensor is made under a number of the caller's; making another one under it replaces the first. Tensors are
/// `[rows, width]`.
pub trait Pieces: Send {
    /// Makes a tensor of values, row by row.
    fn upload(&mut self, to: PieceId, width: usize, values: &[f32]) -> Result<(), Error>;

    /// A tensor's values, row by row.
    fn read(&self, x: PieceId) -> Result<Vec<f32>, Error>;

    /// Some of a tensor's rows.
    fn gather(&mut self, x: PieceId, rows: &[u32], to: PieceId) -> Result<(), Error>;

    /// `x += other * scale`; an `other` of one row is added to every row.
    fn add(&mut self, x: PieceId, other: PieceId, scale: f32) -> Result<(), Error>;

    /// What the first layer takes for tokens, `[tokens, hidden]`.
    fn embed(&mut self, tokens: &[u32], to: PieceId) -> Result<(), Error>;

    /// A layer's attention with its norm, projections and residual connection, `[rows, hidden]`. The rows' keys and values
    /// come after those that the cache has of this layer.
    fn attention(&mut self, layer: usize, x: PieceId, cache: PieceId, to: PieceId) -> Result<(), Error>;

    /// A layer's feed-forward network with its norm and residual connection, `[rows, hidden]`.
    fn feed_forward(&mut self, layer: usize, x: PieceId, to: PieceId) -> Result<(), Error>;

    /// The product with a weight matrix, named as in a GGUF file, without its bias.
    fn matmul(&mut self, weight: &str, x: PieceId, to: PieceId) -> Result<(), Error>;

    /// Output norm and output matrix, `[rows, vocab]`, row by row.
    fn logits(&mut self, x: PieceId) -> Result<Vec<f32>, Error>;

    /// Makes an empty cache for `tokens` tokens.
    fn open_cache(&mut self, cache: PieceId, tokens: usize) -> Result<(), Error>;

    /// Forgets tokens from the `len`th on, in all layers.
    fn truncate_cache(&mut self, cache: PieceId, len: usize);

    /// Frees a tensor or a cache.
    fn free(&mut self, piece: PieceId);
}

/// Outputs and inputs of a weight matrix, named as in a GGUF file; `None` if a model of this shape has none of that name.
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

/// Layer and part of a name such as `blk.0.attn_q.weight`.
fn split(weight: &str) -> Option<(usize, &str)> {
    let (layer, part) = weight.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// Computes pieces for one thread.
pub struct PieceRunner<B: Backend> {
    model: Arc<Transformer<B>>,
    kind: CacheType,
    tensors: HashMap<PieceId, B::Buffer>,
    caches: HashMap<PieceId, Cached<B>>,
    buffers: Buffers<B>,
}

struct Cached<B: Backend> {
    cache: B::Cache,
    /// Tokens that it holds of each layer.
    lens: Vec<usize>,
    /// Page tables of the layers' groups: every page in its place.
    tables: Vec<Vec<u32>>,
}

impl<B: Backend> PieceRunner<B> {
    /// Nothing yet. Caches hold numbers as `kind`.
    pub fn new(model: Arc<Transformer<B>>, kind: CacheType) -> Result<Self, Error> {
        let buffers = Buffers::new(&*model.backend, &model.config)?;
        Ok(Self { model, kind, tensors: HashMap::new(), caches: HashMap::new(), buffers })
    }

    fn tensor(&self, x: PieceId) -> Result<&B::Buffer, Error> {
        self.tensors.get(&x).ok_or_else(|| missing("tensor"))
    }

    /// Copies a tensor to where layers take their input from.
    fn input(&mut self, x: PieceId) -> Result<usize, Error> {
        let from = self.tensors.get(&x).ok_or_else(|| missing("tensor"))?;
        let rows = self.model.backend.rows(from);
        self.model.backend.gather(from, &all(rows), &mut self.buffers.x)?;
        Ok(rows)
    }

    /// Takes what a layer left, for a tensor.
    fn output(&mut self, to: PieceId) -> Result<(), Error> {
        let empty = self.model.backend.buffer(0, self.model.config.hidden)?;
        self.tensors.insert(to, std::mem::replace(&mut self.buffers.x, empty));
        Ok(())
    }
}

fn missing(what: &str) -> Error {
    Error::InvalidBatch(format!("there is no such {what}"))
}

fn all(rows: usize) -> Vec<u32> {
    (0..rows as u32).collect()
}

impl<B: Backend> Pieces for PieceRunner<B> {
    fn upload(&mut self, to: PieceId, width: usize, values: &[f32]) -> Result<(), Error> {
        let b = &self.model.backend;
        let mut buffer = b.buffer(values.len() / width.max(1), width)?;
        b.write(values, &mut buffer)?;
        self.tensors.insert(to, buffer);
        Ok(())
    }

    fn read(&self, x: PieceId) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        self.model.backend.read(self.tensor(x)?, &mut values)?;
        Ok(values)
    }

    fn gather(&mut self, x: PieceId, rows: &[u32], to: PieceId) -> Result<(), Error> {
        let b = &self.model.backend;
        let from = self.tensor(x)?;
        let mut out = b.buffer(0, b.columns(from))?;
        b.gather(from, rows, &mut out)?;
        self.tensors.insert(to, out);
        Ok(())
    }

    fn add(&mut self, x: PieceId, other: PieceId, scale: f32) -> Result<(), Error> {
        // Rare and small: no backend needs an operation for it.
        let (mut values, added) = (self.read(x)?, self.read(other)?);
        if added.is_empty() || !values.len().is_multiple_of(added.len()) {
            return Err(Error::InvalidBatch("tensors of other shapes can't be added".into()));
        }
        for row in values.chunks_exact_mut(added.len()) {
            row.iter_mut().zip(&added).for_each(|(value, added)| *value += added * scale);
        }
        let buffer = self.tensors.get_mut(&x).ok_or_else(|| missing("tensor"))?;
        Ok(self.model.backend.write(&values, buffer)?)
    }

    fn embed(&mut self, tokens: &[u32], to: PieceId) -> Result<(), Error> {
        let (b, c) = (&self.model.backend, &self.model.config);
        let mut out = b.buffer(0, c.hidden)?;
        b.embed(&self.model.embeddings, tokens, c.embedding_scale(), &mut out)?;
        self.tensors.insert(to, out);
        Ok(())
    }

    fn attention(&mut self, layer: usize, x: PieceId, cache: PieceId, to: PieceId) -> Result<(), Error> {
        let rows = self.input(x)?;
        let Self { model, caches, buffers, .. } = self;
        let (b, c) = (&*model.backend, &model.config);
        let weights = model.layers.get(layer).ok_or_else(|| missing("layer"))?;
        let cached = caches.get_mut(&cache).ok_or_else(|| missing("cache"))?;
        let len = cached.lens[layer];
        let room = cached.tables.first().map_or(0, |table| table.len() * PAGE_TOKENS);
        if len + rows > room {
            return Err(Error::InvalidBatch(format!("{len} and {rows} tokens in a cache for {room}")));
        }
        let mut batch = Batch::default();
        // Tokens are not looked at after the embedding.
        batch.push(&vec![0; rows], len, &cached.tables, Want::Nothing);
        rotate(b, &model.rope, &batch.positions, &mut buffers.rotations)?;
        if let Some(rope) = &model.rope_local {
            rotate(b, rope, &batch.positions, &mut buffers.rotations_local)?;
        }
        let adapters = HashMap::new();
        let active = Active::new(&adapters, &batch);
        let local_rope = model.rope_local.is_some();
        attention(b, c, layer, weights, &batch, &mut cached.cache, buffers, local_rope, &active)?;
        attention_output(b, c, layer, weights, buffers, &active)?;
        cached.lens[layer] += rows;
        self.output(to)
    }

    fn feed_forward(&mut self, layer: usize, x: PieceId, to: PieceId) -> Result<(), Error> {
        self.input(x)?;
        let Self { model, buffers, .. } = self;
        let weights = model.layers.get(layer).ok_or_else(|| missing("layer"))?;
        let adapters = HashMap::new();
        let active = Active::new(&adapters, &Batch::default());
        feed_forward(&*model.backend, &model.config, layer, weights, buffers, &active)?;
        self.output(to)
    }

    fn matmul(&mut self, weight: &str, x: PieceId, to: PieceId) -> Result<(), Error> {
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
        if b.columns(from) != inputs {
            return Err(Error::InvalidBatch(format!("rows of {} for a weight of {inputs}", b.columns(from))));
        }
        let mut out = b.buffer(b.rows(from), outputs)?;
        b.matmul(
            from,
            &mut [MatMul { weight: matrix, bias: None, out: &mut out, accumulate: false, lora: &[] }],
        )?;
        self.tensors.insert(to, out);
        Ok(())
    }

    fn logits(&mut self, x: PieceId) -> Result<Vec<f32>, Error> {
        self.input(x)?;
        let Self { model, buffers, .. } = self;
        let (b, c) = (&*model.backend, &model.config);
        b.rms_norm(&buffers.x, &model.output_norm, c.rms_eps, &mut buffers.normed)?;
        let weight = model.output.as_ref().unwrap_or(&model.embeddings);
        let job = MatMul { weight, bias: None, out: &mut buffers.logits, accumulate: false, lora: &[] };
        b.matmul(&buffers.normed, &mut [job])?;
        if let Some(cap) = c.final_soft_cap {
            b.soft_cap(&mut buffers.logits, cap)?;
        }
        let mut values = Vec::new();
        b.read(&buffers.logits, &mut values)?;
        Ok(values)
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
