//! The families of models that are read, as data.

use crate::Error;
use crate::error::short;

/// A family: the classes of transformers, and how its GGUF files differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    classes: &'static [&'static str],
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// Set if rows of queries and keys are reordered, so that the numbers that rope turns together are
    /// neighbors.
    pub(super) permuted: bool,
    /// Set if norms are stored less 1.
    pub(super) shifted_norms: bool,
    pub(super) norms: Norms,
    /// Set if norms are LayerNorm.
    pub(super) layer_norm: bool,
}

/// The norms around a layer's two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norms {
    /// Before each part.
    Before,
    /// After each part.
    After,
    /// Before and after, as Gemma names them.
    Gemma,
    /// Before and after, as GLM-4 names them.
    Glm4,
}

const PLAIN: Family = Family {
    classes: &[],
    name: "",
    permuted: false,
    shifted_norms: false,
    norms: Norms::Before,
    layer_norm: false,
};

const GEMMA: Family = Family { shifted_norms: true, norms: Norms::Gemma, ..PLAIN };

#[rustfmt::skip]
const ALL: [Family; 15] = [
    Family { classes: &["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"], name: "llama", permuted: true, ..PLAIN },
    Family { classes: &["Qwen2ForCausalLM"], name: "qwen2", ..PLAIN },
    Family { classes: &["Qwen2MoeForCausalLM"], name: "qwen2moe", ..PLAIN },
    Family { classes: &["Qwen3ForCausalLM"], name: "qwen3", ..PLAIN },
    Family { classes: &["Qwen3MoeForCausalLM"], name: "qwen3moe", ..PLAIN },
    Family { classes: &["Gemma2ForCausalLM"], name: "gemma2", ..GEMMA },
    Family { classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"], name: "gemma3", ..GEMMA },
    Family { classes: &["Phi3ForCausalLM"], name: "phi3", ..PLAIN },
    Family { classes: &["SmolLM3ForCausalLM"], name: "smollm3", permuted: true, ..PLAIN },
    Family { classes: &["GraniteForCausalLM"], name: "granite", permuted: true, ..PLAIN },
    Family { classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"], name: "olmo2", norms: Norms::After, ..PLAIN },
    Family { classes: &["OlmoeForCausalLM"], name: "olmoe", ..PLAIN },
    Family { classes: &["Cohere2ForCausalLM"], name: "cohere2", layer_norm: true, ..PLAIN },
    Family { classes: &["Starcoder2ForCausalLM"], name: "starcoder2", layer_norm: true, ..PLAIN },
    Family { classes: &["Glm4ForCausalLM"], name: "glm4", norms: Norms::Glm4, ..PLAIN },
];

impl Family {
    /// Returns the family of a class of transformers.
    pub(super) fn of(class: &str) -> Result<&'static Self, Error> {
        ALL.iter().find(|family| family.classes.contains(&class)).ok_or_else(|| {
            let known: Vec<_> = ALL.iter().flat_map(|family| family.classes).copied().collect();
            Error::Unsupported(format!(
                "config.json: the class `{}` is not converted; these are: {}. llama.cpp's converter may know it",
                short(class),
                known.join(", ")
            ))
        })
    }
}
