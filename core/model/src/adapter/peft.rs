//! Adapters in the format of Hugging Face's PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use realm_gguf::{TensorInfo, TensorType};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

use super::{AdapterFile, Data, Matrix, Pair, invalid, not_supported, show};
use crate::Error;
use crate::names::Adapted;

/// Most bytes of a configuration. Real ones have 1 KB, those with a pattern for every layer 100 KB.
const MOST_CONFIG_BYTES: u64 = 4 << 20;
/// Most bytes of tensors. The largest real adapters have several gigabytes.
const MOST_BYTES: u64 = 16 << 30;
/// Most bytes of a safetensors header. Real ones have about 100 bytes per tensor.
const MOST_HEADER_BYTES: u64 = 16 << 20;

/// Opens the adapter whose configuration is in `folder`.
pub(super) fn open(folder: &Path, tensors: &Path) -> Result<AdapterFile, Error> {
    let config = folder.join("adapter_config.json");
    if !tensors.exists() && folder.join("adapter_model.bin").exists() {
        let why = "adapter_model.bin is a Python pickle; save the adapter as safetensors";
        return Err(Error::Unsupported(format!("{}: {why}", folder.display())));
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let text = realm_gguf::read_file(&config, MOST_CONFIG_BYTES).map_err(io(&config))?;
    let text = String::from_utf8(text).map_err(|_| invalid(format!("{} is no text", config.display())))?;
    read(&text, realm_gguf::read_file(tensors, MOST_BYTES).map_err(io(tensors))?)
}

pub(super) fn read(config: &str, data: Vec<u8>) -> Result<AdapterFile, Error> {
    let config = Config::parse(config)?;
    let header = data.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    if header > MOST_HEADER_BYTES {
        return Err(invalid(format!(
            "a safetensors header of {header} bytes; up to {MOST_HEADER_BYTES} are read"
        )));
    }
    let (header, index) = SafeTensors::read_metadata(&data)
        .map_err(|e| invalid(format!("this is no safetensors file: {}", show(&e.to_string()))))?;
    let tensors = index.tensors();
    let mut names: Vec<&str> = tensors.keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut pairs = Vec::new();
    for name in names {
        let Some((weight, suffix)) = split(name, "lora_A") else {
            let known =
                split(name, "lora_B").is_some_and(|(w, s)| tensors.contains_key(&format!("{w}.lora_A{s}")));
            if known {
                continue;
            }
            return Err(Error::Unsupported(format!("`{}` is no part of a plain LoRA adapter", show(name))));
        };
        let b_name = format!("{weight}.lora_B{suffix}");
        let b = tensors.get(&b_name).ok_or_else(|| invalid(format!("`{}` is missing", show(&b_name))))?;
        let path = weight.strip_prefix("base_model.model.").unwrap_or(weight);
        let first = 8 + header;
        let (a, b) = (matrix(name, tensors[name], first)?, matrix(&b_name, b, first)?);
        let of = Adapted::from_hugging_face(path).ok_or_else(|| not_supported(path))?;
        let wanted = config.rank(path);
        let rank = b.info.shape.first().copied().unwrap_or(0);
        // The matrices of all experts are beside each other in one.
        let fits = match of {
            Adapted::Experts(_) => rank as f64 % wanted == 0.0,
            _ => rank as f64 == wanted,
        };
        if !fits {
            let why = format!("`{}` has rank {rank}, but adapter_config.json says {wanted}", show(path));
            return Err(invalid(why));
        }
        pairs.push(Pair { of, scale: config.scale(path), rank: wanted as usize, a, b });
    }
    AdapterFile::new(Data::Safetensors(data), None, pairs)
}

/// Splits `MODULE.lora_A.weight` (or, with an adapter's name, `MODULE.lora_A.default.weight`) around `which`.
fn split<'a>(name: &'a str, which: &str) -> Option<(&'a str, &'a str)> {
    let (weight, suffix) = name.rsplit_once(which)?;
    let plain = suffix == ".weight" || suffix == ".default.weight";
    Some((weight.strip_suffix('.')?, suffix)).filter(|_| plain)
}

/// Describes a tensor in GGUF's terms. `start` is the offset of the file's data.
fn matrix(name: &str, tensor: &safetensors::tensor::TensorInfo, start: usize) -> Result<Matrix, Error> {
    let ty = match tensor.dtype {
        Dtype::F32 => TensorType::F32,
        Dtype::F16 => TensorType::F16,
        Dtype::BF16 => TensorType::BF16,
        other => {
            let why = format!("`{}` is {other:?}; F32, F16 and BF16 are supported", show(name));
            return Err(Error::Unsupported(why));
        }
    };
    let shape: Vec<u64> = tensor.shape.iter().rev().map(|&d| d as u64).collect();
    let (first, end) = tensor.data_offsets;
    let info = TensorInfo::new(name, shape, ty).filter(|info| info.bytes() == end.wrapping_sub(first));
    let info = info.ok_or_else(|| invalid(format!("`{}` of shape {:?}", show(name), tensor.shape)))?;
    Ok(Matrix { info, bytes: start + first..start + end })
}

/// The contents of `adapter_config.json`.
struct Config {
    rank: f64,
    alpha: f64,
    /// Set if the scale is alpha over the root of the rank (Kalajdzievski, arXiv:2312.03732).
    root: bool,
    ranks: Vec<(Pattern, f64)>,
    alphas: Vec<(Pattern, f64)>,
}

/// Settings that make something other than a plain LoRA adapter, unless they are absent, null, false or
/// empty.
const OTHER_KINDS: [&str; 9] = [
    "use_dora",
    "fan_in_fan_out",
    "modules_to_save",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_qalora",
    "arrow_config",
];

/// Initializations that also change the base weights, so that the adapter fits only the changed weights.
const OTHER_BASES: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl Config {
    fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: String| invalid(format!("adapter_config.json: {why}"));
        let config: Map<String, Value> = serde_json::from_str(text).map_err(|e| bad(show(&e.to_string())))?;
        let refuse = |key: &str, value: &Value| {
            let why = format!("adapters with `{key}` {} are not supported", show(&value.to_string()));
            Err(Error::Unsupported(why))
        };
        match config.get("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(kind) => return refuse("peft_type", kind),
            None => return Err(bad("`peft_type` is missing".into())),
        }
        for key in OTHER_KINDS {
            let plain = match config.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Array(all)) => all.is_empty(),
                Some(Value::Object(all)) => all.is_empty(),
                Some(_) => false,
            };
            if !plain {
                return refuse(key, &config[key]);
            }
        }
        match config.get("bias") {
            None | Some(Value::Null) => {}
            Some(Value::String(bias)) if bias == "none" => {}
            Some(bias) => return refuse("bias", bias),
        }
        if let Some(Value::String(begin)) = config.get("init_lora_weights")
            && OTHER_BASES.iter().any(|base| begin.to_ascii_lowercase().starts_with(base))
        {
            return refuse("init_lora_weights", &config["init_lora_weights"]);
        }
        let number = |key: &str| match config.get(key).and_then(Value::as_f64) {
            Some(n) if n.is_finite() && n > 0.0 => Ok(n),
            _ => Err(bad(format!("`{key}` is not a number above 0"))),
        };
        let patterns = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(all)) => all
                .iter()
                .map(|(pattern, value)| match value.as_f64() {
                    Some(n) if n.is_finite() && n > 0.0 => Ok((Pattern::parse(key, pattern)?, n)),
                    _ => Err(bad(format!("`{key}` holds a {}", show(&value.to_string())))),
                })
                .collect(),
            Some(_) => Err(bad(format!("`{key}` is no object"))),
        };
        let (ranks, alphas) = (patterns("rank_pattern")?, patterns("alpha_pattern")?);
        // Both parameters of a layer's experts have the same name in the file.
        let parameters = config.get("target_parameters").and_then(Value::as_array);
        if parameters.is_some_and(|all| !all.is_empty()) && !(ranks.is_empty() && alphas.is_empty()) {
            let why = "adapters with `target_parameters` and `rank_pattern` or `alpha_pattern`";
            return Err(Error::Unsupported(format!("{why} are not supported")));
        }
        Ok(Self {
            rank: number("r")?,
            alpha: number("lora_alpha")?,
            root: config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
            ranks,
            alphas,
        })
    }

    /// The rank of the adapter's change of module `path`.
    fn rank(&self, path: &str) -> f64 {
        of(&self.ranks, path, self.rank)
    }

    /// The factor on the adapter's change of module `path`.
    fn scale(&self, path: &str) -> f32 {
        let (rank, alpha) = (self.rank(path), of(&self.alphas, path, self.alpha));
        (alpha / if self.root { rank.sqrt() } else { rank }) as f32
    }
}

/// Returns the value of the first pattern that matches `path`.
fn of(patterns: &[(Pattern, f64)], path: &str, otherwise: f64) -> f64 {
    patterns.iter().find(|(pattern, _)| pattern.matches(path)).map_or(otherwise, |(_, n)| *n)
}

/// A key of `rank_pattern` or `alpha_pattern`. PEFT treats it as a regular expression that must match a
/// module's path from the beginning, or from behind a dot, to the end. Real files use plain names, and
/// Realm supports only those.
struct Pattern {
    name: String,
    /// Set if the key began with `^`: it then matches the whole path only.
    whole: bool,
}

impl Pattern {
    fn parse(key: &str, text: &str) -> Result<Self, Error> {
        let (rest, whole) = text.strip_prefix('^').map_or((text, false), |rest| (rest, true));
        let name = rest.strip_suffix('$').unwrap_or(rest).replace("\\.", ".");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            let why = format!("`{key}` has the regular expression `{}`; names are supported", show(text));
            return Err(Error::Unsupported(why));
        }
        Ok(Self { name, whole })
    }

    fn matches(&self, path: &str) -> bool {
        match path.strip_suffix(self.name.as_str()) {
            Some("") => true,
            Some(before) => !self.whole && before.ends_with('.'),
            None => false,
        }
    }
}
