//! A model's config.json, with names that differ from family to family.

use serde_json::{Map, Value};

use crate::Error;
use crate::error::short;

/// The largest dimension that is accepted: larger ones are a mistake, and would overflow products of two.
const MOST: u64 = 1 << 24;

/// The contents of config.json; a part of a model of texts and images has precedence over the whole.
pub(super) struct Config {
    root: Map<String, Value>,
    text: Map<String, Value>,
}

impl Config {
    pub(super) fn new(root: Map<String, Value>) -> Self {
        let text = root.get("text_config").and_then(Value::as_object).cloned().unwrap_or_default();
        Self { root, text }
    }

    /// The first of `keys` that has a value.
    pub(super) fn get(&self, keys: &[&str]) -> Option<&Value> {
        let found = |key: &&str| [&self.text, &self.root].into_iter().find_map(|map| map.get(*key));
        keys.iter().filter_map(found).find(|value| !value.is_null())
    }

    /// The class of the model, such as `LlamaForCausalLM`.
    pub(super) fn class(&self) -> Result<&str, Error> {
        let class =
            self.root.get("architectures").and_then(Value::as_array).and_then(|all| all.first()?.as_str());
        class.ok_or_else(|| Error::Folder("config.json: `architectures` names no class".into()))
    }

    /// The type of the part for texts of a model of texts and images.
    pub(super) fn text_type(&self) -> Option<&str> {
        self.text.get("model_type").and_then(Value::as_str)
    }

    fn wrong(keys: &[&str], value: &Value, wanted: &str) -> Error {
        let value = short(&value.to_string());
        Error::Folder(format!("config.json: `{}` is {value}; {wanted} is needed", keys.join("` or `")))
    }

    pub(super) fn size(&self, keys: &[&str]) -> Result<Option<u32>, Error> {
        self.get(keys)
            .map(|value| match value.as_u64() {
                Some(n) if n <= MOST => Ok(n as u32),
                _ => Err(Self::wrong(keys, value, "a number up to 16777216")),
            })
            .transpose()
    }

    pub(super) fn require_size(&self, keys: &[&str]) -> Result<u32, Error> {
        let size = self.size(keys)?;
        size.filter(|&n| n > 0)
            .ok_or_else(|| Error::Folder(format!("config.json: `{}` is missing", keys.join("` or `"))))
    }

    pub(super) fn float(&self, keys: &[&str]) -> Result<Option<f32>, Error> {
        self.get(keys)
            .map(|value| match value.as_f64() {
                Some(n) if n.is_finite() => Ok(n as f32),
                _ => Err(Self::wrong(keys, value, "a number")),
            })
            .transpose()
    }

    pub(super) fn flag(&self, keys: &[&str]) -> Option<bool> {
        self.get(keys).and_then(Value::as_bool)
    }

    /// Numbers per head.
    pub(super) fn head_dim(&self) -> Result<u32, Error> {
        match self.size(&["head_dim"])? {
            Some(dim) if dim > 0 => Ok(dim),
            _ => Ok(self.require_size(&["hidden_size"])? / self.heads()?),
        }
    }

    pub(super) fn heads(&self) -> Result<u32, Error> {
        self.require_size(&["num_attention_heads"])
    }

    pub(super) fn kv_heads(&self) -> Result<u32, Error> {
        Ok(self.size(&["num_key_value_heads"])?.filter(|&n| n > 0).unwrap_or(self.heads()?))
    }

    pub(super) fn layers(&self) -> Result<u32, Error> {
        self.require_size(&["num_hidden_layers"])
    }

    /// The settings of rope, of which newer files have an object and older ones two keys; with settings for
    /// kinds of layers, those of the layers without a window.
    pub(super) fn rope(&self) -> Map<String, Value> {
        let object = self.get(&["rope_parameters", "rope_scaling"]).and_then(Value::as_object);
        let mut rope = object.cloned().unwrap_or_default();
        if let Some(full) = rope.get("full_attention").and_then(Value::as_object) {
            rope = full.clone();
        }
        for key in ["rope_theta", "partial_rotary_factor", "original_max_position_embeddings"] {
            if let Some(value) = self.get(&[key]) {
                rope.entry(key).or_insert_with(|| value.clone());
            }
        }
        rope
    }

    /// The layers that have a sliding window, if the file says so.
    pub(super) fn windowed(&self) -> Option<Vec<bool>> {
        let types = self.get(&["layer_types"])?.as_array()?;
        Some(types.iter().map(|ty| ty.as_str() == Some("sliding_attention")).collect())
    }
}
