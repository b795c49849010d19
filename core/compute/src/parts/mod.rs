//! Several processors as one: each layer of a model is on one of them.
//!
//! A pass goes through the layers in order, so the parts work one after the other, and the residual stream
//! crosses from each part to the next: several kilobytes per row. A layer's weights and its share of the KV
//! cache's pages are on the layer's part. Reading order: `plan` decides what goes where, `member` defines the
//! kinds of parts, `buffer` has activations that cross by themselves, and this file sends each operation to
//! the part that has its weights.
//!
//! Placement is by layer; mixtures of experts may be on a part of their own. A matrix that is split over
//! several parts (tensor parallelism) would be another kind of [`Matrix`], whose product every part computes
//! for its own outputs.

mod buffer;
mod convert;
mod member;
mod plan;

use std::time::Instant;

use realm_gguf::Tensor;

use crate::checks::{self, expect};
use crate::{
    Activation, Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, Columns, Error, Feature,
    LayerPlace, MatMul, Mixture, Norm, PageFormat,
};
pub use buffer::Buffer;
use convert::{attention_on, loras_on, matmul_on, mixture_on, norm_on};
pub use member::Part;
use member::{AnyCache, AnyExperts, AnyLowRank, AnyMatrix, AnyVector, Member, on};
pub use plan::{Place, Plan, Sizes};

/// The [`Backend`] that combines several parts.
pub struct PartsBackend {
    parts: Vec<Part>,
    plan: Plan,
    /// The place of a tensor, by its name in the file.
    place: fn(&str) -> Option<Place>,
}

/// A vector of parameters on the part that needs it, or on all parts.
pub struct Vector {
    on: Vec<Option<AnyVector>>,
    /// The part, if it is only one.
    home: Option<usize>,
}

/// A weight matrix on its part.
pub struct Matrix {
    part: usize,
    of: AnyMatrix,
}

/// Expert matrices on their part.
pub struct Experts {
    part: usize,
    of: AnyExperts,
}

/// A low-rank change of a weight, on the weight's part.
pub struct LowRank {
    part: usize,
    of: AnyLowRank,
}

/// A KV cache: each part has the pages of its layers. A page has the same number on every part.
pub struct Cache {
    on: Vec<Option<AnyCache>>,
    /// Bytes of a page on each part.
    bytes: Vec<usize>,
}

impl PartsBackend {
    /// Creates a backend of `parts`, at most 64, whose layers are where `plan` says. `place` returns the
    /// place of a tensor by its name in the file, and `None` for tensors that every part needs.
    ///
    /// # Errors
    /// `InvalidArgument` if the plan names a part that does not exist.
    pub fn new(parts: Vec<Part>, plan: Plan, place: fn(&str) -> Option<Place>) -> Result<Self, Error> {
        let most = plan.used().last().copied().unwrap_or(0);
        if most >= parts.len() || parts.len() > 64 {
            return Err(Error::InvalidArgument(format!("part {most} of {}", parts.len())));
        }
        Ok(Self { parts, plan, place })
    }

    /// Bytes that a page of the KV cache takes on each part.
    pub fn page_bytes(&self, layout: &CacheLayout, kind: CacheType) -> Vec<usize> {
        let bytes = |layout| CacheSpec { layout, pages: 1, kind }.page_bytes();
        (0..self.parts.len()).map(|part| self.layout_on(layout, part).map_or(0, bytes)).collect()
    }

    /// The layout of a part's share of a cache; `None` if no layer is on the part.
    fn layout_on(&self, layout: &CacheLayout, part: usize) -> Option<CacheLayout> {
        let here = |layer: usize| self.layer(layer) == part;
        let own = || layout.layers.iter().enumerate().filter(|(layer, _)| here(*layer));
        let mut slots: Vec<usize> = own().map(|(_, place)| place.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        let place = |(layer, place): (usize, &LayerPlace)| LayerPlace {
            group: place.group,
            // Slots of layers elsewhere are never asked for on this part.
            slot: if here(layer) { slots.partition_point(|&slot| slot < place.slot) } else { 0 },
        };
        let layers = layout.layers.iter().enumerate().map(place).collect();
        (!slots.is_empty()).then(|| CacheLayout { slots: slots.len(), layers, ..layout.clone() })
    }

    fn layer(&self, layer: usize) -> usize {
        self.plan.part(Place::Layer(layer))
    }

    /// The part whose host threads work between passes: one that computes on the host, if there is one, as a
    /// second set of threads would compete with its own.
    fn host_part(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.is_host()).or(self.parts.first())
    }

    /// The part of a tensor that belongs to a layer or to one end of the model; `None` for any other tensor.
    fn part_of(&self, tensor: &str) -> Option<usize> {
        (self.place)(tensor).map(|place| self.plan.part(place))
    }

    fn each<'a>(&'a self, cache: &'a Cache) -> impl Iterator<Item = (&'a Part, &'a AnyCache)> {
        self.parts.iter().zip(&cache.on).filter_map(|(part, cache)| Some((part, cache.as_ref()?)))
    }
}

impl Vector {
    fn at(&self, part: usize) -> Result<&AnyVector, Error> {
        let here = self.on.get(part).and_then(Option::as_ref);
        here.ok_or_else(|| Error::InvalidArgument("parameters on another part than the operation's".into()))
    }
}

impl Cache {
    fn at(&self, part: usize) -> Result<&AnyCache, Error> {
        self.on.get(part).and_then(Option::as_ref).ok_or_else(no_cache)
    }

    fn at_mut(&mut self, part: usize) -> Result<&mut AnyCache, Error> {
        self.on.get_mut(part).and_then(Option::as_mut).ok_or_else(no_cache)
    }
}

fn no_cache() -> Error {
    Error::InvalidArgument("a cache without the layer's part".into())
}

/// The part of a norm's parameters, if they are on one only.
fn home(norm: &Norm<'_, PartsBackend>) -> Option<usize> {
    norm.weight.or(norm.bias).and_then(|parameters| parameters.home)
}

impl Backend for PartsBackend {
    type Buffer = Buffer;
    type Vector = Vector;
    type Matrix = Matrix;
    type Experts = Experts;
    type LowRank = LowRank;
    type Cache = Cache;

    fn description(&self) -> String {
        let layers = |part| self.plan.layers.iter().filter(|&&of| of == part).count();
        let experts = |part| if self.plan.experts == Some(part) { " and the experts" } else { "" };
        let parts = self.parts.iter().enumerate();
        let each =
            parts.map(|(i, part)| format!("{} layers{} on {}", layers(i), experts(i), part.description()));
        each.collect::<Vec<_>>().join(", ")
    }

    fn supports(&self, feature: Feature) -> bool {
        self.parts.iter().all(|part| on!(part, |b| b.supports(feature)))
    }

    fn matrix(&self, tensor: &Tensor<'_>) -> Result<Matrix, Error> {
        let part = self.part_of(&tensor.info.name).unwrap_or(self.plan.output);
        Ok(Matrix { part, of: self.parts[part].matrix(tensor)? })
    }

    fn experts(&self, tensor: &Tensor<'_>) -> Result<Experts, Error> {
        let part = self.part_of(&tensor.info.name).unwrap_or(self.plan.output);
        Ok(Experts { part, of: self.parts[part].experts(tensor)? })
    }

    fn low_rank(&self, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<LowRank, Error> {
        let part = self.part_of(&b.info.name).unwrap_or(self.plan.output);
        Ok(LowRank { part, of: self.parts[part].low_rank(a, b)? })
    }

    fn vector(&self, values: &[f32]) -> Result<Vector, Error> {
        let on =
            self.parts.iter().map(|part| Ok(Some(part.vector(values)?))).collect::<Result<_, Error>>()?;
        Ok(Vector { on, home: None })
    }

    fn vector_of(&self, tensor: &str, values: &[f32]) -> Result<Vector, Error> {
        let Some(home) = self.part_of(tensor) else { return self.vector(values) };
        let mut on: Vec<_> = self.parts.iter().map(|_| None).collect();
        on[home] = Some(self.parts[home].vector(values)?);
        Ok(Vector { on, home: Some(home) })
    }

    fn buffer(&self, rows: usize, columns: usize) -> Result<Buffer, Error> {
        Ok(Buffer::new(rows, columns))
    }

    fn cache(&self, spec: &CacheSpec) -> Result<Cache, Error> {
        let mut cache = Cache { on: Vec::new(), bytes: Vec::new() };
        for (i, part) in self.parts.iter().enumerate() {
            let spec = self.layout_on(&spec.layout, i).map(|layout| CacheSpec { layout, ..spec.clone() });
            let on = spec.as_ref().map(|spec| part.cache(spec)).transpose()?;
            cache.bytes.push(match &on {
                Some(own) => on!(part, |b| b.page_format(b.cache_in(own)?).bytes()),
                None => 0,
            });
            cache.on.push(on);
        }
        Ok(cache)
    }

    fn copy_page(&self, cache: &mut Cache, from: u32, to: u32) -> Result<(), Error> {
        for (part, cache) in self.parts.iter().zip(&mut cache.on) {
            let Some(cache) = cache else { continue };
            on!(part, |b| b.copy_page(b.cache_in_mut(cache)?, from, to))?;
        }
        Ok(())
    }

    fn export_page(&self, cache: &Cache, page: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        self.each(cache)
            .try_for_each(|(part, cache)| on!(part, |b| b.export_page(b.cache_in(cache)?, page, out)))
    }

    fn page_format(&self, cache: &Cache) -> PageFormat {
        let mut format = PageFormat::default();
        for (part, cache) in self.each(cache) {
            // The cache is of its part's kind, so this finds it.
            if let Ok(own) = on!(part, |b| b.cache_in(cache).map(|cache| b.page_format(cache))) {
                format.append(&own);
            }
        }
        format
    }

    fn import_page(&self, cache: &mut Cache, page: u32, bytes: &[u8]) -> Result<(), Error> {
        expect("the bytes of a page", bytes.len(), cache.bytes.iter().sum())?;
        let mut rest = bytes;
        for ((part, cache), &own) in self.parts.iter().zip(&mut cache.on).zip(&cache.bytes) {
            let Some(cache) = cache else { continue };
            let (bytes, left) = rest.split_at(own);
            on!(part, |b| b.import_page(b.cache_in_mut(cache)?, page, bytes))?;
            rest = left;
        }
        Ok(())
    }

    fn embed(&self, table: &Matrix, tokens: &[u32], scale: f32, out: &mut Buffer) -> Result<(), Error> {
        let out = out.fill(&self.parts, table.part, tokens.len())?;
        on!(&self.parts[table.part], |b| b.embed(
            b.matrix_in(&table.of)?,
            tokens,
            scale,
            b.buffer_in_mut(out)?
        ))
    }

    fn norm(&self, x: &Buffer, norm: &Norm<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        let part = home(norm).unwrap_or_else(|| x.latest());
        let (x, rows) = (x.at(&self.parts, part)?, x.rows());
        let out = out.fill(&self.parts, part, rows)?;
        on!(&self.parts[part], |b| {
            let norm = norm_on(&**b, norm, part)?;
            b.norm(b.buffer_in(x.get()?)?, &norm, b.buffer_in_mut(out)?)
        })
    }

    fn add_norm(&self, x: &mut Buffer, delta: &Buffer, norm: &Norm<'_, Self>) -> Result<(), Error> {
        let part = home(norm).unwrap_or_else(|| delta.latest());
        let delta = delta.at(&self.parts, part)?;
        let x = x.own(&self.parts, part)?;
        on!(&self.parts[part], |b| {
            let norm = norm_on(&**b, norm, part)?;
            b.add_norm(b.buffer_in_mut(x)?, b.buffer_in(delta.get()?)?, &norm)
        })
    }

    fn matmul(&self, x: &Buffer, jobs: &mut [MatMul<'_, Self>]) -> Result<(), Error> {
        let Some(part) = jobs.first().map(|job| job.weight.part) else { return Ok(()) };
        if let Some(job) = jobs.iter().find(|job| job.weight.part != part) {
            return Err(Error::InvalidArgument(format!(
                "a product on part {} beside one on {part}",
                job.weight.part
            )));
        }
        let (here, rows) = (x.at(&self.parts, part)?, x.rows());
        on!(&self.parts[part], |b| matmul_on(&**b, &self.parts, part, here.get()?, rows, jobs))
    }

    fn mixture(&self, x: &Buffer, spec: &Mixture<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        let part = spec.up.part;
        let (x, rows) = (x.at(&self.parts, part)?, x.rows());
        let out = match spec.accumulate {
            true => out.own(&self.parts, part)?,
            false => out.fill(&self.parts, part, rows)?,
        };
        on!(&self.parts[part], |b| {
            let loras = [spec.gate_lora, spec.up_lora, spec.down_lora];
            let [gate, up, down] = loras.map(|loras| loras_on(&**b, loras, part));
            let (gate, up, down) = (gate?, up?, down?);
            let spec = mixture_on(&**b, spec, part, [&gate, &up, &down])?;
            b.mixture(b.buffer_in(x.get()?)?, &spec, b.buffer_in_mut(out)?)
        })
    }

    fn each_head(&self, x: &Buffer, w: &Experts, out: &mut Buffer) -> Result<(), Error> {
        let (x, rows) = (x.at(&self.parts, w.part)?, x.rows());
        let out = out.fill(&self.parts, w.part, rows)?;
        on!(&self.parts[w.part], |b| b.each_head(
            b.buffer_in(x.get()?)?,
            b.experts_in(&w.of)?,
            b.buffer_in_mut(out)?
        ))
    }

    fn rotations(
        &self,
        frequencies: &Vector,
        magnitude: f32,
        positions: &[u32],
        out: &mut Buffer,
    ) -> Result<(), Error> {
        // Computed on every part: that is cheaper than copying.
        out.fill_all(&self.parts, positions.len(), |part, out| {
            on!(&self.parts[part], |b| {
                let frequencies = b.vector_in(frequencies.at(part)?)?;
                b.rotations(frequencies, magnitude, positions, b.buffer_in_mut(out)?)
            })
        })
    }

    fn rope_store(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &mut Buffer,
        k: &mut Buffer,
        v: &Buffer,
        cache: &mut Cache,
    ) -> Result<(), Error> {
        let part = self.layer(spec.layer);
        let rotations = spec.rotations.map(|x| x.at(&self.parts, part)).transpose()?;
        let v = v.at(&self.parts, part)?;
        let (q, k) = (q.own(&self.parts, part)?, k.own(&self.parts, part)?);
        let cache = cache.at_mut(part)?;
        on!(&self.parts[part], |b| {
            let spec = attention_on(&**b, spec, part, rotations.as_ref())?;
            let (q, k) = (b.buffer_in_mut(q)?, b.buffer_in_mut(k)?);
            b.rope_store(&spec, batch, q, k, b.buffer_in(v.get()?)?, b.cache_in_mut(cache)?)
        })
    }

    fn attention(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &Buffer,
        cache: &Cache,
        out: &mut Buffer,
    ) -> Result<(), Error> {
        let part = self.layer(spec.layer);
        let rotations = spec.rotations.map(|x| x.at(&self.parts, part)).transpose()?;
        let (q, rows, cache) = (q.at(&self.parts, part)?, q.rows(), cache.at(part)?);
        let out = out.fill(&self.parts, part, rows)?;
        on!(&self.parts[part], |b| {
            let spec = attention_on(&**b, spec, part, rotations.as_ref())?;
            b.attention(&spec, batch, b.buffer_in(q.get()?)?, b.cache_in(cache)?, b.buffer_in_mut(out)?)
        })
    }

    fn gated_activation(&self, activation: Activation, gate: &mut Buffer, up: &Buffer) -> Result<(), Error> {
        let part = up.latest();
        let up = up.at(&self.parts, part)?;
        let gate = gate.own(&self.parts, part)?;
        on!(&self.parts[part], |b| b.gated_activation(
            activation,
            b.buffer_in_mut(gate)?,
            b.buffer_in(up.get()?)?
        ))
    }

    fn activation(&self, activation: Activation, x: &mut Buffer) -> Result<(), Error> {
        let part = x.latest();
        let x = x.own(&self.parts, part)?;
        on!(&self.parts[part], |b| b.activation(activation, b.buffer_in_mut(x)?))
    }

    fn add(&self, x: &mut Buffer, delta: &Buffer, scale: f32) -> Result<(), Error> {
        // The part that normalized `x`: results of experts elsewhere cross, and `x` stays.
        let part = x.latest();
        let delta = delta.at(&self.parts, part)?;
        let x = x.own(&self.parts, part)?;
        on!(&self.parts[part], |b| b.add(b.buffer_in_mut(x)?, b.buffer_in(delta.get()?)?, scale))
    }

    fn scale(&self, x: &mut Buffer, factor: f32) -> Result<(), Error> {
        let part = x.latest();
        let x = x.own(&self.parts, part)?;
        on!(&self.parts[part], |b| b.scale(b.buffer_in_mut(x)?, factor))
    }

    fn scale_rows(&self, gate: &Buffer, x: &mut Buffer) -> Result<(), Error> {
        let part = x.latest();
        let gate = gate.at(&self.parts, part)?;
        let x = x.own(&self.parts, part)?;
        on!(&self.parts[part], |b| b.scale_rows(b.buffer_in(gate.get()?)?, b.buffer_in_mut(x)?))
    }

    fn copy_columns(&self, x: &Buffer, columns: &Columns, out: &mut Buffer) -> Result<(), Error> {
        let part = x.latest();
        let (x, rows) = (x.at(&self.parts, part)?, x.rows());
        let out = match out.rows() == rows {
            true => out.own(&self.parts, part)?,
            false => out.fill(&self.parts, part, rows)?,
        };
        on!(&self.parts[part], |b| b.copy_columns(b.buffer_in(x.get()?)?, columns, b.buffer_in_mut(out)?))
    }

    fn gather(&self, x: &Buffer, rows: &[u32], out: &mut Buffer) -> Result<(), Error> {
        let part = x.latest();
        let x = x.at(&self.parts, part)?;
        let out = out.fill(&self.parts, part, rows.len())?;
        on!(&self.parts[part], |b| b.gather(b.buffer_in(x.get()?)?, rows, b.buffer_in_mut(out)?))
    }

    fn soft_cap(&self, x: &mut Buffer, cap: f32) -> Result<(), Error> {
        let part = x.latest();
        let x = x.own(&self.parts, part)?;
        on!(&self.parts[part], |b| b.soft_cap(b.buffer_in_mut(x)?, cap))
    }

    fn top_k(&self, x: &Buffer, out: &mut Buffer) -> Result<(), Error> {
        let part = x.latest();
        let (x, rows) = (x.at(&self.parts, part)?, x.rows());
        let out = out.fill(&self.parts, part, rows)?;
        on!(&self.parts[part], |b| b.top_k(b.buffer_in(x.get()?)?, b.buffer_in_mut(out)?))
    }

    fn host<'a>(&self, _x: &'a Buffer) -> Option<&'a [f32]> {
        None
    }

    fn read(&self, x: &Buffer, out: &mut Vec<f32>) -> Result<(), Error> {
        let part = x.latest();
        let x = x.at(&self.parts, part)?;
        on!(&self.parts[part], |b| b.read(b.buffer_in(x.get()?)?, out))
    }

    /// For the first part: it begins the next pass while the others end this one.
    fn wait(&self) -> Result<(), Error> {
        on!(&self.parts[0], |b| b.wait())
    }

    fn write(&self, values: &[f32], x: &mut Buffer) -> Result<(), Error> {
        let (part, rows) = (x.latest(), checks::whole_rows(values.len(), x.columns())?);
        let x = x.fill(&self.parts, part, rows)?;
        on!(&self.parts[part], |b| b.write(values, b.buffer_in_mut(x)?))
    }

    fn rows(&self, x: &Buffer) -> usize {
        x.rows()
    }

    fn columns(&self, x: &Buffer) -> usize {
        x.columns()
    }

    fn read_row(&self, x: &Buffer, row: usize, out: &mut Vec<f32>) -> Result<(), Error> {
        let part = x.latest();
        let x = x.at(&self.parts, part)?;
        on!(&self.parts[part], |b| b.read_row(b.buffer_in(x.get()?)?, row, out))
    }

    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        match self.host_part() {
            Some(part) => on!(part, |b| b.on_host_threads(count, each)),
            None => (0..count).for_each(each),
        }
    }

    fn wake_hint(&self, count: usize, at: Instant) {
        if let Some(part) = self.host_part() {
            on!(part, |b| b.wake_hint(count, at));
        }
    }
}
