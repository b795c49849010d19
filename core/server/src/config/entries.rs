//! The entries of a configuration: models, tenants, and what tenants have. The bodies of administration are
//! the same in JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::times::some_seconds;
use crate::limits::Rates;

/// The most entries of a tenant's lists.
const LONGEST: usize = 1024;

/// A model to load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A path to a GGUF file or to a folder as transformers saves it, a catalog name, or an `hf:` reference.
    /// By default the model's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The longest context of one request, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<usize>,
    /// The tokens that the KV cache holds, over all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_tokens: Option<usize>,
    /// A chat template in place of the file's own: a builtin one's name, or its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// A smaller model of the same vocabulary that drafts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_model: Option<String>,
    /// The most requests that may wait, over all tenants. By default 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queued: Option<usize>,
    /// The number of layers on GPUs, counted from the last one. By default as many as fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_layers: Option<usize>,
}

impl ModelConfig {
    /// Returns the options of loading: those of this entry, and otherwise `defaults`.
    pub fn load_options(&self, defaults: &realm::LoadOptions) -> realm::LoadOptions {
        realm::LoadOptions {
            context_length: self.context_length.or(defaults.context_length),
            kv_tokens: self.kv_tokens.or(defaults.kv_tokens),
            chat_template: self.chat_template.clone().or(defaults.chat_template.clone()),
            draft_model: self.draft_model.clone().or(defaults.draft_model.clone()),
            max_queued: self.max_queued.or(defaults.max_queued),
            gpu_layers: self.gpu_layers.or(defaults.gpu_layers),
            ..defaults.clone()
        }
    }
}

/// A tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TenantConfig {
    /// The models and aliases that the tenant may name. By default all. A model that is listed may be named
    /// by its aliases, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Limits beyond which requests are refused with status 429.
    pub rates: Rates,
    /// Limits beyond which requests wait, and the tenant's share.
    pub limits: LimitsConfig,
    /// What the tenant may use of other tenants, and what its programs may do.
    pub grants: GrantsConfig,
    /// The program that answers requests that name none: `NAME`, or `OWNER/NAME` if it is granted. By default
    /// the model itself answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The tenant's LoRA adapters, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub adapters: BTreeMap<String, AdapterConfig>,
    /// The tenant's programs, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, ProgramConfig>,
}

/// A LoRA adapter to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AdapterConfig {
    /// The name of the model that it adapts.
    pub model: String,
    /// A path to a GGUF file, or to PEFT's output: a folder, or the safetensors file in it.
    pub source: PathBuf,
}

/// A program to compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProgramConfig {
    /// A path to a WebAssembly component or module.
    pub source: PathBuf,
}

/// What a tenant may use of other tenants, and what its programs may do besides asking models. By default
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GrantsConfig {
    /// Other tenants' adapters, as `OWNER/NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<String>,
    /// Other tenants' programs, as `OWNER/NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// Programs may write to the server's log.
    pub log: bool,
    /// Programs may read the time.
    pub clock: bool,
    /// Programs may get random numbers.
    pub random: bool,
    /// The bytes that programs may keep between runs, in memory until the server ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<usize>,
    /// Hosts that programs may send HTTP requests to, such as `api.example.com` or `*.example.com`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<String>,
}

/// Limits of the library: [`realm::Limits`], by their names there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// The tenant's factor in fair sharing. By default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f32>,
    /// The most requests that run at once; others wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<usize>,
    /// The most requests that wait for a place. By default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queued: Option<usize>,
    /// The most tokens in the KV cache of one model, over all running requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_tokens: Option<usize>,
    /// The most tokens computed in a minute; beyond them requests wait, also in the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// The longest time from a request's start to its end, in seconds.
    #[serde(with = "some_seconds", skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Duration>,
    /// The most bytes of memory that the tenant holds at once. By default 1 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<usize>,
}

impl LimitsConfig {
    /// Returns the limits for the library.
    pub fn limits(&self) -> realm::Limits {
        let defaults = realm::Limits::default();
        realm::Limits {
            weight: self.weight.unwrap_or(defaults.weight),
            max_concurrent: self.max_concurrent,
            max_queued: self.max_queued.unwrap_or(defaults.max_queued),
            kv_tokens: self.kv_tokens,
            tokens_per_minute: self.tokens_per_minute,
            request_timeout: self.request_timeout,
            memory: self.memory.unwrap_or(defaults.memory),
            ..defaults
        }
    }
}

impl TenantConfig {
    /// Checks what no type says.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn check(&self) -> Result<(), String> {
        let lists = [
            ("models", self.models.as_ref().map_or(0, Vec::len)),
            ("grants.adapters", self.grants.adapters.len()),
            ("grants.programs", self.grants.programs.len()),
            ("grants.http", self.grants.http.len()),
        ];
        if let Some((name, length)) = lists.iter().find(|(_, length)| *length > LONGEST) {
            return Err(format!("{name} has {length} entries; at most {LONGEST}"));
        }
        self.rates.check()?;
        self.limits.limits().check().map_err(|error| error.to_string())?;
        for (kind, names) in [("adapters", &self.grants.adapters), ("programs", &self.grants.programs)] {
            if let Some(name) = names.iter().find(|name| super::names::owned(name).is_none()) {
                return Err(format!(
                    "grants.{kind} has `{name}`, and what is granted is another tenant's: write OWNER/NAME"
                ));
            }
        }
        if let Some(host) = self.grants.http.iter().find(|host| !super::names::is_host(host)) {
            return Err(format!(
                "grants.http has `{host}`, which is no host such as `api.example.com` or `*.example.com`"
            ));
        }
        for name in self.adapters.keys().chain(self.programs.keys()) {
            super::names::check("adapters and programs", name)?;
        }
        Ok(())
    }
}
