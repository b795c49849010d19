//! The forward pass, which all architectures share.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use realm_compute::{
    AdapterUse, Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, Lora, MatMul, Norm, NormSpan,
    PAGE_TOKENS, PageFormat, Rope, Window,
};

use crate::adapter::{Active, Adapter, AdapterWeights, Slot};
use crate::kept::{KeptRow, KeptRows, Shelf};
use crate::top_k::TopK;
use crate::weights::{Layer, Linear, Transformer};
use crate::{Error, ModelConfig};

/// Runs batches over one KV cache: the object-safe interface of a [`Runner`].
pub trait Forward: Send + Sync {
    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// Returns how layers share the pages of the KV cache.
    fn layout(&self) -> &CacheLayout;

    /// Number of pages in the KV cache.
    fn pages(&self) -> usize;

    /// Checks rows of one sequence before they go into a batch: `tokens` at positions `past ..` with that
    /// page table for every group of layers, and that adapter. If all rows of a batch pass,
    /// [`start`](Self::start) refuses the batch only for its own structure.
    ///
    /// # Errors
    /// `InvalidBatch` for a token outside the vocabulary, a page that is not in the cache or the page table,
    /// and an adapter that is not loaded.
    fn check_rows(
        &self,
        tokens: &[u32],
        past: usize,
        tables: &[Vec<u32>],
        adapter: Option<AdapterUse>,
    ) -> Result<(), Error>;

    /// Runs a batch. Afterwards the keys and values of all rows are in the cache, and
    /// [`logits`](Self::logits) and [`hidden`](Self::hidden) hold the results that the batch wanted.
    fn forward(&mut self, batch: &Batch) -> Result<(), Error> {
        self.start(batch)?;
        self.finish()
    }

    /// Starts a batch: the first half of [`forward`](Self::forward). If this runner
    /// [overlaps](Self::overlaps), the device is still at work when the call returns.
    fn start(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Waits for the batch and copies the results that it wanted to the host: the second half of
    /// [`forward`](Self::forward).
    fn finish(&mut self) -> Result<(), Error>;

    /// Returns whether the host is free between `start` and `finish`.
    fn overlaps(&self) -> bool;

    /// The logits of the last batch's output rows, `[outputs, vocab]`. Empty if the batch asked only for the
    /// [likeliest](Batch::top_k) tokens and the device has memory of its own.
    fn logits(&self) -> &[f32];

    /// The likeliest tokens of one of the last batch's output rows, if `logits` is empty for them.
    fn top_k(&self, output: usize) -> Option<TopK<'_>>;

    /// Copies the logits of one of the last batch's output rows, `[vocab]`, replacing the contents of `out`.
    /// May be called on the threads of [`on_host_threads`](Self::on_host_threads).
    fn read_logits(&self, output: usize, out: &mut Vec<f32>) -> Result<(), Error>;

    /// Returns a handle that holds one of the last batch's output rows, if the batch asked to
    /// [keep](Batch::keep) them and `logits` is empty for them. Must be called before the next batch.
    fn kept(&self, output: usize) -> Option<Box<dyn KeptRow>>;

    /// The last hidden states, after the output norm, of the last batch's hidden rows,
    /// `[hidden rows, hidden]`.
    fn hidden(&self) -> &[f32];

    /// Copies page `from` over page `to`.
    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), Error>;

    /// Appends a page's contents to `out`; see [`Backend::export_page`].
    fn export_page(&self, page: u32, out: &mut Vec<u8>) -> Result<(), Error>;

    /// Returns the layout of the bytes that `export_page` writes for a page.
    fn page_format(&self) -> PageFormat;

    /// Fills a page with bytes that `export_page` wrote.
    fn import_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), Error>;

    /// Calls `each(i)` for every `i < count` on the backend's host threads.
    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync));

    /// Announces `count` such calls at about the time `at`; see [`Backend::wake_hint`].
    fn wake_hint(&self, count: usize, at: Instant);

    /// Makes spans of adapter `id` use `adapter`, which must have been made for this model; `None` removes
    /// the adapter.
    fn set_adapter(&mut self, id: u32, adapter: Option<Arc<dyn AdapterWeights>>) -> Result<(), Error>;
}

/// Number of runners created so far.
static OWNERS: AtomicU64 = AtomicU64::new(0);

/// A KV cache and work buffers for one thread.
pub struct Runner<B: Backend> {
    model: Arc<Transformer<B>>,
    cache: B::Cache,
    /// Distinguishes this runner's passes from those of others.
    owner: u64,
    layout: CacheLayout,
    pages: usize,
    adapters: HashMap<u32, Arc<Adapter<B>>>,
    buffers: Buffers<B>,
    /// The logits that the last batch wanted, if the device has memory of its own.
    logits: Vec<f32>,
    hidden: Vec<f32>,
    top_k: Vec<f32>,
    /// Rows of logits and of hidden states that the last batch wanted.
    wanted: [usize; 2],
    /// Rows of logits and of hidden states that a started, unfinished batch wants.
    started: [usize; 2],
    /// Set if only the likeliest tokens' logits are on the host.
    top_k_only: bool,
    shelf: Arc<Shelf<B>>,
    /// The last batch's rows of logits, if they are kept.
    kept: Option<Arc<KeptRows<B>>>,
}

pub(crate) struct Buffers<B: Backend> {
    /// The residual stream, and the rows of it that the end of the pass needs.
    pub(crate) x: B::Buffer,
    pub(crate) x_out: B::Buffer,
    pub(crate) normed: B::Buffer,
    /// Rows of `normed` whose logits are wanted, if they are not all rows.
    pub(crate) normed_out: B::Buffer,
    pub(crate) hidden: B::Buffer,
    pub(crate) q: B::Buffer,
    pub(crate) k: B::Buffer,
    pub(crate) v: B::Buffer,
    pub(crate) attended: B::Buffer,
    pub(crate) attended_out: B::Buffer,
    pub(crate) delta: B::Buffer,
    pub(crate) gate: B::Buffer,
    pub(crate) up: B::Buffer,
    pub(crate) rotations: B::Buffer,
    pub(crate) rotations_local: B::Buffer,
    pub(crate) logits: B::Buffer,
    pub(crate) top_k: B::Buffer,
}

impl<B: Backend> Buffers<B> {
    pub(crate) fn new(b: &B, c: &ModelConfig) -> Result<Self, Error> {
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        Ok(Self {
            x: b.buffer(0, c.hidden)?,
            x_out: b.buffer(0, c.hidden)?,
            normed: b.buffer(0, c.hidden)?,
            normed_out: b.buffer(0, c.hidden)?,
            hidden: b.buffer(0, c.hidden)?,
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
            top_k: b.buffer(0, 2 * TopK::MOST)?,
        })
    }
}

impl<B: Backend> Runner<B> {
    /// Creates a runner with a cache of `pages` pages.
    pub fn new(model: Arc<Transformer<B>>, pages: usize, kind: CacheType) -> Result<Self, Error> {
        let layout = model.config.cache_layout();
        let cache = model.backend.cache(&CacheSpec { layout: layout.clone(), pages, kind })?;
        let buffers = Buffers::new(&*model.backend, &model.config)?;
        let shelf = Shelf::new(Arc::clone(&model.backend), model.config.vocab);
        Ok(Self {
            model,
            cache,
            owner: OWNERS.fetch_add(1, Ordering::Relaxed),
            layout,
            pages,
            adapters: HashMap::new(),
            buffers,
            logits: Vec::new(),
            hidden: Vec::new(),
            top_k: Vec::new(),
            wanted: [0; 2],
            started: [0; 2],
            top_k_only: false,
            shelf,
            kept: None,
        })
    }

    /// Checks everything in a batch that the kernels rely on.
    fn check(&self, batch: &Batch) -> Result<(), Error> {
        let bad = |why: String| Err(Error::InvalidBatch(why));
        let rows = batch.rows();
        if batch.positions.len() != rows {
            return bad(format!("{} positions for {rows} rows", batch.positions.len()));
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
            let (tokens, past) = (&batch.tokens[span.rows.clone()], positions[0] as usize);
            self.check_span(tokens, past, |group| batch.table(span, group), span.adapter)?;
        }
        if next != rows {
            return bad(format!("rows from {next} of {rows} belong to no sequence"));
        }
        for (what, wanted) in [("output", &batch.outputs), ("hidden", &batch.hidden)] {
            if wanted.windows(2).any(|o| o[0] >= o[1]) || wanted.last().is_some_and(|&o| o as usize >= rows) {
                return bad(format!("{what} rows are not ascending rows of the batch"));
            }
        }
        Ok(())
    }

    /// Makes the checks of [`Forward::check_rows`].
    fn check_span<'t>(
        &self,
        tokens: &[u32],
        past: usize,
        table: impl Fn(usize) -> &'t [u32],
        adapter: Option<AdapterUse>,
    ) -> Result<(), Error> {
        let bad = |why: String| Err(Error::InvalidBatch(why));
        let vocab = self.model.config.vocab;
        if let Some(token) = tokens.iter().find(|&&t| t as usize >= vocab) {
            return bad(format!("token {token} of a vocabulary of {vocab}"));
        }
        let Some(last) = (past + tokens.len()).checked_sub(1).filter(|&last| last <= u32::MAX as usize)
        else {
            return bad(format!("{} rows at position {past}", tokens.len()));
        };
        for group in 0..self.layout.groups() {
            let (table, first) = (table(group), self.layout.first_page(group, past));
            let Some(seen) = table.get(first..last / PAGE_TOKENS + 1) else {
                return bad(format!("position {last} is beyond {} pages", table.len()));
            };
            if let Some(page) = seen.iter().find(|&&p| p as usize >= self.pages) {
                return bad(format!("page {page} of {}", self.pages));
            }
        }
        let Some(used) = adapter else { return Ok(()) };
        if !self.adapters.contains_key(&used.id) {
            return bad(format!("there is no adapter {}", used.id));
        }
        if !used.scale.is_finite() {
            return bad(format!("adapter {} is scaled by {}", used.id, used.scale));
        }
        Ok(())
    }

    fn run(&mut self, batch: &Batch) -> Result<(), Error> {
        let Self { model, cache, buffers, adapters, .. } = self;
        let mut active = Active::new(adapters, batch);
        let (b, c) = (&*model.backend, &model.config);
        b.embed(&model.embeddings, &batch.tokens, c.embedding_scale(), &mut buffers.x)?;
        rotate(b, &model.rope, &batch.positions, &mut buffers.rotations)?;
        if let Some(rope) = &model.rope_local {
            rotate(b, rope, &batch.positions, &mut buffers.rotations_local)?;
        }
        let (wanted, logits_among, hidden_among) = wanted_rows(batch);
        for (i, layer) in model.layers.iter().enumerate() {
            attention(b, c, i, layer, batch, cache, buffers, model.rope_local.is_some(), &active)?;
            // The last layer's keys and values are stored: from here on only the wanted rows are needed.
            if i + 1 == model.layers.len() {
                if wanted.is_empty() {
                    return Ok(());
                }
                b.gather(&buffers.x, &wanted, &mut buffers.x_out)?;
                b.gather(&buffers.attended, &wanted, &mut buffers.attended_out)?;
                std::mem::swap(&mut buffers.x, &mut buffers.x_out);
                std::mem::swap(&mut buffers.attended, &mut buffers.attended_out);
                active.gather(&wanted);
            }
            attention_output(b, c, i, layer, buffers, &active)?;
            feed_forward(b, c, i, layer, buffers, &active)?;
        }
        b.norm(&buffers.x, &Norm::rms(&model.output_norm, c.rms_eps), &mut buffers.normed)?;
        if !batch.hidden.is_empty() {
            b.gather(&buffers.normed, &hidden_among, &mut buffers.hidden)?;
        }
        if !batch.outputs.is_empty() {
            let mut input = &buffers.normed;
            if batch.outputs.len() < wanted.len() {
                b.gather(input, &logits_among, &mut buffers.normed_out)?;
                input = &buffers.normed_out;
                active.gather(&logits_among);
            }
            let output = model.output.as_ref().unwrap_or(&model.embeddings);
            let (out, lora) = (&mut buffers.logits, active.output());
            let job = MatMul { weight: output, bias: None, out, accumulate: false, lora: &lora };
            b.matmul(input, &mut [job])?;
            if let Some(cap) = c.final_soft_cap {
                b.soft_cap(&mut buffers.logits, cap)?;
            }
            if batch.top_k && b.host(&buffers.logits).is_none() {
                b.top_k(&buffers.logits, &mut buffers.top_k)?;
            }
        }
        Ok(())
    }
}

/// Returns the rows that the last layer has to finish, and the indices among them of the rows of logits and
/// of hidden states.
fn wanted_rows(batch: &Batch) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut wanted = [&batch.outputs[..], &batch.hidden].concat();
    wanted.sort_unstable();
    wanted.dedup();
    let among = |rows: &[u32]| rows.iter().map(|row| wanted.partition_point(|w| w < row) as u32).collect();
    let (logits, hidden) = (among(&batch.outputs), among(&batch.hidden));
    (wanted, logits, hidden)
}

/// Computes the rotations of every position.
pub(crate) fn rotate<B: Backend>(
    b: &B,
    rope: &Rope<B>,
    positions: &[u32],
    out: &mut B::Buffer,
) -> Result<(), Error> {
    Ok(b.rotations(&rope.frequencies, rope.magnitude, positions, out)?)
}

/// Computes the heads' outputs, in `attended`, from the residual stream.
#[allow(clippy::too_many_arguments, reason = "a step of the pass, not an interface")]
pub(crate) fn attention<B: Backend>(
    b: &B,
    c: &ModelConfig,
    index: usize,
    layer: &Layer<B>,
    batch: &Batch,
    cache: &mut B::Cache,
    buffers: &mut Buffers<B>,
    local_rope: bool,
    active: &Active<'_, B>,
) -> Result<(), Error> {
    let Buffers { x, normed, q, k, v, attended, rotations, rotations_local, .. } = buffers;
    b.norm(x, &Norm::rms(&layer.attention_norm, c.rms_eps), normed)?;
    let [lq, lk, lv] = [Slot::Q, Slot::K, Slot::V].map(|slot| active.layer(index, slot));
    b.matmul(normed, &mut [job(&layer.q, &lq, q), job(&layer.k, &lk, k), job(&layer.v, &lv, v)])?;
    let spec = Attention {
        layer: index,
        heads: c.heads,
        kv_heads: c.kv_heads,
        head_dim: c.head_dim,
        q_norm: layer.q_norm.as_ref().map(|norm| Norm::rms(norm, c.rms_eps)),
        k_norm: layer.k_norm.as_ref().map(|norm| Norm::rms(norm, c.rms_eps)),
        norm_span: NormSpan::Head,
        norm_after_rope: false,
        rotations: Some(if layer.window.is_some() && local_rope { rotations_local } else { rotations }),
        style: c.architecture.traits().style,
        temperature: None,
        scale: c.attention_scale,
        window: layer.window.map(Window::Sliding),
        soft_cap: c.attention_soft_cap,
        sinks: None,
    };
    b.rope_store(&spec, batch, q, k, v, cache)?;
    b.attention(&spec, batch, q, cache, attended)?;
    Ok(())
}

/// Adds attention's output to the residual stream.
pub(crate) fn attention_output<B: Backend>(
    b: &B,
    c: &ModelConfig,
    index: usize,
    layer: &Layer<B>,
    buffers: &mut Buffers<B>,
    active: &Active<'_, B>,
) -> Result<(), Error> {
    let Buffers { x, attended, delta, .. } = buffers;
    let lora = active.layer(index, Slot::AttentionOutput);
    add(b, c, attended, &layer.attention_output, &lora, layer.post_attention_norm.as_ref(), delta, x)
}

/// Adds the feed-forward network's output to the residual stream.
pub(crate) fn feed_forward<B: Backend>(
    b: &B,
    c: &ModelConfig,
    index: usize,
    layer: &Layer<B>,
    buffers: &mut Buffers<B>,
    active: &Active<'_, B>,
) -> Result<(), Error> {
    let Buffers { x, normed, delta, gate, up, .. } = buffers;
    let [lg, lu, ld] = [Slot::Gate, Slot::Up, Slot::Down].map(|s| active.layer(index, s));
    b.norm(x, &Norm::rms(&layer.feed_forward_norm, c.rms_eps), normed)?;
    b.matmul(normed, &mut [job(&layer.gate, &lg, gate), job(&layer.up, &lu, up)])?;
    b.gated_activation(c.architecture.traits().activation, gate, up)?;
    add(b, c, gate, &layer.down, &ld, layer.post_feed_forward_norm.as_ref(), delta, x)
}

/// `x += norm(linear(input))`, or without a norm `x += linear(input)`.
#[allow(clippy::too_many_arguments, reason = "a step of the pass, not an interface")]
fn add<B: Backend>(
    b: &B,
    c: &ModelConfig,
    input: &B::Buffer,
    linear: &Linear<B>,
    lora: &[Lora<'_, B>],
    norm: Option<&B::Vector>,
    delta: &mut B::Buffer,
    x: &mut B::Buffer,
) -> Result<(), Error> {
    match norm {
        None => b.matmul(input, &mut [MatMul { accumulate: true, ..job(linear, lora, x) }])?,
        Some(norm) => {
            b.matmul(input, &mut [job(linear, lora, delta)])?;
            b.add_norm(x, delta, &Norm::rms(norm, c.rms_eps))?;
        }
    }
    Ok(())
}

fn job<'a, B: Backend>(
    linear: &'a Linear<B>,
    lora: &'a [Lora<'a, B>],
    out: &'a mut B::Buffer,
) -> MatMul<'a, B> {
    MatMul { weight: &linear.weight, bias: linear.bias.as_ref(), out, accumulate: false, lora }
}

impl<B: Backend> Forward for Runner<B> {
    fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    fn pages(&self) -> usize {
        self.pages
    }

    fn check_rows(
        &self,
        tokens: &[u32],
        past: usize,
        tables: &[Vec<u32>],
        adapter: Option<AdapterUse>,
    ) -> Result<(), Error> {
        let table = |group: usize| tables.get(group).map_or(&[][..], |table| table);
        if tables.windows(2).any(|t| t[0].len() != t[1].len()) {
            return Err(Error::InvalidBatch("page tables of several lengths".into()));
        }
        self.check_span(tokens, past, table, adapter)
    }

    fn start(&mut self, batch: &Batch) -> Result<(), Error> {
        self.check(batch)?;
        (self.wanted, self.started) = ([0; 2], [0; 2]);
        self.kept = None;
        if batch.rows() == 0 {
            return Ok(());
        }
        let owner = self.owner;
        let backend = Arc::clone(&self.model.backend);
        backend.pass(owner, batch, &mut || self.run(batch))?;
        self.top_k_only = batch.top_k && self.overlaps();
        if self.top_k_only && batch.keep && !batch.outputs.is_empty() {
            self.kept = Some(self.shelf.keep(&self.buffers.logits)?);
        }
        self.started = [batch.outputs.len(), batch.hidden.len()];
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        let overlaps = self.overlaps();
        let Self { model, buffers, started, .. } = self;
        let [outputs, hidden] = std::mem::take(started);
        if overlaps && hidden > 0 {
            model.backend.read(&buffers.hidden, &mut self.hidden)?;
        }
        if overlaps && outputs > 0 {
            let (buffer, copy) = match self.top_k_only {
                true => (&buffers.top_k, &mut self.top_k),
                false => (&buffers.logits, &mut self.logits),
            };
            model.backend.read(buffer, copy)?;
        }
        if outputs + hidden == 0 {
            model.backend.wait()?;
        }
        self.wanted = [outputs, hidden];
        Ok(())
    }

    fn overlaps(&self) -> bool {
        // A device with memory of its own works independently of the host.
        self.model.backend.host(&self.buffers.logits).is_none()
    }

    fn logits(&self) -> &[f32] {
        if self.top_k_only {
            return &[];
        }
        let all = self.model.backend.host(&self.buffers.logits).unwrap_or(&self.logits);
        &all[..self.wanted[0] * self.model.config.vocab]
    }

    fn top_k(&self, output: usize) -> Option<TopK<'_>> {
        let width = 2 * TopK::MOST;
        let row = self.top_k.get(output * width..(output + 1) * width)?;
        (self.top_k_only && output < self.wanted[0]).then(|| TopK::new(row))
    }

    fn kept(&self, output: usize) -> Option<Box<dyn KeptRow>> {
        self.kept.as_ref()?.row(output)
    }

    fn read_logits(&self, output: usize, out: &mut Vec<f32>) -> Result<(), Error> {
        if output >= self.wanted[0] {
            return Err(Error::InvalidBatch(format!("output {output} of {}", self.wanted[0])));
        }
        Ok(self.model.backend.read_row(&self.buffers.logits, output, out)?)
    }

    fn hidden(&self) -> &[f32] {
        let all = self.model.backend.host(&self.buffers.hidden).unwrap_or(&self.hidden);
        &all[..self.wanted[1] * self.model.config.hidden]
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), Error> {
        Ok(self.model.backend.copy_page(&mut self.cache, from, to)?)
    }

    fn export_page(&self, page: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        Ok(self.model.backend.export_page(&self.cache, page, out)?)
    }

    fn page_format(&self) -> PageFormat {
        self.model.backend.page_format(&self.cache)
    }

    fn import_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.model.backend.import_page(&mut self.cache, page, bytes)?)
    }

    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        self.model.backend.on_host_threads(count, each);
    }

    fn wake_hint(&self, count: usize, at: Instant) {
        self.model.backend.wake_hint(count, at);
    }

    fn set_adapter(&mut self, id: u32, adapter: Option<Arc<dyn AdapterWeights>>) -> Result<(), Error> {
        let Some(adapter) = adapter else {
            self.adapters.remove(&id);
            return Ok(());
        };
        let adapter: Arc<dyn Any + Send + Sync> = adapter;
        match adapter.downcast::<Adapter<B>>() {
            Ok(adapter) if adapter.is_of(&self.model) => {
                self.adapters.insert(id, adapter);
                Ok(())
            }
            _ => Err(Error::InvalidAdapter("the adapter was loaded for another model".into())),
        }
    }
}
