//! The forward pass, layer by layer.

use std::sync::Arc;

use realm_engine::Answer;
use realm_model::{ActivationId, Slice};
use wasmtime::component::Resource;

use crate::bindings::realm::tenant::layers as wit;
use crate::error::HostError;
use crate::handles::{KvCache, Layer, Layerwise, Logits, Model, Tensor};
use crate::host::models::unknown_token;
use crate::state::State;
use crate::turn::Turn;
use crate::{Error, ErrorKind};

/// The most rows of a tensor: other requests may wait for one operation.
const MAX_ROWS: usize = 512;

/// The most numbers in a row of a tensor: more than any vocabulary has, and few enough that one row never
/// delays others.
const MAX_WIDTH: usize = 1 << 19;

/// The most operations that may be queued before the first is done.
const MAX_QUEUED: usize = 256;

type Computed = Result<(), realm_model::Error>;

impl State {
    fn layerwise(&mut self, model: &Resource<Model>) -> Result<Arc<Layerwise>, HostError> {
        let model = Arc::clone(self.model(model)?);
        if let Some(known) = self.layerwise.iter().find(|known| Arc::ptr_eq(&known.model, &model)) {
            return Ok(Arc::clone(known));
        }
        let internal = |error: realm_model::Error| Error::new(ErrorKind::Internal, error);
        let runner = model.weights.layerwise(model.engine.cache_type()).map_err(internal)?;
        let session = model.engine.layerwise(&self.context.tenant, runner)?;
        let layerwise = Arc::new(Layerwise { model, session });
        self.layerwise.push(Arc::clone(&layerwise));
        Ok(layerwise)
    }

    /// Creates a handle of a tensor, which `compute` makes.
    async fn tensor(
        &mut self,
        layerwise: &Arc<Layerwise>,
        [rows, width]: [usize; 2],
        compute: impl FnMut(&mut dyn realm_model::Layerwise, &mut Slice<'_>, ActivationId) -> Computed
        + Send
        + 'static,
    ) -> Result<Resource<Tensor>, HostError> {
        if rows == 0 || rows > MAX_ROWS {
            return Err(
                Error::invalid(format!("a tensor of {rows} rows; it may have from 1 to {MAX_ROWS}")).into()
            );
        }
        let charge = self.context.budget.charge(rows * width * size_of::<f32>())?;
        layerwise.make_room(&self.context.budget.turn).await?;
        let id = layerwise.session.make(compute)?;
        let tensor = Tensor { layerwise: Arc::clone(layerwise), id, rows, width, _charge: charge };
        Ok(self.table.push(tensor)?)
    }
}

impl Layerwise {
    /// Waits for the answer of an operation.
    async fn answer<T>(&self, turn: &Turn, answer: Answer<T>) -> Result<T, HostError> {
        Ok(turn.answer(self.model.engine.step_hooks(), answer).await?)
    }

    /// Waits until all queued operations are done.
    async fn flush(&self, turn: &Turn) -> Result<(), HostError> {
        self.answer(turn, self.session.flush()?).await
    }

    /// Waits until fewer operations are queued, if there are more than [`MAX_QUEUED`].
    async fn make_room(&self, turn: &Turn) -> Result<(), HostError> {
        if self.session.queued() > MAX_QUEUED { self.flush(turn).await } else { Ok(()) }
    }
}

/// The input of a layer.
struct Input {
    layerwise: Arc<Layerwise>,
    layer: usize,
    x: ActivationId,
    rows: usize,
    hidden: usize,
}

impl State {
    /// Checks that a tensor fits a layer: it is of the same model, and as wide as hidden states.
    fn input(&self, layer: &Resource<Layer>, x: &Resource<Tensor>) -> Result<Input, HostError> {
        let (layer, tensor) = (self.table.get(layer)?, self.table.get(x)?);
        let layerwise = Arc::clone(&layer.layerwise);
        let hidden = layerwise.model.weights.config().hidden;
        same_model(&layerwise, &tensor.layerwise)?;
        width(tensor, hidden)?;
        Ok(Input { layerwise, layer: layer.index, x: tensor.id, rows: tensor.rows, hidden })
    }
}

fn same_model(one: &Arc<Layerwise>, other: &Arc<Layerwise>) -> Result<(), Error> {
    if Arc::ptr_eq(one, other) { Ok(()) } else { Err(Error::invalid("these are of different models")) }
}

fn width(tensor: &Tensor, wanted: usize) -> Result<(), Error> {
    if tensor.width == wanted {
        return Ok(());
    }
    Err(Error::invalid(format!("rows of {} numbers where {wanted} are due", tensor.width)))
}

impl wit::HostTensor for State {
    async fn from_values(
        &mut self,
        model: Resource<Model>,
        rows: u32,
        width: u32,
        values: Vec<f32>,
    ) -> Result<Resource<Tensor>, HostError> {
        let (rows, width) = (rows as usize, width as usize);
        if width == 0 || Some(values.len()) != rows.checked_mul(width) {
            let why = format!("{} values for {rows} rows of {width}", values.len());
            return Err(Error::invalid(why).into());
        }
        if width > MAX_WIDTH {
            return Err(Error::limit(format!("rows of {width} numbers; they may have {MAX_WIDTH}")).into());
        }
        let _values = self.context.budget.charge_transfer(size_of_val(&values[..]))?;
        let layerwise = self.layerwise(&model)?;
        let made = self
            .tensor(&layerwise, [rows, width], move |pass, slice, to| pass.upload(slice, width, &values, to))
            .await?;
        // Queued operations hold the values: this one is done before the next is taken.
        layerwise.flush(&self.context.budget.turn).await?;
        Ok(made)
    }

    fn rows(&mut self, this: Resource<Tensor>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&this)?.rows as u32)
    }

    fn width(&mut self, this: Resource<Tensor>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&this)?.width as u32)
    }

    async fn read(&mut self, this: Resource<Tensor>) -> Result<Vec<f32>, HostError> {
        let tensor = self.table.get(&this)?;
        let _values = self.context.budget.charge_transfer(tensor.rows * tensor.width * size_of::<f32>())?;
        let id = tensor.id;
        let answer = tensor.layerwise.session.read(move |pass, slice, out| pass.read(slice, id, out))?;
        tensor.layerwise.answer(&self.context.budget.turn, answer).await
    }

    async fn gather(
        &mut self,
        this: Resource<Tensor>,
        rows: Vec<u32>,
    ) -> Result<Resource<Tensor>, HostError> {
        let tensor = self.table.get(&this)?;
        if let Some(row) = rows.iter().find(|&&row| row as usize >= tensor.rows) {
            return Err(Error::invalid(format!("row {row} of {}", tensor.rows)).into());
        }
        let (layerwise, id, width) = (Arc::clone(&tensor.layerwise), tensor.id, tensor.width);
        self.tensor(&layerwise, [rows.len(), width], move |pass, slice, to| pass.gather(slice, id, &rows, to))
            .await
    }

    async fn add(
        &mut self,
        this: Resource<Tensor>,
        other: Resource<Tensor>,
        scale: f32,
    ) -> Result<(), HostError> {
        let (x, other) = (self.table.get(&this)?, self.table.get(&other)?);
        same_model(&x.layerwise, &other.layerwise)?;
        if x.width != other.width || (other.rows != x.rows && other.rows != 1) {
            let why =
                format!("[{}, {}] can't be added to [{}, {}]", other.rows, other.width, x.rows, x.width);
            return Err(Error::invalid(why).into());
        }
        let (layerwise, x, other) = (Arc::clone(&x.layerwise), x.id, other.id);
        layerwise.make_room(&self.context.budget.turn).await?;
        Ok(layerwise.session.start(move |pass, slice| pass.add(slice, x, other, scale))?)
    }

    fn drop(&mut self, this: Resource<Tensor>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit::HostKvCache for State {
    async fn open(&mut self, model: Resource<Model>, tokens: u32) -> Result<Resource<KvCache>, HostError> {
        let layerwise = self.layerwise(&model)?;
        let (tokens, model) = (tokens as usize, &layerwise.model);
        let context = model.engine.context_length();
        let most = self.context.tenant.limits().kv_tokens.map_or(context, |limit| limit.min(context));
        if tokens == 0 || tokens > most {
            let why = format!("a cache of {tokens} tokens; it may have from 1 to {most}");
            return Err(Error::limit(why).into());
        }
        let config = model.weights.config();
        let groups = config.cache_layout().groups();
        let pages = tokens.div_ceil(realm_compute::PAGE_TOKENS) * groups;
        let charge =
            self.context.budget.charge(pages * model.weights.page_bytes(model.engine.cache_type()))?;
        let lens = vec![0; config.layers.len()];
        let id = layerwise.session.make(move |pass, slice, to| pass.open_cache(slice, tokens, to))?;
        // So that the cache holds nothing that has not been charged for.
        layerwise.flush(&self.context.budget.turn).await?;
        let cache = KvCache { layerwise, id, tokens, lens, _charge: charge };
        Ok(self.table.push(cache)?)
    }

    fn len(&mut self, this: Resource<KvCache>, layer: u32) -> Result<u32, HostError> {
        let lens = &self.table.get(&this)?.lens;
        Ok(*lens.get(layer as usize).ok_or_else(|| no_layer(layer, lens.len()))? as u32)
    }

    async fn truncate(&mut self, this: Resource<KvCache>, len: u32) -> wasmtime::Result<()> {
        let layerwise = Arc::clone(&self.table.get(&this)?.layerwise);
        layerwise.make_room(&self.context.budget.turn).await.map_err(HostError::fatal)?;
        let cache = self.table.get_mut(&this)?;
        cache.lens.iter_mut().for_each(|layer| *layer = (*layer).min(len as usize));
        let (id, len) = (cache.id, len as usize);
        let truncate = layerwise.session.start(move |pass, slice| pass.truncate_cache(slice, id, len));
        truncate.map_err(Error::from)?;
        Ok(())
    }

    fn drop(&mut self, this: Resource<KvCache>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

fn no_layer(layer: u32, layers: usize) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no layer {layer}; the model has {layers}"))
}

impl wit::HostLayer for State {
    async fn attention_forward(
        &mut self,
        this: Resource<Layer>,
        x: Resource<Tensor>,
        cache: Resource<KvCache>,
    ) -> Result<Resource<Tensor>, HostError> {
        let Input { layerwise, layer: index, x, rows, hidden } = self.input(&this, &x)?;
        let kv = self.table.get(&cache)?;
        same_model(&layerwise, &kv.layerwise)?;
        let (id, len) = (kv.id, kv.lens[index]);
        if len + rows > kv.tokens {
            let why =
                format!("{rows} tokens more than the {len} that the layer has in a cache for {}", kv.tokens);
            return Err(Error::limit(why).into());
        }
        let made = self
            .tensor(&layerwise, [rows, hidden], move |pass, slice, to| {
                pass.attention(slice, index, x, rows, id, to)
            })
            .await?;
        self.table.get_mut(&cache)?.lens[index] += rows;
        Ok(made)
    }

    async fn feed_forward(
        &mut self,
        this: Resource<Layer>,
        x: Resource<Tensor>,
    ) -> Result<Resource<Tensor>, HostError> {
        let Input { layerwise, layer: index, x, rows, hidden } = self.input(&this, &x)?;
        self.tensor(&layerwise, [rows, hidden], move |pass, slice, to| {
            pass.feed_forward(slice, index, x, rows, to)
        })
        .await
    }

    fn drop(&mut self, this: Resource<Layer>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit::Host for State {
    fn load_layer(&mut self, model: Resource<Model>, index: u32) -> Result<Resource<Layer>, HostError> {
        let layerwise = self.layerwise(&model)?;
        let layers = layerwise.model.weights.config().layers.len();
        if index as usize >= layers {
            return Err(no_layer(index, layers).into());
        }
        Ok(self.table.push(Layer { layerwise, index: index as usize })?)
    }

    async fn embed(
        &mut self,
        model: Resource<Model>,
        tokens: Vec<u32>,
    ) -> Result<Resource<Tensor>, HostError> {
        let layerwise = self.layerwise(&model)?;
        let (hidden, vocabulary) = (layerwise.model.weights.config().hidden, layerwise.model.vocabulary());
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(unknown_token(token, vocabulary).into());
        }
        self.tensor(&layerwise, [tokens.len(), hidden], move |pass, slice, to| pass.embed(slice, &tokens, to))
            .await
    }

    async fn matmul(&mut self, x: Resource<Tensor>, weight: String) -> Result<Resource<Tensor>, HostError> {
        let tensor = self.table.get(&x)?;
        let (layerwise, x, rows) = (Arc::clone(&tensor.layerwise), tensor.id, tensor.rows);
        let none = || Error::new(ErrorKind::NotFound, format!("the model has no weight matrix `{weight}`"));
        let [outputs, inputs] = layerwise.model.weights.shape_of(&weight).ok_or_else(none)?;
        width(tensor, inputs)?;
        self.tensor(&layerwise, [rows, outputs], move |pass, slice, to| {
            pass.matmul(slice, &weight, x, rows, to)
        })
        .await
    }

    async fn lm_head(&mut self, x: Resource<Tensor>) -> Result<Vec<Resource<Logits>>, HostError> {
        let tensor = self.table.get(&x)?;
        let (layerwise, id, rows) = (Arc::clone(&tensor.layerwise), tensor.id, tensor.rows);
        width(tensor, layerwise.model.weights.config().hidden)?;
        let vocabulary = layerwise.model.vocabulary();
        // Charged before they are computed, so that only logits with a charge exist: once as they are copied,
        // and once for the handles.
        let charge = self.charge_logits(rows * vocabulary)?;
        let _values = self.context.budget.charge_transfer(rows * vocabulary * size_of::<f32>())?;
        let answer = layerwise.session.read(move |pass, slice, out| pass.logits(slice, id, rows, out))?;
        let values = layerwise.answer(&self.context.budget.turn, answer).await?;
        let logits = |row: &[f32]| realm_engine::Logits::new(row.to_vec());
        self.new_logits_rows(values.chunks_exact(vocabulary).map(logits), charge)
    }
}
