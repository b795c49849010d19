//! The forward pass of every architecture.

use std::sync::Arc;

use realm_compute::{Attention, Backend, Batch, CacheSpec, CacheType, LayerCache, MatMul, PAGE_TOKENS};

use crate::weights::{Layer, Linear, Transformer};
use crate::{Error, ModelConfig};

/// Runs batches over one KV cache: the object-safe face of a [`Runner`].
pub trait Forward: Send {
    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// Pages of the KV cache.
    fn pages(&self) -> usize;

    /// Runs a batch and returns the logits of its output rows, `[outputs, vocab]`. The keys and values of all rows
    /// are in the cache afterwards.
    fn forward(&mut self, batch: &Batch) -> Result<&[f32], Error>;

    /// Copies page `from` over page `to`.
    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), Error>;
}

/// A KV cache and work buffers for one thread.
pub struct Runner<B: Backend> {
    model: Arc<Transformer<B>>,
    cache: B::Cache,
    pages: usize,
    buffers: Buffers<B>,
    logits: Vec<f32>,
}

struct Buffers<B: Backend> {
    /// The residual stream, and its rows that matter at the end.
    x: B::Buffer,
    x_out: B::Buffer,
    normed: B::Buffer,
    q: B::Buffer,
    k: B::Buffer,
    v: B::Buffer,
    attended: B::Buffer,
    attended_out: B::Buffer,
    delta: B::Buffer,
    gate: B::Buffer,
    up: B::Buffer,
    rotations: B::Buffer,
    rotations_local: B::Buffer,
    logits: B::Buffer,
}

impl<B: Backend> Buffers<B> {
    fn new(b: &B, c: &ModelConfig) -> Result<Self, Error> {
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        Ok(Self {
            x: b.buffer(0, c.hidden)?,
            x_out: b.buffer(0, c.hidden)?,
            normed: b.buffer(0, c.hidden)?,
            q: b.buffer(0, q)?,
            k: b.buffer(0, kv)?,
            v: b.buffer(0, kv)?,
            attended: b.buffer(0, q)?,
            attended_out: b.buffer(0, q)?,
            delta: b.buffer(0, c.hidden)?,
            gate: b.buffer(0, c.feed_forward)?,
            up: b.buffer(0, c.feed_forward)?,
            rotations: b.buffer(0, c.rope_dim)?,
            rotations_local: b.buffer(0, c.rope_dim)?,
            logits: b.buffer(0, c.vocab)?,
        })
    }
}

impl<B: Backend> Runner<B> {
    /// A cache of `pages` pages of [`PAGE_TOKENS`] tokens.
    pub fn new(model: Arc<Transformer<B>>, pages: usize, kind: CacheType) -> Result<Self, Error> {
        let cache = model.backend.cache(&Self::cache_spec(&model, pages, kind))?;
        let buffers = Buffers::new(&*model.backend, &model.config)?;
        Ok(Self { model, cache, pages, buffers, logits: Vec::new() })
    }

    pub(crate) fn cache_spec(model: &Transformer<B>, pages: usize, kind: CacheType) -> CacheSpec {
        let c = &model.config;
        let layer = LayerCache { kv_heads: c.kv_heads, head_dim: c.head_dim };
        CacheSpec { layers: vec![layer; c.layers], pages, kind }
    }

    /// Checks everything in a batch that a kernel would otherwise trust.
    fn check(&self, batch: &Batch) -> Result<(), Error> {
        let bad = |why: String| Err(Error::InvalidBatch(why));
        let rows = batch.rows();
        if batch.positions.len() != rows {
            return bad(format!("{} positions for {rows} rows", batch.positions.len()));
        }
        let vocab = self.model.config.vocab;
        if let Some(token) = batch.tokens.iter().find(|&&t| t as usize >= vocab) {
            return bad(format!("token {token} of a vocabulary of {vocab}"));
        }
        let mut next = 0;
        for span in &batch.spans {
            if span.rows.start != next || span.rows.is_empty() || span.rows.end > rows {
                return bad(format!("rows {:?} where rows from {next} are due", span.rows));
            }
            next = span.rows.end;
            let positions = &batch.positions[span.rows.clone()];
            if positions.windows(2).any(|p| p[1] != p[0].wrapping_add(1)) {
                return bad(format!("positions in rows {:?} are not consecutive", span.rows));
            }
            let last = positions[positions.len() - 1] as usize;
            if last / PAGE_TOKENS >= span.pages.len() {
                return bad(format!("position {last} is beyond {} pages", span.pages.len()));
            }
            if let Some(page) = span.pages.iter().find(|&&p| p as usize >= self.pages) {
                return bad(format!("page {page} of {}", self.pages));
            }
        }
        if next != rows {
            return bad(format!("rows from {next} of {rows} belong to no sequence"));
        }
        if batch.outputs.windows(2).any(|o| o[0] >= o[1])
            || batch.outputs.last().is_some_and(|&o| o as usize >= rows)
        {
            return bad("output rows are not ascending rows of the batch".into());
        }
        Ok(())
    }

    fn run(&mut self, batch: &Batch) -> Result<(), Error> {
        let Self { model, cache, buffers, .. } = self;
        let (b, c) = (&*model.backend, &model.config);
        let scale = if c.architecture.traits().scaled_embeddings { (c.hidden as f32).sqrt() } else { 1.0 };
        b.embed(&model.embeddings, &batch.tokens, scale, &mut buffers.x)?;
        b.rotations(&model.rope, &batch.positions, &mut buffers.rotations)?;
        if let Some(rope) = &model.rope_local {
            b.rotations(rope, &batch.positions, &mut buffers.rotations_local)?;
        }
        for (i, layer) in model.layers.iter().enumerate() {
            attention(b, c, i, layer, batch, cache, buffers, model.rope_local.is_some())?;
            // Keys and values of the last layer are stored: from here on only the output rows matter.
            if i + 1 == model.layers.len() {
                b.gather(&buffers.x, &batch.outputs, &mut buffers.x_out)?;
                b.gather(&buffers.attended, &batch.outputs, &mut buffers.attended_out)?;
                std::mem::swap(&mut buffers.x, &mut buffers.x_out);
                std::mem::swap(&mut buffers.attended, &mut buffers.attended_out);
            }
            if batch.outputs.is_empty() && i + 1 == model.layers.len() {
                break;
            }
            feed_forward(b, c, layer, buffers)?;
        }
        if !batch.outputs.is_empty() {
            b.rms_norm(&buffers.x, &model.output_norm, c.rms_eps, &mut buffers.normed)?;
            let output = model.output.as_ref().unwrap_or(&model.embeddings);
            let job = MatMul { weight: output, bias: None, out: &mut buffers.logits, accumulate: false };
            b.matmul(&buffers.normed, &mut [job])?;
            if let Some(cap) = c.final_soft_cap {
                b.soft_cap(&mut buffers.logits, cap)?;
            }
        }
        Ok(())
    }
}

/// From the residual stream to the heads' outputs in `attended`.
#[allow(clippy::too_many_arguments, reason = "a step of the pass, not an interface")]
fn attention<B: Backend>(
    b: &B,
    c: &ModelConfig,
    index: usize,
    layer: &Layer<B>,
    batch: &Batch,
    cache: &mut B::Cache,
    buffers: &mut Buffers<B>,
    local_rope: bool,
) -> Result<(), Error> {
    let Buffers { x, normed, q, k, v, attended, rotations, rotations_local, .. } = buffers;
    b.rms_norm(x, &layer.attention_norm, c.rms_eps, normed)?;
    b.matmul(normed, &mut [job(&layer.q, q), job(&layer.k, k), job(&layer.v, v)])?;
    let spec = Attention {
        layer: index,
        heads: c.heads,
        kv_heads: c.kv_heads,
        head_dim: c.head_dim,
        q_norm: layer.q_norm.as_ref(),
        k_norm: layer.k_norm.as_ref(),
        eps: c.rms_eps,
        rotations: if layer.window.is_some() && local_rope { rotations_local } else { rotations },
        style: c.architecture.traits().style,
        scale: c.attention_scale,
        window: layer.window,
        soft_cap: c.attention_soft_cap,
    };
    b.rope_store(&spec, batch, q, k, v, cache)?;
    b.attention(&spec, batch, q, cache, attended)?;
    Ok(())
}

/// Adds attention's output and the feed-forward network's to the residual stream.
fn feed_forward<B: Backend>(
    b: &B,
    c: &ModelConfig,
    layer: &Layer<B>,
    buffers: &mut Buffers<B>,
) -> Result<(), Error> {
    let Buffers { x, normed, attended, delta, gate, up, .. } = buffers;
    add(b, c, attended, &layer.attention_output, layer.post_attention_norm.as_ref(), delta, x)?;
    b.rms_norm(x, &layer.feed_forward_norm, c.rms_eps, normed)?;
    b.matmul(normed, &mut [job(&layer.gate, gate), job(&layer.up, up)])?;
    b.gated(c.architecture.traits().activation, gate, up)?;
    add(b, c, gate, &layer.down, layer.post_feed_forward_norm.as_ref(), delta, x)
}

/// `x += norm(linear(input))`, or without a norm `x += linear(input)`.
fn add<B: Backend>(
    b: &B,
    c: &ModelConfig,
    input: &B::Buffer,
    linear: &Linear<B>,
    norm: Option<&B::Vector>,
    delta: &mut B::Buffer,
    x: &mut B::Buffer,
) -> Result<(), Error> {
    match norm {
        None => b.matmul(input, &mut [MatMul { accumulate: true, ..job(linear, x) }])?,
        Some(norm) => {
            b.matmul(input, &mut [job(linear, delta)])?;
            b.add_rms_norm(x, delta, norm, c.rms_eps)?;
        }
    }
    Ok(())
}

fn job<'a, B: Backend>(linear: &'a Linear<B>, out: &'a mut B::Buffer) -> MatMul<'a, B> {
    MatMul { weight: &linear.weight, bias: linear.bias.as_ref(), out, accumulate: false }
}

impl<B: Backend> Forward for Runner<B> {
    fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    fn pages(&self) -> usize {
        self.pages
    }

    fn forward(&mut self, batch: &Batch) -> Result<&[f32], Error> {
        self.check(batch)?;
        if batch.rows() == 0 {
            return Ok(&[]);
        }
        self.run(batch)?;
        if batch.outputs.is_empty() {
            return Ok(&[]);
        }
        Ok(self.model.backend.read(&self.buffers.logits, &mut self.logits)?)
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), Error> {
        Ok(self.model.backend.copy_page(&mut self.cache, from, to)?)
    }
}
