//! Recipes: the types that the tensors of a file get. They are llama.cpp's, under its names, so that a file's
//! size and quality are those that its name is known for.

use realm_gguf::{Gguf, Metadata, TensorInfo, TensorType};

use crate::Error;

/// A recipe, such as `q4_k_m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    name: &'static str,
    ty: TensorType,
    mix: Mix,
    /// llama.cpp's number for `general.file_type`.
    file_type: u32,
}

/// The tensors that get more bits than the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    /// None but the output matrix.
    Plain,
    Small,
    Medium,
    Large,
    /// Experts only; all other matrices are Q8_0.
    Experts,
}

const fn recipe(name: &'static str, ty: TensorType, mix: Mix, file_type: u32) -> Recipe {
    Recipe { name, ty, mix, file_type }
}

/// All recipes, smallest files first.
const ALL: [Recipe; 22] = [
    recipe("q2_k_s", TensorType::Q2_K, Mix::Small, 21),
    recipe("q2_k", TensorType::Q2_K, Mix::Medium, 10),
    recipe("q3_k_s", TensorType::Q3_K, Mix::Small, 11),
    recipe("q3_k_m", TensorType::Q3_K, Mix::Medium, 12),
    recipe("q3_k_l", TensorType::Q3_K, Mix::Large, 13),
    recipe("iq4_xs", TensorType::IQ4_XS, Mix::Medium, 30),
    recipe("mxfp4", TensorType::MXFP4, Mix::Experts, 38),
    recipe("q4_0", TensorType::Q4_0, Mix::Plain, 2),
    recipe("iq4_nl", TensorType::IQ4_NL, Mix::Medium, 25),
    recipe("q4_k_s", TensorType::Q4_K, Mix::Small, 14),
    recipe("q4_k_m", TensorType::Q4_K, Mix::Medium, 15),
    recipe("q4_k", TensorType::Q4_K, Mix::Medium, 15),
    recipe("q4_1", TensorType::Q4_1, Mix::Plain, 3),
    recipe("q5_0", TensorType::Q5_0, Mix::Plain, 8),
    recipe("q5_k_s", TensorType::Q5_K, Mix::Small, 16),
    recipe("q5_k_m", TensorType::Q5_K, Mix::Medium, 17),
    recipe("q5_1", TensorType::Q5_1, Mix::Plain, 9),
    recipe("q6_k", TensorType::Q6_K, Mix::Plain, 18),
    recipe("q8_0", TensorType::Q8_0, Mix::Plain, 7),
    recipe("f16", TensorType::F16, Mix::Plain, 1),
    recipe("bf16", TensorType::BF16, Mix::Plain, 32),
    recipe("f32", TensorType::F32, Mix::Plain, 0),
];

impl Recipe {
    /// The names of all recipes, smallest files first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|recipe| recipe.name)
    }

    /// Returns the recipe named `name`, in capital or small letters.
    ///
    /// # Errors
    /// [`Error::Quantize`] names all recipes.
    ///
    /// ```
    /// use realm_convert::Recipe;
    ///
    /// assert_eq!(Recipe::named("Q4_K_M")?.name(), "q4_k_m");
    /// assert!(Recipe::named("q4_z").is_err());
    /// # Ok::<(), realm_convert::Error>(())
    /// ```
    pub fn named(name: &str) -> Result<Self, Error> {
        let found = ALL.into_iter().find(|recipe| recipe.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let name: String = name.chars().take(32).flat_map(char::escape_debug).collect();
            let known = Self::names().collect::<Vec<_>>().join(", ");
            Error::Quantize(format!("the type `{name}` is unknown; there are {known}"))
        })
    }

    /// The recipe's name, in small letters.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The value of `general.file_type`.
    pub fn file_type(self) -> u32 {
        self.file_type
    }

    /// Returns the type of a tensor in a file of this recipe, and whether it is another one than the recipe
    /// has for it, because its rows are no whole blocks. Everything but large matrices keeps its type.
    pub(crate) fn type_of(self, tensor: &TensorInfo, model: &Shape) -> (TensorType, bool) {
        if !is_matrix(tensor) {
            return (tensor.ty, false);
        }
        let wanted = if self.ty.block_len() == 1 { self.ty } else { self.mixed(tensor, model) };
        let ty = fitting(wanted, tensor.shape[0]);
        (ty, ty != wanted)
    }

    fn mixed(self, tensor: &TensorInfo, model: &Shape) -> TensorType {
        use Mix::{Experts, Large, Medium, Small};
        use TensorType as T;
        let name = tensor.name.as_str();
        let tied = name == "token_embd.weight" && model.tied;
        let (part, layer) = part_of(name);
        if name == "output.weight" || tied {
            let whole = tensor.shape[0].is_multiple_of(self.ty.block_len() as u64);
            let eight = self.mix == Experts || !whole || self.ty == T::Q8_0;
            return if eight { T::Q8_0 } else { T::Q6_K };
        }
        if self.mix == Experts {
            return if tensor.shape.get(2).is_some_and(|&n| n > 1) { T::MXFP4 } else { T::Q8_0 };
        }
        let layers = model.layers;
        // The first and the last eighth of the layers, and every third between.
        let favored = layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        let (few_kv, eight) = (model.queries_per_kv >= 4, model.experts == 8);
        match (part, self.ty, self.mix) {
            ("attn_v" | "attn_k", ..) if eight => T::Q8_0,
            ("attn_v", T::Q2_K, Medium) if !few_kv => T::Q3_K,
            ("attn_v", T::Q2_K, _) if few_kv => T::Q4_K,
            ("attn_v", T::Q3_K, Medium) => {
                if layer < 2 {
                    T::Q5_K
                } else {
                    T::Q4_K
                }
            }
            ("attn_v", T::Q3_K, Large) => T::Q5_K,
            ("attn_v", T::IQ4_NL | T::IQ4_XS, _) if few_kv => T::Q5_K,
            ("attn_v" | "ffn_down", T::Q4_K | T::Q5_K, Medium) if favored => T::Q6_K,
            ("attn_v", T::Q4_K, Small) if layer < 4 => T::Q5_K,
            ("attn_v", T::Q4_K | T::Q3_K, _) if layers == 80 && few_kv => T::Q5_K,
            ("ffn_down", T::Q2_K, Medium) => T::Q3_K,
            ("ffn_down", T::Q2_K, Small) if layer < layers / 8 => T::Q4_K,
            ("ffn_down", T::Q3_K, Medium) => {
                if layer < layers / 16 {
                    T::Q5_K
                } else {
                    T::Q4_K
                }
            }
            ("ffn_down", T::Q3_K, Large) => T::Q5_K,
            ("ffn_down", T::Q4_K, Small) if layer < layers / 8 => T::Q5_K,
            ("ffn_down", T::IQ4_NL | T::IQ4_XS, _) if layer < layers / 8 => T::Q5_K,
            ("attn_output", T::Q2_K | T::Q3_K | T::Q4_K | T::IQ4_NL | T::IQ4_XS, Small | Medium) if eight => {
                T::Q5_K
            }
            ("attn_output", T::Q2_K, Medium) => T::Q3_K,
            ("attn_output", T::Q3_K, Medium) => T::Q4_K,
            ("attn_output", T::Q3_K, Large) => T::Q5_K,
            ("attn_qkv", T::Q3_K, Medium | Large) => T::Q4_K,
            ("attn_qkv", T::Q4_K, Medium) => T::Q5_K,
            ("attn_qkv", T::Q5_K, Medium) => T::Q6_K,
            _ => self.ty,
        }
    }
}

/// The facts of a model that recipes depend on.
pub(crate) struct Shape {
    layers: i64,
    queries_per_kv: u64,
    experts: u64,
    /// Set if the embeddings are the output matrix too.
    tied: bool,
}

impl Shape {
    pub(crate) fn of(gguf: &Gguf) -> Self {
        let metadata = gguf.metadata();
        let number = |name: &str| largest(metadata, name);
        let heads = number("attention.head_count").unwrap_or(1);
        Self {
            layers: number("block_count").unwrap_or(0).min(1 << 16) as i64,
            queries_per_kv: heads / number("attention.head_count_kv").unwrap_or(heads).max(1),
            experts: number("expert_count").unwrap_or(0),
            tied: gguf.tensor("output.weight").is_none(),
        }
    }
}

/// A number of the architecture, or the largest of those that layers have.
fn largest(metadata: &Metadata, name: &str) -> Option<u64> {
    let architecture = metadata.str("general.architecture").ok().flatten()?;
    let key = format!("{architecture}.{name}");
    let one = metadata.u64(&key).ok().flatten();
    one.or_else(|| metadata.u32s(&key).ok().flatten()?.into_iter().max().map(u64::from))
}

/// The part of a layer that a tensor is, and the layer.
fn part_of(name: &str) -> (&str, i64) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let Some((layer, part)) = layer else { return ("", 0) };
    let part = part.strip_suffix(".weight").unwrap_or(part);
    let part = ["ffn_down"].into_iter().find(|known| part.starts_with(known)).unwrap_or(part);
    // The second factor of latent attention's keys and values is as sensitive as values.
    (if part == "attn_kv_b" { "attn_v" } else { part }, layer.parse().unwrap_or(0))
}

/// Returns whether a tensor is one of the matrices that make up a file's size.
fn is_matrix(tensor: &TensorInfo) -> bool {
    const KEPT: [&str; 10] = [
        "_norm.weight",
        "ffn_gate_inp",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "position_embd",
        "token_types",
        "ssm_conv1d",
        "shortconv.conv",
        "rope_f",
    ];
    let name = &tensor.name;
    tensor.shape.len() > 1 && name.ends_with("weight") && !KEPT.iter().any(|kept| name.contains(kept))
}

/// Returns `ty`, or what rows of `columns` numbers can have instead.
fn fitting(ty: TensorType, columns: u64) -> TensorType {
    use TensorType as T;
    let fits = |ty: T| columns.is_multiple_of(ty.block_len() as u64);
    let smaller = match ty {
        _ if fits(ty) => return ty,
        T::IQ4_XS => T::IQ4_NL,
        T::Q2_K | T::Q3_K => T::Q4_0,
        T::Q4_K => T::Q5_0,
        T::Q5_K => T::Q5_1,
        _ => T::Q8_0,
    };
    if fits(smaller) { smaller } else { T::F16 }
}
