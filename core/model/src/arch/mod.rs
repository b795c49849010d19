//! The families of models: one file for each reads metadata into a [`Shape`], quirks included.

mod bailing;
mod cohere;
mod deepseek;
mod ernie;
mod exaone;
mod gemma;
mod glm;
mod gpt_oss;
mod granite;
mod hunyuan;
mod llama;
mod llama4;
mod mistral;
mod olmo;
mod phi;
mod qwen;
mod reader;
mod shape;
mod smollm;
mod starcoder;

use std::fmt;

use realm_gguf::Gguf;

use crate::Error;
use reader::{MOST, Reader};
pub(crate) use shape::Shape;

/// A family of models with one forward pass.
struct Family {
    /// The name in `general.architecture`, which prefixes the model's metadata keys.
    name: &'static str,
    read: fn(&Reader<'_>) -> Result<Shape, Error>,
}

const fn family(name: &'static str, read: fn(&Reader<'_>) -> Result<Shape, Error>) -> Family {
    Family { name, read }
}

static FAMILIES: &[Family] = &[
    family("llama", llama::llama),
    family("qwen2", qwen::qwen2),
    family("qwen3", qwen::qwen3),
    family("gemma2", gemma::gemma2),
    family("gemma3", gemma::gemma3),
    family("phi3", phi::phi3),
    family("qwen2moe", qwen::qwen2moe),
    family("qwen3moe", qwen::qwen3moe),
    family("qwen3vl", qwen::qwen3),
    family("qwen3vlmoe", qwen::qwen3moe),
    family("granite", granite::granite),
    family("granitemoe", granite::granite),
    family("olmo2", olmo::olmo2),
    family("olmoe", olmo::olmoe),
    family("gpt-oss", gpt_oss::gpt_oss),
    family("smollm3", smollm::smollm3),
    family("command-r", cohere::command_r),
    family("cohere2", cohere::cohere2),
    family("exaone4", exaone::exaone4),
    family("starcoder2", starcoder::starcoder2),
    family("deepseek2", deepseek::deepseek2),
    family("llama4", llama4::llama4),
    family("mistral3", mistral::mistral3),
    family("phimoe", phi::phimoe),
    family("bailingmoe2", bailing::bailingmoe2),
    family("dots1", bailing::dots1),
    family("ernie4_5", ernie::ernie4_5),
    family("ernie4_5-moe", ernie::ernie4_5_moe),
    family("hunyuan-dense", hunyuan::hunyuan_dense),
    family("seed_oss", qwen::seed_oss),
    family("glm4", glm::glm4),
    family("glm4moe", glm::glm4moe),
];

/// An architecture that Realm runs, as `general.architecture` in a GGUF file names it.
#[derive(Clone, Copy)]
pub struct Architecture(&'static Family);

impl Architecture {
    /// Returns all architectures.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        FAMILIES.iter().map(Self)
    }

    /// The name in `general.architecture`, which prefixes the model's metadata keys.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Returns whether the rows of queries and keys are in another order in GGUF files than in Hugging
    /// Face's: the two that rope rotates together are neighbors there.
    pub fn reorders_heads(self) -> bool {
        matches!(self.name(), "llama" | "smollm3" | "granite" | "granitemoe" | "mistral3")
    }

    /// Returns whether gates and ways up of experts alternate in Hugging Face's files.
    pub(crate) fn alternates_gates(self) -> bool {
        self.name() == "gpt-oss"
    }

    /// Returns the architecture named `name`.
    ///
    /// # Errors
    /// `Unsupported`, with the architectures that Realm runs, the most similar name first.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        Self::all().find(|a| a.name() == name).ok_or_else(|| {
            let mut known: Vec<_> = Self::all().map(Self::name).collect();
            let common = |other: &str| name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
            known.sort_by_key(|other| std::cmp::Reverse(common(other)));
            let name: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            Error::Unsupported(format!(
                "the architecture `{name}` is not supported; supported are {}",
                known.join(", ")
            ))
        })
    }

    /// Reads and checks the shape of a model of this architecture.
    pub(crate) fn shape(self, gguf: &Gguf) -> Result<Shape, Error> {
        let r = Reader { gguf, prefix: self.name() };
        let shape = (self.0.read)(&r)?;
        let has_experts =
            shape.layers.iter().any(|layer| !matches!(layer.feed_forward, crate::FeedForwardSpec::Dense(_)));
        if !has_experts && r.dim_or_none("expert_count")?.is_some() {
            return Err(Error::Unsupported(format!("{} models with experts are not supported", self.name())));
        }
        shape.check()?;
        Ok(shape)
    }
}

/// Returns the number of tokens in the vocabulary.
pub(crate) fn vocab(gguf: &Gguf) -> Result<usize, Error> {
    let embeddings = gguf.require_tensor(&crate::names::TensorId::Embeddings.weight())?;
    match embeddings.shape.get(1) {
        Some(&vocab) if (1..=MOST).contains(&vocab) => Ok(vocab as usize),
        other => Err(Error::InvalidModel(format!("a vocabulary of {} tokens", other.unwrap_or(&0)))),
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Architecture {}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
