//! The CPU backend, with operations that fail on demand.

use std::sync::{Arc, Mutex};

use realm_compute::cpu::CpuBackend;
use realm_compute::{
    Activation, Attention, Backend, Batch, CacheSpec, Columns, Error, Lora, MatMul, Mixture, Norm, PageFormat,
};
use realm_gguf::Tensor;

type Buffer = <CpuBackend as Backend>::Buffer;
type Vector = <CpuBackend as Backend>::Vector;
type Matrix = <CpuBackend as Backend>::Matrix;
type Experts = <CpuBackend as Backend>::Experts;
type LowRank = <CpuBackend as Backend>::LowRank;
type Cache = <CpuBackend as Backend>::Cache;

/// The time at which an operation fails.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum When {
    /// In every pass with this token.
    With(u32),
    /// Once only.
    Once,
    /// From now on: the device is lost.
    Always,
}

/// The operation that fails, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) operation: &'static str,
    pub(super) when: When,
    pub(super) panics: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) fault: Option<Fault>,
    /// Tokens and sequences of the running pass.
    tokens: Vec<u32>,
    sequences: usize,
    /// The number of failures, and the most sequences in a pass that failed.
    pub(super) failed: usize,
    pub(super) company: usize,
}

pub(super) struct Faulty {
    inner: CpuBackend,
    /// True if it claims to have memory of its own, as a GPU has.
    device: bool,
    pub(super) state: Arc<Mutex<State>>,
}

impl Faulty {
    pub(super) fn new(device: bool, state: Arc<Mutex<State>>) -> Self {
        Self { inner: CpuBackend::new(1).expect("a backend"), device, state }
    }

    fn may(&self, operation: &str) -> Result<(), Error> {
        let mut state = self.state.lock().expect("no panic under the lock");
        let Some(fault) = state.fault.filter(|fault| fault.operation == operation) else { return Ok(()) };
        match fault.when {
            When::With(token) if !state.tokens.contains(&token) => return Ok(()),
            When::Once => state.fault = None,
            _ => {}
        }
        state.failed += 1;
        state.company = state.company.max(state.sequences);
        drop(state);
        assert!(!fault.panics, "an injected panic in `{operation}`");
        Err(Error::Device(format!("an injected fault in `{operation}`")))
    }
}

impl Backend for Faulty {
    type Buffer = Buffer;
    type Vector = Vector;
    type Matrix = Matrix;
    type Experts = Experts;
    type LowRank = LowRank;
    type Cache = Cache;

    fn description(&self) -> String {
        self.inner.description()
    }

    fn matrix(&self, tensor: &Tensor<'_>) -> Result<Matrix, Error> {
        self.may("matrix")?;
        self.inner.matrix(tensor)
    }

    fn experts(&self, tensor: &Tensor<'_>) -> Result<Experts, Error> {
        self.may("experts")?;
        self.inner.experts(tensor)
    }

    fn low_rank(&self, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<LowRank, Error> {
        self.may("low_rank")?;
        self.inner.low_rank(a, b)
    }

    fn vector(&self, values: &[f32]) -> Result<Vector, Error> {
        self.may("vector")?;
        self.inner.vector(values)
    }

    fn buffer(&self, rows: usize, columns: usize) -> Result<Buffer, Error> {
        self.may("buffer")?;
        self.inner.buffer(rows, columns)
    }

    fn cache(&self, spec: &CacheSpec) -> Result<Cache, Error> {
        self.may("cache")?;
        self.inner.cache(spec)
    }

    fn copy_page(&self, cache: &mut Cache, from: u32, to: u32) -> Result<(), Error> {
        self.may("copy_page")?;
        self.inner.copy_page(cache, from, to)
    }

    fn export_page(&self, cache: &Cache, page: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        self.may("export_page")?;
        self.inner.export_page(cache, page, out)
    }

    fn page_format(&self, cache: &Cache) -> PageFormat {
        self.inner.page_format(cache)
    }

    fn import_page(&self, cache: &mut Cache, page: u32, bytes: &[u8]) -> Result<(), Error> {
        self.may("import_page")?;
        self.inner.import_page(cache, page, bytes)
    }

    fn embed(&self, table: &Matrix, tokens: &[u32], scale: f32, out: &mut Buffer) -> Result<(), Error> {
        self.may("embed")?;
        self.inner.embed(table, tokens, scale, out)
    }

    fn norm(&self, x: &Buffer, norm: &Norm<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        self.may("norm")?;
        self.inner.norm(x, &own_norm(*norm), out)
    }

    fn add_norm(&self, x: &mut Buffer, delta: &Buffer, norm: &Norm<'_, Self>) -> Result<(), Error> {
        self.may("add_norm")?;
        self.inner.add_norm(x, delta, &own_norm(*norm))
    }

    fn matmul(&self, x: &Buffer, jobs: &mut [MatMul<'_, Self>]) -> Result<(), Error> {
        self.may("matmul")?;
        let loras: Vec<Vec<Lora<'_, CpuBackend>>> =
            jobs.iter().map(|job| job.lora.iter().map(own_lora).collect()).collect();
        let mut jobs: Vec<MatMul<'_, CpuBackend>> = jobs
            .iter_mut()
            .zip(&loras)
            .map(|(job, lora)| MatMul {
                weight: job.weight,
                bias: job.bias,
                out: &mut *job.out,
                accumulate: job.accumulate,
                lora,
            })
            .collect();
        self.inner.matmul(x, &mut jobs)
    }

    fn mixture(&self, x: &Buffer, spec: &Mixture<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        self.may("mixture")?;
        let [gate_lora, up_lora, down_lora] = [spec.gate_lora, spec.up_lora, spec.down_lora].map(own_loras);
        let spec =
            Mixture { gate_lora: &gate_lora, up_lora: &up_lora, down_lora: &down_lora, ..own_mixture(spec) };
        self.inner.mixture(x, &spec, out)
    }

    fn each_head(&self, x: &Buffer, w: &Experts, out: &mut Buffer) -> Result<(), Error> {
        self.may("each_head")?;
        self.inner.each_head(x, w, out)
    }

    fn rotations(
        &self,
        frequencies: &Vector,
        magnitude: f32,
        positions: &[u32],
        out: &mut Buffer,
    ) -> Result<(), Error> {
        self.may("rotations")?;
        self.inner.rotations(frequencies, magnitude, positions, out)
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
        self.may("rope_store")?;
        self.inner.rope_store(&own(spec), batch, q, k, v, cache)
    }

    fn attention(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &Buffer,
        cache: &Cache,
        out: &mut Buffer,
    ) -> Result<(), Error> {
        self.may("attention")?;
        self.inner.attention(&own(spec), batch, q, cache, out)
    }

    fn gated_activation(&self, activation: Activation, gate: &mut Buffer, up: &Buffer) -> Result<(), Error> {
        self.may("gated_activation")?;
        self.inner.gated_activation(activation, gate, up)
    }

    fn activation(&self, activation: Activation, x: &mut Buffer) -> Result<(), Error> {
        self.may("activation")?;
        self.inner.activation(activation, x)
    }

    fn add(&self, x: &mut Buffer, delta: &Buffer, scale: f32) -> Result<(), Error> {
        self.may("add")?;
        self.inner.add(x, delta, scale)
    }

    fn scale(&self, x: &mut Buffer, factor: f32) -> Result<(), Error> {
        self.may("scale")?;
        self.inner.scale(x, factor)
    }

    fn scale_rows(&self, gate: &Buffer, x: &mut Buffer) -> Result<(), Error> {
        self.may("scale_rows")?;
        self.inner.scale_rows(gate, x)
    }

    fn copy_columns(&self, x: &Buffer, columns: &Columns, out: &mut Buffer) -> Result<(), Error> {
        self.may("copy_columns")?;
        self.inner.copy_columns(x, columns, out)
    }

    fn gather(&self, x: &Buffer, rows: &[u32], out: &mut Buffer) -> Result<(), Error> {
        self.may("gather")?;
        self.inner.gather(x, rows, out)
    }

    fn soft_cap(&self, x: &mut Buffer, cap: f32) -> Result<(), Error> {
        self.may("soft_cap")?;
        self.inner.soft_cap(x, cap)
    }

    fn top_k(&self, x: &Buffer, out: &mut Buffer) -> Result<(), Error> {
        self.may("top_k")?;
        self.inner.top_k(x, out)
    }

    fn host<'a>(&self, x: &'a Buffer) -> Option<&'a [f32]> {
        if self.device { None } else { self.inner.host(x) }
    }

    fn read(&self, x: &Buffer, out: &mut Vec<f32>) -> Result<(), Error> {
        self.may("read")?;
        self.inner.read(x, out)
    }

    fn wait(&self) -> Result<(), Error> {
        self.may("wait")
    }

    fn write(&self, values: &[f32], x: &mut Buffer) -> Result<(), Error> {
        self.may("write")?;
        self.inner.write(values, x)
    }

    fn rows(&self, x: &Buffer) -> usize {
        self.inner.rows(x)
    }

    fn columns(&self, x: &Buffer) -> usize {
        self.inner.columns(x)
    }

    fn read_row(&self, x: &Buffer, row: usize, out: &mut Vec<f32>) -> Result<(), Error> {
        self.may("read_row")?;
        self.inner.read_row(x, row, out)
    }

    fn pass<E: From<Error>>(
        &self,
        _: u64,
        batch: &Batch,
        run: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        {
            let mut state = self.state.lock().expect("no panic under the lock");
            state.tokens.clone_from(&batch.tokens);
            state.sequences = batch.spans.len();
        }
        self.may("pass")?;
        run()
    }
}

/// Converts the operation for the CPU backend.
fn own<'a>(spec: &Attention<'a, Faulty>) -> Attention<'a, CpuBackend> {
    Attention {
        layer: spec.layer,
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        q_norm: spec.q_norm.map(own_norm),
        k_norm: spec.k_norm.map(own_norm),
        norm_span: spec.norm_span,
        norm_after_rope: spec.norm_after_rope,
        rotations: spec.rotations,
        style: spec.style,
        temperature: spec.temperature,
        scale: spec.scale,
        window: spec.window,
        soft_cap: spec.soft_cap,
        sinks: spec.sinks,
    }
}

fn own_norm<'a>(norm: Norm<'a, Faulty>) -> Norm<'a, CpuBackend> {
    Norm { kind: norm.kind, weight: norm.weight, bias: norm.bias, eps: norm.eps }
}

fn own_mixture<'a>(spec: &Mixture<'a, Faulty>) -> Mixture<'a, CpuBackend> {
    Mixture {
        router: spec.router,
        router_bias: spec.router_bias,
        routing: spec.routing,
        selection_bias: spec.selection_bias,
        gate: spec.gate,
        up: spec.up,
        down: spec.down,
        gate_bias: spec.gate_bias,
        up_bias: spec.up_bias,
        down_bias: spec.down_bias,
        activation: spec.activation,
        gate_lora: &[],
        up_lora: &[],
        down_lora: &[],
        accumulate: spec.accumulate,
    }
}

fn own_loras<'a>(all: &[Lora<'a, Faulty>]) -> Vec<Lora<'a, CpuBackend>> {
    all.iter().map(own_lora).collect()
}

fn own_lora<'a>(lora: &Lora<'a, Faulty>) -> Lora<'a, CpuBackend> {
    Lora { pair: lora.pair, scale: lora.scale, rows: lora.rows }
}
