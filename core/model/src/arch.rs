//! The differences between the architectures.

use std::fmt;

use realm_compute::{Activation, RopeStyle};

use crate::Error;

/// An architecture that Realm runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
    Phi3,
}

/// The layers that have a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowPattern {
    /// Every layer, if the metadata has a window at all.
    All,
    /// All layers except every `n`th.
    AllButEvery(usize),
}

/// The differences between architectures, as data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    pub(crate) style: RopeStyle,
    pub(crate) activation: Activation,
    pub(crate) window: WindowPattern,
    /// Embeddings are multiplied by the square root of the hidden size.
    pub(crate) scaled_embeddings: bool,
    /// Norms on each query and key head.
    pub(crate) qk_norms: bool,
    /// Norms on the outputs of attention and feed-forward, before they are added to the residual stream.
    pub(crate) post_norms: bool,
    /// Queries, keys and values share one tensor; gate and up share one.
    pub(crate) fused: bool,
    /// The rope base of layers with a window, if it differs.
    pub(crate) local_rope_base: Option<f32>,
}

impl Architecture {
    /// All architectures.
    pub const ALL: [Self; 6] =
        [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Gemma2, Self::Gemma3, Self::Phi3];

    /// The name in `general.architecture`, which prefixes the model's metadata keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
        }
    }

    /// Returns the architecture named `name`.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|a| a.name()).collect();
            let name: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            Error::Unsupported(format!(
                "the architecture `{name}` is not supported; supported are {}",
                known.join(", ")
            ))
        })
    }

    pub(crate) const fn traits(self) -> Traits {
        let plain = Traits {
            style: RopeStyle::Half,
            activation: Activation::Silu,
            window: WindowPattern::All,
            scaled_embeddings: false,
            qk_norms: false,
            post_norms: false,
            fused: false,
            local_rope_base: None,
        };
        let gemma = Traits {
            activation: Activation::GeluTanh,
            scaled_embeddings: true,
            post_norms: true,
            window: WindowPattern::AllButEvery(2),
            ..plain
        };
        match self {
            // Files of the llama family have their query and key rows permuted for this style.
            Self::Llama => Traits { style: RopeStyle::Interleaved, ..plain },
            Self::Qwen2 => plain,
            Self::Qwen3 => Traits { qk_norms: true, ..plain },
            Self::Gemma2 => gemma,
            Self::Gemma3 => Traits {
                qk_norms: true,
                window: WindowPattern::AllButEvery(6),
                local_rope_base: Some(10_000.0),
                ..gemma
            },
            Self::Phi3 => Traits { fused: true, ..plain },
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
