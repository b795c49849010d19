//! A model's weights, loaded onto a backend.

use std::sync::Arc;

use realm_compute::{Backend, CacheSpec, CacheType, Rope};
use realm_gguf::Gguf;

use crate::adapter::{Adapter, AdapterFile, AdapterWeights};
use crate::block::{Layer, Linear, NormWeights};
use crate::layerwise::{Layerwise, LayerwiseRunner};
use crate::load::Loader;
use crate::names::{self, TensorId};
use crate::pass::{Forward, Runner};
use crate::rope::{RopeScaling, frequencies};
use crate::spec::RopeSpec;
use crate::{Error, ModelConfig};

/// A model's weights on a backend, independent of the backend's type; shared by all users of the model.
pub trait Weights: Send + Sync {
    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// The device in words, for example `cpu (AVX2, 2 threads)`.
    fn device(&self) -> String;

    /// Bytes per second that the device's memory delivers by its specification, if the device says so.
    fn memory_bandwidth(&self) -> Option<u64>;

    /// Identifies these weights: a digest of the model's shape and of samples of each tensor. Another model
    /// of the same shape has another identity, unless its file was made on purpose to agree in the samples.
    fn identity(&self) -> [u8; 32];

    /// Bytes per page of the KV cache.
    fn page_bytes(&self, kind: CacheType) -> usize;

    /// Fits an adapter to the model and uploads it. The adapter serves any number of this model's runners,
    /// and is freed with its last handle.
    fn adapter(&self, file: &AdapterFile) -> Result<Arc<dyn AdapterWeights>, Error>;

    /// Returns outputs and inputs of a weight matrix, named as in a GGUF file; `None` if the model has no
    /// such matrix.
    fn shape_of(&self, weight: &str) -> Option<[usize; 2]> {
        TensorId::from_gguf(weight).and_then(|id| self.config().shape_of(id))
    }

    /// Creates work buffers to compute the pass in single operations, with caches of type `kind`.
    fn layerwise(&self, kind: CacheType) -> Result<Box<dyn Layerwise>, Error>;

    /// Creates a KV cache of `pages` pages and the work buffers to run batches over it.
    fn runner(&self, pages: usize, kind: CacheType) -> Result<Box<dyn Forward>, Error>;
}

/// The weights of a decoder.
pub struct Transformer<B: Backend> {
    pub(crate) backend: Arc<B>,
    pub(crate) config: ModelConfig,
    pub(crate) embeddings: B::Matrix,
    pub(crate) layers: Vec<Layer<B>>,
    pub(crate) output_norm: NormWeights<B>,
    /// The output matrix; `None` if the embeddings serve as output.
    output: Option<Linear<B>>,
    /// Set if the matrices of layers are integer codes: adapters then need at most 16 bits.
    pub(crate) quantized: bool,
    /// The ropes of [`ModelConfig::ropes`].
    pub(crate) ropes: Vec<Rope<B>>,
    /// See [`Weights::identity`].
    pub(crate) identity: [u8; 32],
}

impl<B: Backend> Transformer<B> {
    /// Loads all weights onto `backend`, layer by layer. Calls `progress(done, total)` with bytes of the
    /// file.
    ///
    /// # Errors
    /// `Unsupported` for an architecture or a variant that Realm or the backend does not run, `InvalidModel`
    /// for a file that is broken.
    pub fn load(backend: Arc<B>, gguf: &Gguf, progress: &mut dyn FnMut(u64, u64)) -> Result<Self, Error> {
        let config = ModelConfig::from_gguf(gguf)?;
        if let Some(feature) = config.lacking(gguf, &*backend) {
            return Err(Error::Unsupported(format!(
                "this {} model needs {feature}, which {} does not compute; load it on the CPU (device `cpu`)",
                config.architecture,
                backend.description(),
            )));
        }
        let mut loader = Loader::new(&*backend, gguf, &config, progress);
        let embeddings = loader.matrix(TensorId::Embeddings, config.hidden, config.vocab)?;
        let ropes = ropes(&*backend, &mut loader, &config)?;
        // Grows with the tensors that are found, so that a wrong number of layers costs no memory.
        let mut layers = Vec::new();
        for (i, spec) in config.layers.iter().enumerate() {
            layers.push(Layer::load(&mut loader, &config, i, spec)?);
        }
        let output_norm = loader.norm(TensorId::OutputNorm, config.hidden)?;
        let output = match loader.has(TensorId::Output) {
            true => Some(loader.linear(TensorId::Output, config.hidden, config.vocab)?),
            false => None,
        };
        let (quantized, identity) = loader.finish(&config)?;
        Ok(Self { backend, config, embeddings, layers, output_norm, output, quantized, ropes, identity })
    }

    /// Returns the output matrix and its bias.
    pub(crate) fn output(&self) -> (&B::Matrix, Option<&B::Vector>) {
        match &self.output {
            Some(output) => (&output.weight, output.bias.as_ref()),
            None => (&self.embeddings, None),
        }
    }
}

/// Loads the frequencies of a model's ropes.
fn ropes<B: Backend>(b: &B, loader: &mut Loader<'_, B>, c: &ModelConfig) -> Result<Vec<Rope<B>>, Error> {
    let Some(first) = c.ropes.first() else { return Ok(Vec::new()) };
    let mut read = |name| loader.rope_factors(name, first.dim / 2);
    let all = read(names::ROPE_FACTORS)?;
    // Exporters write factors for short and for long contexts, of which one is used; see
    // `RopeScaling::LongRope`.
    let (short, long) = (read(names::ROPE_FACTORS_SHORT)?, read(names::ROPE_FACTORS_LONG)?);
    let stretched = match first.scaling {
        RopeScaling::LongRope { original_context, .. } => c.context_length > original_context,
        _ => false,
    };
    let factors = if stretched { long } else { short }.or(all);
    let rope = |spec: &RopeSpec| {
        let factors = factors.as_deref().filter(|_| spec.factors);
        let (frequencies, magnitude) = frequencies(spec.dim, spec.base, spec.scaling, factors);
        Ok(Rope { frequencies: b.vector(&frequencies)?, magnitude })
    };
    c.ropes.iter().map(rope).collect()
}

impl<B: Backend> Weights for Arc<Transformer<B>> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn device(&self) -> String {
        self.backend.description()
    }

    fn memory_bandwidth(&self) -> Option<u64> {
        self.backend.memory_bandwidth()
    }

    fn identity(&self) -> [u8; 32] {
        self.identity
    }

    fn page_bytes(&self, kind: CacheType) -> usize {
        CacheSpec { layout: self.config.cache_layout(), pages: 1, kind }.page_bytes()
    }

    fn adapter(&self, file: &AdapterFile) -> Result<Arc<dyn AdapterWeights>, Error> {
        Ok(Arc::new(Adapter::new(self, file)?))
    }

    fn runner(&self, pages: usize, kind: CacheType) -> Result<Box<dyn Forward>, Error> {
        Ok(Box::new(Runner::new(self.clone(), pages, kind)?))
    }

    fn layerwise(&self, kind: CacheType) -> Result<Box<dyn Layerwise>, Error> {
        Ok(Box::new(LayerwiseRunner::new(self.clone(), kind)?))
    }
}
