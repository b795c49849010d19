//! The interface between models and processors: a short list of fused operations over a ragged batch.
//!
//! A model holds several [`Backend::Buffer`]s of activations and calls these operations layer by layer; it
//! never sees where the numbers live. The operations are the building blocks of a transformer, not tensor
//! algebra, so that a backend may fuse them, own threads, or record a CUDA graph.
//!
//! Every operation sets its output's row count to the batch's. A row's results never depend on the other rows
//! in the batch: greedy text is the same alone and in company.

use std::time::Instant;

use realm_gguf::Tensor;

use crate::{
    Activation, Attention, Batch, CacheSpec, Columns, Error, Feature, MatMul, Mixture, Norm, PageFormat,
};

/// A processor that can run a transformer's forward pass.
///
/// Operations take `&self`; a backend that owns threads or a stream serializes them itself.
pub trait Backend: Send + Sync + Sized + 'static {
    /// Activations, `[rows, columns]` of f32, on the device. Rows vary from call to call.
    type Buffer: Send + Sync;
    /// A vector of f32 parameters, on the device: norm weights, biases, rope frequencies.
    type Vector: Send + Sync;
    /// A weight matrix `[outputs, inputs]` in the layout of the backend's kernels.
    type Matrix: Send + Sync;
    /// Matrices of one shape, one for each expert or head.
    type Experts: Send + Sync;
    /// A low-rank change of a weight matrix (LoRA): two thin matrices.
    type LowRank: Send + Sync;
    /// A paged KV cache for all layers of one model.
    type Cache: Send + Sync;

    /// The device in words, for example `cpu (AVX2, 2 threads)`.
    fn description(&self) -> String;

    /// Returns the bytes per second that the device's memory delivers by its specification, if the device
    /// says so.
    fn memory_bandwidth(&self) -> Option<u64> {
        None
    }

    /// Returns whether the backend has a feature. Its operations return [`Error::Unsupported`] otherwise.
    fn supports(&self, feature: Feature) -> bool {
        let _ = feature;
        true
    }

    /// Uploads or repacks the matrix `tensor` of GGUF shape `[inputs, outputs]`. The caller may free
    /// the tensor's bytes afterwards.
    fn matrix(&self, tensor: &Tensor<'_>) -> Result<Self::Matrix, Error>;

    /// Uploads or repacks the matrices `tensor` of GGUF shape `[inputs, outputs, experts]`, as
    /// [`Backend::matrix`] does with one.
    fn experts(&self, tensor: &Tensor<'_>) -> Result<Self::Experts, Error>;

    /// Uploads the low-rank change `b · a` of a matrix `[outputs, inputs]`: `a` of GGUF shape
    /// `[inputs, rank]` and `b` of `[rank, outputs]`, in F32, F16 or BF16. For the matrices of
    /// [`Backend::experts`] both have a third dimension, their number. For a tensor of a layer, `b` has that
    /// tensor's name.
    fn low_rank(&self, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<Self::LowRank, Error>;

    /// Uploads a vector of parameters.
    fn vector(&self, values: &[f32]) -> Result<Self::Vector, Error>;

    /// Uploads the parameters of the tensor named `tensor`, as [`Backend::vector`] does. A backend of several
    /// devices uses the name to choose the device.
    fn vector_of(&self, tensor: &str, values: &[f32]) -> Result<Self::Vector, Error> {
        let _ = tensor;
        self.vector(values)
    }

    /// A buffer that can hold `rows` rows of `columns` numbers; it grows when an operation needs more.
    fn buffer(&self, rows: usize, columns: usize) -> Result<Self::Buffer, Error>;

    /// A KV cache whose pages are all free. A page takes memory when it is first written.
    fn cache(&self, spec: &CacheSpec) -> Result<Self::Cache, Error>;

    /// Copies page `from` over page `to` (copy-on-write of a fork's last page).
    fn copy_page(&self, cache: &mut Self::Cache, from: u32, to: u32) -> Result<(), Error>;

    /// Appends a page's contents to `out`, in the backend's own order. Only [`Backend::import_page`] of the
    /// same kind of backend reads that order. Every page has the same number of bytes.
    fn export_page(&self, cache: &Self::Cache, page: u32, out: &mut Vec<u8>) -> Result<(), Error>;

    /// Returns the layout of the bytes that [`Backend::export_page`] writes for a page.
    fn page_format(&self, cache: &Self::Cache) -> PageFormat;

    /// Fills a page with bytes that [`Backend::export_page`] wrote.
    fn import_page(&self, cache: &mut Self::Cache, page: u32, bytes: &[u8]) -> Result<(), Error>;

    /// `out[r] = scale * table[tokens[r]]`, `[rows, hidden]`.
    fn embed(
        &self,
        table: &Self::Matrix,
        tokens: &[u32],
        scale: f32,
        out: &mut Self::Buffer,
    ) -> Result<(), Error>;

    /// `out = norm(x)`, row by row.
    fn norm(&self, x: &Self::Buffer, norm: &Norm<'_, Self>, out: &mut Self::Buffer) -> Result<(), Error>;

    /// `x += norm(delta)`: the post-norms of Gemma.
    fn add_norm(
        &self,
        x: &mut Self::Buffer,
        delta: &Self::Buffer,
        norm: &Norm<'_, Self>,
    ) -> Result<(), Error>;

    /// Multiplies one input with one or several matrices: for each job `out = x · weightᵀ + bias`, or
    /// `out += …` where the job accumulates. Rows with an adapter get the adapter's change added, so the
    /// weight itself is read once for all rows.
    fn matmul(&self, x: &Self::Buffer, jobs: &mut [MatMul<'_, Self>]) -> Result<(), Error>;

    /// A feed-forward network of experts: `out[r] = Σ weight(e) * down_e(act(gate_e(x[r]), up_e(x[r])))` over
    /// the experts `e` that the router chooses for the row, `[rows, hidden]`. Reads only the weights of
    /// experts that some row chose.
    fn mixture(
        &self,
        x: &Self::Buffer,
        spec: &Mixture<'_, Self>,
        out: &mut Self::Buffer,
    ) -> Result<(), Error>;

    /// Multiplies each head with a matrix of its own: `x` is `[rows, heads * inputs]`, `out` is
    /// `[rows, heads * outputs]`, and head `h` of `out` is `w_h` times head `h` of `x`.
    fn each_head(&self, x: &Self::Buffer, w: &Self::Experts, out: &mut Self::Buffer) -> Result<(), Error>;

    /// Computes the rotations of every row for [`Backend::rope_store`]: `[rows, 2 * frequencies]`, for each
    /// frequency `f` the pair `magnitude * (cos, sin)(position * f)`; see [`Rope`](crate::Rope).
    fn rotations(
        &self,
        frequencies: &Self::Vector,
        magnitude: f32,
        positions: &[u32],
        out: &mut Self::Buffer,
    ) -> Result<(), Error>;

    /// Normalizes (where the layer has norms) and rotates queries and keys in place, then writes keys and
    /// values to the batch's pages of `spec.layer`.
    fn rope_store(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &mut Self::Buffer,
        k: &mut Self::Buffer,
        v: &Self::Buffer,
        cache: &mut Self::Cache,
    ) -> Result<(), Error>;

    /// Causal attention of the queries `[rows, heads * head_dim]` over the cached keys and values:
    /// `out = softmax(cap(scale · q kᵀ) + mask) v`, grouped-query, `[rows, heads * head_dim]`. Memory is
    /// O(context).
    fn attention(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &Self::Buffer,
        cache: &Self::Cache,
        out: &mut Self::Buffer,
    ) -> Result<(), Error>;

    /// `gate = activation(gate) * up`.
    fn gated_activation(
        &self,
        activation: Activation,
        gate: &mut Self::Buffer,
        up: &Self::Buffer,
    ) -> Result<(), Error>;

    /// `x = activation(x)`: the activation of a feed-forward network without a gate.
    fn activation(&self, activation: Activation, x: &mut Self::Buffer) -> Result<(), Error>;

    /// `x += scale * delta`.
    fn add(&self, x: &mut Self::Buffer, delta: &Self::Buffer, scale: f32) -> Result<(), Error>;

    /// `x *= factor`.
    fn scale(&self, x: &mut Self::Buffer, factor: f32) -> Result<(), Error>;

    /// `x[r] *= sigmoid(gate[r])`, with a `gate` of `[rows, 1]`: the gate of a shared expert.
    fn scale_rows(&self, gate: &Self::Buffer, x: &mut Self::Buffer) -> Result<(), Error>;

    /// Copies pieces of the rows of `x` into the same rows of `out`: splits and joins heads and fused
    /// projections. Other columns of `out` keep their contents if `out` has as many rows as `x`; they are
    /// unspecified otherwise.
    fn copy_columns(&self, x: &Self::Buffer, columns: &Columns, out: &mut Self::Buffer) -> Result<(), Error>;

    /// `out[i] = x[rows[i]]`.
    fn gather(&self, x: &Self::Buffer, rows: &[u32], out: &mut Self::Buffer) -> Result<(), Error>;

    /// `x = cap * tanh(x / cap)`.
    fn soft_cap(&self, x: &mut Self::Buffer, cap: f32) -> Result<(), Error>;

    /// Finds the highest numbers of every row (top k): `out[r]` holds the `out.columns / 2` highest of
    /// `x[r]`, highest first and among equal ones the first column first, then their column numbers as the
    /// bits of a `u32`. Skips minus infinity and NaN; if too few other numbers exist, minus infinity fills
    /// the rest.
    fn top_k(&self, x: &Self::Buffer, out: &mut Self::Buffer) -> Result<(), Error>;

    /// Returns a buffer's rows, `[rows * columns]`, in place if the device's memory is the host's.
    fn host<'a>(&self, x: &'a Self::Buffer) -> Option<&'a [f32]>;

    /// Copies a buffer's rows to the host, `[rows * columns]`, replacing the contents of `out`.
    fn read(&self, x: &Self::Buffer, out: &mut Vec<f32>) -> Result<(), Error>;

    /// Waits until the device has done all started work, so that passes whose results are not read do not
    /// queue up before later ones. Does nothing on backends whose calls return when their work is done.
    ///
    /// # Errors
    /// The device's error, if that work failed.
    fn wait(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Replaces a buffer's rows with rows from the host, `[rows * columns]`.
    fn write(&self, values: &[f32], x: &mut Self::Buffer) -> Result<(), Error>;

    /// Number of rows in a buffer.
    fn rows(&self, x: &Self::Buffer) -> usize;

    /// Number of columns in a buffer's rows.
    fn columns(&self, x: &Self::Buffer) -> usize;

    /// Copies one of a buffer's rows to the host, `[columns]`, replacing the contents of `out`. May be called
    /// on the threads of [`Backend::on_host_threads`].
    fn read_row(&self, x: &Self::Buffer, row: usize, out: &mut Vec<f32>) -> Result<(), Error>;

    /// Runs a forward pass over `batch`: `run` calls its operations. A backend may record the operations and,
    /// for a later batch of the same shape, start the recording without calling `run`; only the batch differs
    /// then. `owner` identifies everything else that `run` uses, such as the model and its buffers.
    fn pass<E: From<Error>>(
        &self,
        owner: u64,
        batch: &Batch,
        run: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let _ = (owner, batch);
        run()
    }

    /// Calls `each(i)` for every `i < count` on the backend's host threads, if it has any. Meant for work of
    /// several microseconds or more between two passes, such as sampling.
    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(each);
    }

    /// Announces `count` calls of [`Backend::on_host_threads`] at about the time `at`, so that threads can be
    /// awake by then.
    fn wake_hint(&self, count: usize, at: Instant) {
        let _ = (count, at);
    }
}
