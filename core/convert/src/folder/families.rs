//! The families of models that are read, as data.

use realm_model::names::NormNames;

use super::config::Config;
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
    /// Set if experts are described by the keys that DeepSeek V3 has: shared ones, dense first layers,
    /// groups.
    pub(super) shared_experts: bool,
}

const PLAIN: Family = Family {
    classes: &[],
    name: "",
    permuted: false,
    shifted_norms: false,
    norms: NormNames::Before,
    layer_norm: false,
    shared_experts: false,
};

const GEMMA: Family = Family { shifted_norms: true, norms: NormNames::Gemma, ..PLAIN };

#[rustfmt::skip]
const ALL: [Family; 32] = [
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
    Family { classes: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"], name: "granitemoe", permuted: true, ..PLAIN },
    Family { classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"], name: "olmo2", norms: NormNames::After, ..PLAIN },
    Family { classes: &["OlmoeForCausalLM"], name: "olmoe", ..PLAIN },
    Family { classes: &["GptOssForCausalLM"], name: "gpt-oss", norms: NormNames::Renamed, ..PLAIN },
    Family { classes: &["Exaone4ForCausalLM"], name: "exaone4", norms: NormNames::After, ..PLAIN },
    Family { classes: &["Glm4MoeForCausalLM"], name: "glm4moe", norms: NormNames::Renamed, shared_experts: true, ..PLAIN },
    Family { classes: &["Qwen3VLForConditionalGeneration"], name: "qwen3vl", ..PLAIN },
    Family { classes: &["Qwen3VLMoeForConditionalGeneration"], name: "qwen3vlmoe", ..PLAIN },
    Family { classes: &["CohereForCausalLM"], name: "command-r", layer_norm: true, ..PLAIN },
    Family { classes: &["Cohere2ForCausalLM"], name: "cohere2", layer_norm: true, ..PLAIN },
    Family { classes: &["Starcoder2ForCausalLM"], name: "starcoder2", layer_norm: true, ..PLAIN },
    Family { classes: &["Glm4ForCausalLM"], name: "glm4", norms: NormNames::Glm4, ..PLAIN },
    Family { classes: &["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"], name: "deepseek2", shared_experts: true, ..PLAIN },
    Family { classes: &["Ministral3ForCausalLM"], name: "mistral3", permuted: true, ..PLAIN },
    Family { classes: &["Llama4ForCausalLM", "Llama4ForConditionalGeneration"], name: "llama4", ..PLAIN },
    Family { classes: &["PhimoeForCausalLM", "PhiMoEForCausalLM"], name: "phimoe", ..PLAIN },
    Family { classes: &["HunYuanDenseV1ForCausalLM"], name: "hunyuan-dense", ..PLAIN },
    Family { classes: &["SeedOssForCausalLM"], name: "seed_oss", norms: NormNames::Renamed, ..PLAIN },
    Family { classes: &["Dots1ForCausalLM"], name: "dots1", shared_experts: true, ..PLAIN },
    Family { classes: &["BailingMoeV2ForCausalLM"], name: "bailingmoe2", shared_experts: true, ..PLAIN },
    Family { classes: &["Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"], name: "ernie4_5", ..PLAIN },
    Family { classes: &["Ernie4_5_MoeForCausalLM"], name: "ernie4_5-moe", ..PLAIN },
];

impl Family {
    /// Returns the family of the class of transformers that a configuration names.
    pub(super) fn of(config: &Config) -> Result<&'static Self, Error> {
        let class = match config.class()? {
            // Texts and images; the part for texts is Mistral's or Ministral's.
            "Mistral3ForConditionalGeneration" if config.text_type() == Some("ministral3") => {
                "Ministral3ForCausalLM"
            }
            "Mistral3ForConditionalGeneration" => "MistralForCausalLM",
            class => class,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Adapters, which have Hugging Face's order of rows, go by the architecture.
    #[test]
    fn the_order_of_rows_of_a_family_is_that_of_its_architecture() {
        for family in ALL {
            let architecture = realm_model::Architecture::from_name(family.name).unwrap();
            assert_eq!(architecture.reorders_heads(), family.permuted, "{}", family.name);
        }
    }

    #[test]
    fn the_guide_lists_every_class() {
        let guide = include_str!("../../../../docs/guide/converting.md");
        for class in ALL.iter().flat_map(|family| family.classes).chain(&["Mistral3ForConditionalGeneration"])
        {
            let listed = guide.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *class);
            assert!(listed, "{class}");
        }
    }
}
