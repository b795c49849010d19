//! The families of models that are read, as data.

use realm_model::names::NormNames;

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
    /// The names of norms.
    pub(super) norms: NormNames,
    /// Set if norms are LayerNorm.
    pub(super) layer_norm: bool,
}

const PLAIN: Family = Family {
    classes: &[],
    name: "",
    permuted: false,
    shifted_norms: false,
    norms: NormNames::Before,
    layer_norm: false,
};

const GEMMA: Family = Family { shifted_norms: true, norms: NormNames::Gemma, ..PLAIN };

#[rustfmt::skip]
const ALL: [Family; 20] = [
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
    Family { classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"], name: "olmo2", norms: NormNames::After, ..PLAIN },
    Family { classes: &["OlmoeForCausalLM"], name: "olmoe", ..PLAIN },
    Family { classes: &["GptOssForCausalLM"], name: "gpt-oss", norms: NormNames::Renamed, ..PLAIN },
    Family { classes: &["Exaone4ForCausalLM"], name: "exaone4", norms: NormNames::After, ..PLAIN },
    Family { classes: &["Glm4MoeForCausalLM"], name: "glm4moe", norms: NormNames::Renamed, ..PLAIN },
    Family { classes: &["Qwen3VLForConditionalGeneration"], name: "qwen3vl", ..PLAIN },
    Family { classes: &["CohereForCausalLM"], name: "command-r", layer_norm: true, ..PLAIN },
    Family { classes: &["Cohere2ForCausalLM"], name: "cohere2", layer_norm: true, ..PLAIN },
    Family { classes: &["Starcoder2ForCausalLM"], name: "starcoder2", layer_norm: true, ..PLAIN },
    Family { classes: &["Glm4ForCausalLM"], name: "glm4", norms: NormNames::Glm4, ..PLAIN },
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
