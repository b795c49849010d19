//! The options of a server: a file in TOML, and what the command adds.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::Error;
use crate::limits::Rates;

/// The options of a server. `realm serve --config FILE` reads them from TOML, with hyphens in names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The address to listen at. By default 127.0.0.1. Another one than this machine's own needs keys.
    pub host: IpAddr,
    /// The port to listen at; 0 for any free one. By default 8080.
    pub port: u16,
    /// The file of API keys. Without one, everything is allowed and belongs to the tenant `default`.
    pub api_keys: Option<PathBuf>,
    /// Refuse requests with unknown fields instead of ignoring these. By default false.
    pub strict: bool,
    /// Names by which clients may call the server, in the header `Host`. Addresses and `localhost` always
    /// may. If there is an address other than this machine's own and this is empty, any name may.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call the server, such as `https://chat.example.com`. By default none.
    pub allowed_origins: Vec<String>,
    /// Files of a certificate chain and its key, in PEM, for HTTPS.
    pub tls: Option<Tls>,
    /// A file for a line of JSON about each request; `-` for stderr. By default none.
    pub access_log: Option<PathBuf>,
    /// The limits on connections and bodies.
    pub http: Http,
    /// The models to load, by the names that clients give.
    pub models: BTreeMap<String, ModelConfig>,
    /// Tenants by name. One that only keys name has no limits but the library's defaults.
    pub tenants: BTreeMap<String, TenantConfig>,
}

/// A certificate, and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tls {
    /// A file with the chain of certificates, in PEM.
    pub certificate: PathBuf,
    /// A file with the private key, in PEM.
    pub key: PathBuf,
}

/// Limits on connections and bodies. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Http {
    /// The most bytes of a request's body. By default 16 MiB.
    pub max_body: usize,
    /// The most bytes of a request's headers. By default 64 KiB.
    pub max_headers: usize,
    /// The most connections at once; further ones wait to be accepted. By default 4096.
    pub max_connections: usize,
    /// The longest time until a request's headers are complete, waiting for it included. By default 30.
    #[serde(deserialize_with = "seconds")]
    pub header_timeout: Duration,
    /// The longest time until a request's body is complete. By default 60.
    #[serde(deserialize_with = "seconds")]
    pub body_timeout: Duration,
    /// The longest time that a client may leave an answer unread while more is to be sent. By default 60.
    #[serde(deserialize_with = "seconds")]
    pub write_timeout: Duration,
    /// The time after which an idle stream gets a comment, so that proxies keep it open. By default 10.
    #[serde(deserialize_with = "seconds")]
    pub keep_alive: Duration,
    /// The longest time that requests have to end when the server shuts down. By default 30.
    #[serde(deserialize_with = "seconds")]
    pub drain_timeout: Duration,
}

/// A model to load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A path to a GGUF file or to a folder as transformers saves it, a catalog name, or an `hf:` reference.
    /// By default the model's name.
    pub source: Option<String>,
    /// The longest context of one request, in tokens.
    pub context_length: Option<usize>,
    /// The tokens that the KV cache holds, over all requests.
    pub kv_tokens: Option<usize>,
    /// A chat template in place of the file's own: a builtin one's name, or its source.
    pub chat_template: Option<String>,
    /// A smaller model of the same vocabulary that drafts.
    pub draft_model: Option<String>,
}

/// A tenant.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TenantConfig {
    /// The models that the tenant may name. By default all.
    pub models: Option<Vec<String>>,
    /// Limits beyond which requests are refused with status 429.
    pub rates: Rates,
    /// Limits beyond which requests wait, and the tenant's share.
    pub limits: LimitsConfig,
}

/// Limits of the library: [`realm::Limits`], by their names there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// The tenant's factor in fair sharing. By default 1.
    pub weight: Option<f32>,
    /// The most requests that run at once; others wait.
    pub max_concurrent: Option<usize>,
    /// The most requests that wait for a place. By default 1024.
    pub max_queued: Option<usize>,
    /// The most tokens in the KV cache of one model, over all running requests.
    pub kv_tokens: Option<usize>,
    /// The most tokens computed in a minute; beyond them requests wait, also in the middle.
    pub tokens_per_minute: Option<u32>,
    /// The longest time from a request's start to its end, in seconds.
    #[serde(deserialize_with = "some_seconds")]
    pub request_timeout: Option<Duration>,
    /// The most bytes of memory that the tenant holds at once. By default 1 GiB.
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

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            api_keys: None,
            strict: false,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            tls: None,
            access_log: None,
            http: Http::default(),
            models: BTreeMap::new(),
            tenants: BTreeMap::new(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            max_body: 16 << 20,
            max_headers: 64 << 10,
            max_connections: 4096,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Reads a file. [`check`](Self::check) comes after what the caller adds.
    ///
    /// # Errors
    /// The file can't be read, is no TOML, or has an unknown name or a value of another type, with its place.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error(format!("the configuration {}: {error}", path.display())))?;
        toml::from_str(&text).map_err(|error| {
            Error(format!("the configuration {}: {}", path.display(), error.to_string().trim_end()))
        })
    }

    /// Checks what no type says.
    ///
    /// # Errors
    /// The option, and what would be right.
    pub fn check(&self) -> Result<(), Error> {
        if !self.host.is_loopback() && self.api_keys.is_none() {
            return Err(Error(format!(
                "{} can be reached by other machines, and there are no API keys: make some with `realm api-key create` and \
                 give their file with `--api-keys FILE.db`, or listen at 127.0.0.1",
                self.host
            )));
        }
        if let Some(origin) = self.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(Error(format!(
                "allowed-origins has `{origin}`, which is none: an origin is like `https://chat.example.com`, without a path"
            )));
        }
        if self.http.max_headers < 8 << 10 {
            let why = format!("max-headers is {}; it must be at least 8192", self.http.max_headers);
            return Err(Error(why));
        }
        if self.http.max_connections == 0 || self.http.max_body == 0 {
            return Err(Error("max-connections and max-body must be at least 1".into()));
        }
        for (name, tenant) in &self.tenants {
            let of_tenant = |why: String| Error(format!("tenant `{name}`: {why}"));
            tenant.rates.check().map_err(of_tenant)?;
            tenant.limits.limits().check().map_err(|error| of_tenant(error.to_string()))?;
        }
        Ok(())
    }
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains('/') && !text.contains('*'))
}

/// The longest time that can be set, in seconds: a year.
const LONGEST: f64 = 365.0 * 24.0 * 3600.0;

fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if !(0.001..=LONGEST).contains(&seconds) {
        let why = format!("{seconds} is no time in seconds from 0.001 to {LONGEST}");
        return Err(serde::de::Error::custom(why));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn some_seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    seconds(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_file_sets_what_it_names_and_nothing_else() {
        let config = parsed(
            r#"
            port = 9000
            [http]
            keep-alive = 0.5
            header-timeout = 5
            [models.small]
            source = "smollm2-135m"
            [tenants.acme]
            models = ["small"]
            rates.tokens-per-minute = 1000
            limits.weight = 3
            limits.request-timeout = 60
            "#,
        )
        .unwrap();
        assert_eq!((config.port, config.host), (9000, Config::default().host));
        assert_eq!(config.http.keep_alive, Duration::from_millis(500));
        assert_eq!(config.http.body_timeout, Http::default().body_timeout);
        let acme = &config.tenants["acme"];
        assert_eq!(acme.rates.tokens_per_minute, Some(1000));
        let limits = acme.limits.limits();
        assert_eq!((limits.weight, limits.request_timeout), (3.0, Some(Duration::from_secs(60))));
        assert_eq!(limits.memory, realm::Limits::default().memory);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("prot = 1", "prot"),
            ("port = 70000", "port"),
            ("host = \"everywhere\"", "host"),
            ("host = \"0.0.0.0\"", "realm api-key create"),
            ("[http]\nkeep-alive = -1", "-1"),
            ("[tenants.acme]\nrates.tokens-per-minute = 0", "acme"),
            ("[tenants.acme]\nlimits.weight = 0", "weight"),
            ("allowed-origins = [\"*\"]", "origin"),
            ("allowed-origins = [\"https://a.example/path\"]", "origin"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(parsed("host = \"0.0.0.0\"\napi-keys = \"keys.db\"").is_ok());
        assert!(parsed("host = \"::1\"").is_ok());
    }
}
