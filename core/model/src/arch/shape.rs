//! The shape that a family reads from metadata: what all families have in common, and the steps by which a
//! family says what it does otherwise.

use realm_compute::{Activation, Gating, GroupRank, Groups, NormKind, RopeStyle, Routing, Window};

use super::reader::Reader;
use crate::Error;
use crate::rope::RopeScaling;
use crate::spec::{
    AttentionSpec, DenseSpec, ExpertsSpec, FeedForwardSpec, LayerSpec, NormPlaces, QkNorms, RopeSpec,
};

/// The shape of a model, without its name and vocabulary.
pub(crate) struct Shape {
    pub(crate) layers: Vec<LayerSpec>,
    /// Layers at the end of the file that predict further tokens and are not run.
    pub(crate) skipped_layers: usize,
    pub(crate) hidden: usize,
    pub(crate) context_length: usize,
    pub(crate) norm: NormKind,
    pub(crate) norm_eps: f32,
    pub(crate) ropes: Vec<RopeSpec>,
    pub(crate) embedding_scale: f32,
    pub(crate) residual_scale: f32,
    pub(crate) logit_scale: f32,
    pub(crate) final_soft_cap: Option<f32>,
}

/// The defaults of a family's experts, for files whose metadata does not say.
pub(super) struct Experts {
    pub(super) gating: Gating,
    /// Divides the weights of a row's experts by their sum.
    pub(super) normalize: bool,
    /// Multiplies an expert's input by its weight, instead of its output.
    pub(super) weights_input: bool,
    /// Numbers per hidden state of an expert; `None` for as many as in a dense layer.
    pub(super) width: Option<usize>,
}

impl Experts {
    /// Experts whose weights are the router's probabilities.
    pub(super) fn plain(gating: Gating) -> Self {
        Self { gating, normalize: false, weights_input: false, width: None }
    }
}

impl Shape {
    /// Reads the shape of a plain decoder: RMS norms before attention and feed-forward network, rope in every
    /// layer, a gated SiLU, no window.
    pub(super) fn plain(r: &Reader<'_>, style: RopeStyle) -> Result<Self, Error> {
        let (all, hidden) = (r.dim("block_count")?, r.dim("embedding_length")?);
        // Each layer has tensors of its own. Without this check, a wrong number of layers could allocate
        // gigabytes.
        let tensors = r.gguf.tensors().len();
        if all > tensors {
            return Err(Error::InvalidModel(format!(
                "{all} layers are claimed, and the file has {tensors} tensors"
            )));
        }
        let skipped_layers = r.dim_or_none("nextn_predict_layers")?.unwrap_or(0);
        let layers = all.checked_sub(skipped_layers).filter(|&layers| layers > 0).ok_or_else(|| {
            Error::InvalidModel(format!("{skipped_layers} of {all} layers predict further tokens"))
        })?;
        let heads =
            r.dims("attention.head_count", layers)?.ok_or_else(|| r.missing("attention.head_count"))?;
        let kv_heads = r.dims("attention.head_count_kv", layers)?.unwrap_or_else(|| heads.clone());
        let widths =
            r.dims("feed_forward_length", layers)?.ok_or_else(|| r.missing("feed_forward_length"))?;
        let head_dim = match r.optional_dim("attention.key_length")? {
            Some(dim) => dim,
            None if hidden.is_multiple_of(heads[0]) => hidden / heads[0],
            None => return Err(Error::InvalidModel(format!("{} heads over {hidden} numbers", heads[0]))),
        };
        let context_length = r.dim("context_length")?;
        let rope = RopeSpec {
            dim: r.optional_dim("rope.dimension_count")?.unwrap_or(head_dim),
            base: r.optional_float("rope.freq_base")?.unwrap_or(10_000.0),
            scaling: RopeScaling::from_metadata(r.metadata(), r.prefix, context_length)?,
            style,
            factors: true,
        };
        let layer = |i: usize| {
            if !heads[i].is_multiple_of(kv_heads[i]) {
                let (heads, kv_heads) = (heads[i], kv_heads[i]);
                return Err(Error::InvalidModel(format!(
                    "{heads} query heads over {kv_heads} key/value heads"
                )));
            }
            Ok(LayerSpec {
                attention: AttentionSpec {
                    heads: heads[i],
                    kv_heads: kv_heads[i],
                    head_dim,
                    rope: Some(0),
                    window: None,
                    scale: 1.0 / (head_dim as f32).sqrt(),
                    soft_cap: None,
                    qk_norms: None,
                    sinks: false,
                    temperature: None,
                    latent: None,
                },
                feed_forward: FeedForwardSpec::Dense(DenseSpec {
                    width: widths[i],
                    gated: true,
                    activation: Activation::Silu,
                }),
                norms: NormPlaces::Before,
            })
        };
        Ok(Self {
            layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
            skipped_layers,
            hidden,
            context_length,
            norm: NormKind::Rms,
            norm_eps: r.optional_float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6),
            ropes: vec![rope],
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            final_soft_cap: None,
        })
    }

    /// Changes every layer's attention.
    pub(super) fn attention(&mut self, change: impl Fn(usize, &mut AttentionSpec)) {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            change(i, &mut layer.attention);
        }
    }

    /// Puts the norms of every layer in other places.
    pub(super) fn norms(&mut self, places: NormPlaces) {
        self.layers.iter_mut().for_each(|layer| layer.norms = places);
    }

    /// Makes all norms layer norms.
    pub(super) fn layer_norms(&mut self, r: &Reader<'_>) -> Result<(), Error> {
        self.norm = NormKind::Layer;
        self.norm_eps = r.optional_float("attention.layer_norm_epsilon")?.unwrap_or(1e-5);
        Ok(())
    }

    /// Changes the dense networks of all layers.
    pub(super) fn dense(&mut self, gated: bool, activation: Activation) {
        for layer in &mut self.layers {
            if let FeedForwardSpec::Dense(dense) = &mut layer.feed_forward {
                (dense.gated, dense.activation) = (gated, activation);
            }
        }
    }

    /// Gives queries and keys of every layer norms.
    pub(super) fn qk_norms(&mut self, norms: QkNorms) {
        self.attention(|_, attention| attention.qk_norms = Some(norms));
    }

    /// Sets the scale of attention scores from the metadata, where they have one.
    pub(super) fn attention_scale(&mut self, r: &Reader<'_>) -> Result<(), Error> {
        if let Some(scale) = r.float_or_none("attention.scale")? {
            self.attention(|_, attention| attention.scale = scale);
        }
        Ok(())
    }

    /// Gives layers a sliding window: those that the metadata name, or all but every `every`th.
    pub(super) fn windows(&mut self, r: &Reader<'_>, window: usize, every: usize) {
        let every = r.code("attention.sliding_window_pattern").map_or(every, |every| every as usize);
        let named = r.flags("attention.sliding_window_pattern", self.layers.len());
        self.attention(|i, attention| {
            let windowed = match &named {
                Some(named) => named[i],
                None => every == 0 || i % every < every - 1,
            };
            attention.window = windowed.then_some(Window::Sliding(window));
        });
    }

    /// Gives layers with a window a rope without scaling, of a base of its own where the metadata have one.
    pub(super) fn rope_in_windows(&mut self, r: &Reader<'_>) -> Result<(), Error> {
        let base = r.optional_float("rope.freq_base_swa")?.unwrap_or(self.ropes[0].base);
        self.ropes.push(RopeSpec { base, scaling: RopeScaling::None, factors: false, ..self.ropes[0] });
        self.attention(|_, attention| attention.rope = Some(usize::from(attention.window.is_some())));
        Ok(())
    }

    /// Replaces feed-forward networks by experts, beside a shared network of `shared` numbers per hidden
    /// state. Layers that the metadata name as dense stay so.
    ///
    /// # Errors
    /// `InvalidModel` if the metadata has impossible numbers of experts.
    pub(super) fn experts(
        &mut self,
        r: &Reader<'_>,
        defaults: &Experts,
        shared: Option<usize>,
    ) -> Result<(), Error> {
        let count = r.dim("expert_count")?;
        let used = r.dim("expert_used_count")?;
        if used > count {
            return Err(Error::InvalidModel(format!("{used} of {count} experts are used")));
        }
        let gating = match r.code("expert_gating_func") {
            None | Some(0) => defaults.gating,
            Some(1) => Gating::Softmax,
            Some(2) => Gating::Sigmoid,
            Some(3) => Gating::SoftmaxOfChosen,
            Some(other) => {
                return Err(Error::Unsupported(format!(
                    "metadata `{}` is {other}; 1 (softmax), 2 (sigmoid) and 3 (softmax of the chosen) are supported",
                    r.key("expert_gating_func")
                )));
            }
        };
        let groups = match (r.dim_or_none("expert_group_count")?, r.dim_or_none("expert_group_used_count")?) {
            (Some(count), Some(used)) if count > 1 && used < count => {
                Some(Groups { count, used, rank: GroupRank::BestTwo })
            }
            _ => None,
        };
        if groups.is_some_and(|groups| !count.is_multiple_of(groups.count)) {
            return Err(Error::InvalidModel(format!("{count} experts in groups of unequal size")));
        }
        let routing = Routing {
            used,
            gating,
            groups,
            normalize: r.flag("expert_weights_norm").unwrap_or(defaults.normalize),
            scale: r.float_or_none("expert_weights_scale")?.unwrap_or(1.0),
            weights_input: defaults.weights_input,
        };
        let width = r.dim_or_none("expert_feed_forward_length")?.or(defaults.width);
        let first = r.dim_or_none("leading_dense_block_count")?.unwrap_or(0);
        let step = r.dim_or_none("interleave_moe_layer_step")?.unwrap_or(1);
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let FeedForwardSpec::Dense(dense) = layer.feed_forward else { continue };
            if i < first || !(i + 1).is_multiple_of(step) {
                continue;
            }
            let expert = DenseSpec { width: width.unwrap_or(dense.width), ..dense };
            let shared = shared.map(|width| DenseSpec { width, ..dense });
            layer.feed_forward = FeedForwardSpec::Experts(ExpertsSpec { count, routing, expert, shared });
        }
        Ok(())
    }

    /// Gives the layers for which `without` is true no rope.
    pub(super) fn no_rope(&mut self, without: impl Fn(usize, &AttentionSpec) -> bool) {
        self.attention(|i, attention| {
            if without(i, attention) {
                attention.rope = None;
            }
        });
    }

    /// Checks what the forward pass relies on.
    pub(super) fn check(&self) -> Result<(), Error> {
        let first = &self.layers[0].attention;
        let kept = |attention: &AttentionSpec| {
            (attention.head_dim, attention.latent.map(|latent| (latent, attention.heads)))
        };
        let mut all = self.layers.iter().map(|layer| &layer.attention);
        if let Some(i) = all.clone().position(|attention| kept(attention) != kept(first)) {
            return Err(Error::Unsupported(format!(
                "layers 0 and {i} differ in heads, which is not supported"
            )));
        }
        // A page moves between groups of layers, so a layer that does not fill its slot could find numbers
        // there that belong to another sequence.
        if all.clone().any(|attention| attention.kv_heads != first.kv_heads)
            && all.any(|attention| attention.seen() != first.seen())
        {
            return Err(Error::Unsupported(
                "layers that differ both in key/value heads and in windows are not supported".into(),
            ));
        }
        for rope in &self.ropes {
            let attention = &self.layers[0].attention;
            let head_dim = attention.latent.map_or(attention.head_dim, |latent| latent.rotated);
            if rope.dim > head_dim || !rope.dim.is_multiple_of(2) {
                return Err(Error::InvalidModel(format!(
                    "{} rotated numbers in heads of {head_dim}",
                    rope.dim
                )));
            }
        }
        Ok(())
    }
}
