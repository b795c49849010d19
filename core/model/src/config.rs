//! A model's configuration, read from a file's metadata and checked.

use realm_compute::{Backend, CacheLayout, Feature, NormKind, NormSpan, Window};
use realm_gguf::Gguf;

use crate::Error;
use crate::arch::{self, Architecture};
use crate::names::{LayerTensor, TensorId};
use crate::spec::{FeedForwardSpec, LayerSpec, QkNormWeights, RopeSpec};

/// A model's shape.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// The model's architecture.
    pub architecture: Architecture,
    /// The model's name, `general.name`.
    pub name: Option<String>,
    /// The layers.
    pub layers: Vec<LayerSpec>,
    /// Layers at the end of the file that predict further tokens. They are not run.
    pub skipped_layers: usize,
    /// Numbers per hidden state.
    pub hidden: usize,
    /// Number of tokens in the vocabulary.
    pub vocab: usize,
    /// The longest context that the model was trained for, in tokens.
    pub context_length: usize,
    /// The formula of the norms.
    pub norm: NormKind,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// The ways to rotate queries and keys; a layer's attention names one of them.
    pub ropes: Vec<RopeSpec>,
    /// Factor on embeddings.
    pub embedding_scale: f32,
    /// Factor on what layers add to the residual stream.
    pub residual_scale: f32,
    /// Factor on logits.
    pub logit_scale: f32,
    /// Soft cap on logits.
    pub final_soft_cap: Option<f32>,
    /// The pooling of hidden states to an embedding, if the file names one.
    pub pooling: Option<Pooling>,
    /// Number of weights in the file.
    pub parameters: u64,
}

/// The hidden states that make up an embedding: `pooling_type` of a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all hidden states.
    Mean,
    /// The hidden state of the first token.
    Cls,
    /// The hidden state of the last token.
    Last,
}

impl ModelConfig {
    /// Reads and checks the metadata.
    ///
    /// # Errors
    /// `Unsupported` for an architecture that Realm does not run, `InvalidModel` for metadata that are
    /// missing or impossible.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let metadata = gguf.metadata();
        let architecture = Architecture::from_name(metadata.require_str("general.architecture")?)?;
        let shape = architecture.shape(gguf)?;
        let pooling = metadata.u64(&format!("{architecture}.pooling_type"));
        Ok(Self {
            architecture,
            // A name of another type is no reason not to run the model.
            name: metadata.str("general.name").ok().flatten().map(str::to_owned),
            layers: shape.layers,
            skipped_layers: shape.skipped_layers,
            hidden: shape.hidden,
            vocab: arch::vocab(gguf)?,
            context_length: shape.context_length,
            norm: shape.norm,
            norm_eps: shape.norm_eps,
            ropes: shape.ropes,
            embedding_scale: shape.embedding_scale,
            residual_scale: shape.residual_scale,
            logit_scale: shape.logit_scale,
            final_soft_cap: shape.final_soft_cap,
            // 0 is no pooling, 4 the ranking of a classifier's head.
            pooling: match pooling.ok().flatten() {
                Some(1) => Some(Pooling::Mean),
                Some(2) => Some(Pooling::Cls),
                Some(3) => Some(Pooling::Last),
                _ => None,
            },
            parameters: gguf.tensors().iter().map(|t| t.len() as u64).sum(),
        })
    }

    /// Returns how layers share the pages of the KV cache.
    pub fn cache_layout(&self) -> CacheLayout {
        let windows: Vec<_> = self.layers.iter().map(|layer| layer.attention.seen()).collect();
        let (kv_heads, head_dim) = self.cached();
        CacheLayout::new(kv_heads, head_dim, &windows)
    }

    /// Returns the layout of a cache of one layer.
    pub fn cache_of_one_layer(&self) -> CacheLayout {
        let (kv_heads, head_dim) = self.cached();
        CacheLayout::new(kv_heads, head_dim, &[None])
    }

    /// The most key/value heads of a layer, and the numbers in each, which are as many in all layers.
    fn cached(&self) -> (usize, usize) {
        let heads = self.layers.iter().map(|layer| layer.attention.kv_heads).max().unwrap_or(1);
        (heads, self.layers.first().map_or(1, |layer| layer.attention.head_dim))
    }

    /// Returns outputs and inputs of a weight matrix; `None` if the model has no such matrix.
    pub fn shape_of(&self, id: TensorId) -> Option<[usize; 2]> {
        use LayerTensor::{
            AttentionOutput, Down, Gate, K, KeyValueDown, Q, QueryDown, QueryUp, SharedDown, SharedGate,
            SharedUp, Up, V,
        };
        let (layer, tensor) = match id {
            TensorId::Embeddings | TensorId::Output => return Some([self.vocab, self.hidden]),
            TensorId::OutputNorm => return None,
            TensorId::Layer(layer, tensor) => (self.layers.get(layer)?, tensor),
        };
        let (attention, hidden) = (&layer.attention, self.hidden);
        let (dense, shared) = match &layer.feed_forward {
            FeedForwardSpec::Dense(dense) => (Some(dense), None),
            FeedForwardSpec::Experts(experts) => (None, experts.shared.as_ref()),
        };
        match tensor {
            Q if attention.latent.is_some_and(|latent| latent.query_rank.is_some()) => None,
            Q => Some([attention.projected_queries(), hidden]),
            K | V if attention.latent.is_none() => Some([attention.keys(), hidden]),
            QueryDown => Some([attention.latent?.query_rank?, hidden]),
            QueryUp => Some([attention.projected_queries(), attention.latent?.query_rank?]),
            KeyValueDown => attention.latent.map(|_| [attention.keys(), hidden]),
            AttentionOutput => Some([hidden, attention.values()]),
            Gate => dense.filter(|dense| dense.gated).map(|dense| [dense.width, hidden]),
            Up => dense.map(|dense| [dense.width, hidden]),
            Down => dense.map(|dense| [hidden, dense.width]),
            SharedGate => shared.filter(|dense| dense.gated).map(|dense| [dense.width, hidden]),
            SharedUp => shared.map(|dense| [dense.width, hidden]),
            SharedDown => shared.map(|dense| [hidden, dense.width]),
            _ => None,
        }
    }

    /// Returns number, outputs and inputs of the matrices of experts; `None` if the model has no such tensor.
    pub fn experts_of(&self, id: TensorId) -> Option<[usize; 3]> {
        use LayerTensor::{ExpertDowns, ExpertGateUps, ExpertGates, ExpertUps};
        let TensorId::Layer(layer, tensor) = id else { return None };
        let FeedForwardSpec::Experts(spec) = &self.layers.get(layer)?.feed_forward else { return None };
        let (width, hidden) = (spec.expert.width, self.hidden);
        match tensor {
            ExpertGates | ExpertGateUps if !spec.expert.gated => None,
            ExpertGates | ExpertUps => Some([spec.count, width, hidden]),
            ExpertGateUps => Some([spec.count, 2 * width, hidden]),
            ExpertDowns => Some([spec.count, hidden, width]),
            _ => None,
        }
    }

    /// Returns what a model of this shape needs and `backend` does not compute, if there is such a thing.
    pub fn lacking<B: Backend>(&self, gguf: &Gguf, backend: &B) -> Option<Feature> {
        let matrices = gguf.tensors().iter().filter(|tensor| tensor.shape.len() > 1);
        let weights = matrices.map(|tensor| Feature::Weights(tensor.ty));
        self.features().into_iter().chain(weights).find(|feature| !backend.supports(*feature))
    }

    /// Returns what the model needs that not every backend computes.
    fn features(&self) -> Vec<Feature> {
        let mut all = Vec::new();
        let mut need = |needed: bool, feature: Feature| {
            if needed && !all.contains(&feature) {
                all.push(feature);
            }
        };
        let (most_heads, _) = self.cached();
        need(self.norm == NormKind::Layer, Feature::LayerNorm);
        need(self.residual_scale != 1.0 || self.logit_scale != 1.0, Feature::Multipliers);
        for LayerSpec { attention, feed_forward, .. } in &self.layers {
            if let Some(norms) = attention.qk_norms {
                need(norms.kind == NormKind::Layer, Feature::LayerNorm);
                need(norms.span == NormSpan::Row, Feature::RowNorms);
                need(norms.after_rope, Feature::NormAfterRope);
                need(norms.weights == QkNormWeights::None, Feature::PlainNorm);
            }
            need(attention.rope.is_none(), Feature::NoRope);
            need(attention.kv_heads != most_heads, Feature::UnequalHeads);
            need(attention.sinks, Feature::Sinks);
            need(attention.temperature.is_some(), Feature::Temperature);
            need(matches!(attention.window, Some(Window::Chunked(_))), Feature::ChunkedWindow);
            need(true, Feature::HeadDim(attention.head_dim));
            need(attention.latent.is_some(), Feature::HeadMatrices);
            need(attention.latent.is_some(), Feature::Columns);
            need(matches!(feed_forward, FeedForwardSpec::Experts(_)), Feature::Experts);
            if let Some(dense) = feed_forward.every_row() {
                need(!dense.gated, Feature::Ungated);
                need(dense.gated, Feature::Gated(dense.activation));
            }
        }
        all
    }
}
