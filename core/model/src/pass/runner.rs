//! The pass on a backend.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use realm_compute::{
    AdapterUse, Backend, Batch, CacheLayout, CacheSpec, CacheType, Lora, MatMul, PageFormat, Rope,
};

use super::buffers::Buffers;
use super::kept::{KeptRow, KeptRows, Shelf};
use super::top_k::TopK;
use super::{DeviceOutputs, Forward, Outputs};
use crate::adapter::{Active, Adapter, AdapterWeights};
use crate::block;
use crate::weights::Transformer;
use crate::{Error, ModelConfig};

/// Number of runners created so far.
static OWNERS: AtomicU64 = AtomicU64::new(0);

/// A KV cache and work buffers for one thread.
pub struct Runner<B: Backend> {
    pub(super) model: Arc<Transformer<B>>,
    cache: B::Cache,
    /// Distinguishes this runner's passes from those of others.
    owner: u64,
    pub(super) layout: CacheLayout,
    pub(super) pages: usize,
    pub(super) adapters: HashMap<u32, Arc<Adapter<B>>>,
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

    fn run(&mut self, batch: &Batch) -> Result<(), Error> {
        let Self { model, cache, buffers, adapters, .. } = self;
        let mut active = Active::new(adapters, batch);
        let (b, c) = (&*model.backend, &model.config);
        b.embed(&model.embeddings, &batch.tokens, c.embedding_scale, &mut buffers.x)?;
        rotate(b, &model.ropes, &batch.positions, &mut buffers.rotations)?;
        let (wanted, logits_among, hidden_among) = wanted_rows(batch);
        for (i, layer) in model.layers.iter().enumerate() {
            layer.attention.attend(b, c, i, batch, cache, buffers, &active)?;
            // The last layer's keys and values are stored: from here on only the wanted rows are needed.
            if i + 1 == model.layers.len() {
                if wanted.is_empty() {
                    return Ok(());
                }
                block::gather(b, &c.layers[i], &wanted, buffers)?;
                active.gather(&wanted);
            }
            layer.attention.output(b, c, i, buffers, &active)?;
            layer.feed_forward.run(b, c, i, buffers, &active)?;
        }
        b.norm(&buffers.x, &model.output_norm.norm(c), &mut buffers.normed)?;
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
            logits(model, input, &active.output(), &mut buffers.logits)?;
            if batch.top_k && b.host(&buffers.logits).is_none() {
                b.top_k(&buffers.logits, &mut buffers.top_k)?;
            }
        }
        Ok(())
    }
}

/// Computes the logits of hidden states behind the output norm.
pub(crate) fn logits<B: Backend>(
    model: &Transformer<B>,
    input: &B::Buffer,
    lora: &[Lora<'_, B>],
    out: &mut B::Buffer,
) -> Result<(), Error> {
    let (b, c, (weight, bias)) = (&*model.backend, &model.config, model.output());
    b.matmul(input, &mut [MatMul { weight, bias, out, accumulate: false, lora }])?;
    if c.logit_scale != 1.0 {
        b.scale(out, c.logit_scale)?;
    }
    if let Some(cap) = c.final_soft_cap {
        b.soft_cap(out, cap)?;
    }
    Ok(())
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

/// Computes the rotations of every position, for each of a model's ropes.
pub(crate) fn rotate<B: Backend>(
    b: &B,
    ropes: &[Rope<B>],
    positions: &[u32],
    out: &mut [B::Buffer],
) -> Result<(), Error> {
    for (rope, out) in ropes.iter().zip(out) {
        b.rotations(&rope.frequencies, rope.magnitude, positions, out)?;
    }
    Ok(())
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

    fn outputs(&self) -> Outputs<'_> {
        if self.top_k_only {
            return Outputs::Device(self);
        }
        let all = self.model.backend.host(&self.buffers.logits).unwrap_or(&self.logits);
        Outputs::Host(&all[..self.wanted[0] * self.model.config.vocab])
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

impl<B: Backend> Runner<B> {
    /// Refuses a row that the last batch's outputs do not have.
    fn output(&self, row: usize) -> Result<(), Error> {
        match row < self.wanted[0] {
            true => Ok(()),
            false => Err(Error::InvalidBatch(format!("output {row} of {}", self.wanted[0]))),
        }
    }
}

impl<B: Backend> DeviceOutputs for Runner<B> {
    fn top_k(&self, row: usize) -> Result<TopK<'_>, Error> {
        self.output(row)?;
        let width = 2 * TopK::MOST;
        Ok(TopK::new(&self.top_k[row * width..(row + 1) * width]))
    }

    fn read(&self, row: usize, out: &mut Vec<f32>) -> Result<(), Error> {
        self.output(row)?;
        Ok(self.model.backend.read_row(&self.buffers.logits, row, out)?)
    }

    fn keep(&self, row: usize) -> Option<Box<dyn KeptRow>> {
        self.kept.as_ref()?.row(row)
    }
}
