//! The options of a server: a file in TOML, and what the command adds.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use self::times::seconds;
use crate::Error;

mod entries;
pub(crate) mod names;
mod place;
mod times;

pub use entries::{AdapterConfig, GrantsConfig, LimitsConfig, ModelConfig, ProgramConfig, TenantConfig};

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
    /// The address and port at which administration listens, such as 127.0.0.1:8081. By default there is
    /// none. Another address than this machine's own needs keys.
    pub admin: Option<SocketAddr>,
    /// The file that keeps what administration changes, for servers without keys; the file of API keys keeps
    /// it otherwise.
    pub state: Option<PathBuf>,
    /// A file for a line of JSON about each act of administration and each refused key. By default none.
    pub audit_log: Option<PathBuf>,
    /// The limits on connections and bodies.
    pub http: Http,
    /// The models to load, by the names that clients give.
    pub models: BTreeMap<String, ModelConfig>,
    /// Further names of models, with the model that each stands for.
    pub aliases: BTreeMap<String, String>,
    /// Tenants by name. One that only keys name has no limits but the library's defaults.
    pub tenants: BTreeMap<String, TenantConfig>,
    /// The file that the options were read from, for the lines of errors.
    #[serde(skip)]
    pub file: Option<PathBuf>,
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
            admin: None,
            state: None,
            audit_log: None,
            http: Http::default(),
            models: BTreeMap::new(),
            aliases: BTreeMap::new(),
            tenants: BTreeMap::new(),
            file: None,
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
            .map_err(|error| Error::new(format!("the configuration {}: {error}", path.display())))?;
        let config: Self = toml::from_str(&text).map_err(|error| {
            Error::new(format!("the configuration {}: {}", path.display(), error.to_string().trim_end()))
        })?;
        Ok(Self { file: Some(path.to_owned()), ..config })
    }

    /// Returns an error with its line in the file.
    pub(crate) fn located(&self, error: Error) -> Error {
        match &self.file {
            Some(file) => place::located(error, file),
            None => error,
        }
    }

    /// Checks what no type says.
    ///
    /// # Errors
    /// The option, and what would be right.
    pub fn check(&self) -> Result<(), Error> {
        self.check_options().map_err(|error| self.located(error))
    }

    fn check_options(&self) -> Result<(), Error> {
        if !self.host.is_loopback() && self.api_keys.is_none() {
            return Err(Error::new(format!(
                "{} can be reached by other machines, and there are no API keys: make some with `realm api-key create` and \
                 give their file with `--api-keys FILE.db`, or listen at 127.0.0.1",
                self.host
            ))
            .at(["host"]));
        }
        if let Some(origin) = self.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(Error::new(format!(
                "allowed-origins has `{origin}`, which is none: an origin is like `https://chat.example.com`, without a path"
            ))
            .at(["allowed-origins"]));
        }
        if self.http.max_headers < 8 << 10 {
            let why = format!("max-headers is {}; it must be at least 8192", self.http.max_headers);
            return Err(Error::new(why).at(["http", "max-headers"]));
        }
        if self.http.max_connections == 0 || self.http.max_body == 0 {
            return Err(Error::new("max-connections and max-body must be at least 1").at(["http"]));
        }
        self.check_admin()?;
        let models = self.models.keys().map(|name| ("models", name));
        for (table, name) in models.chain(self.aliases.keys().map(|name| ("aliases", name))) {
            names::check_model(name).map_err(|why| Error::new(why).at([table, name]))?;
        }
        if let Some(name) = self.aliases.keys().find(|name| self.models.contains_key(*name)) {
            let why = format!("aliases.{name}: there is a model of this name; remove one of them");
            return Err(Error::new(why).at(["aliases", name]));
        }
        for (name, tenant) in &self.tenants {
            let of_tenant = |why: String| Error::new(format!("tenant `{name}`: {why}")).at(["tenants", name]);
            names::check("tenants", name).map_err(of_tenant)?;
            tenant.check().map_err(of_tenant)?;
        }
        Ok(())
    }

    fn check_admin(&self) -> Result<(), Error> {
        if let (Some(keys), Some(state)) = (&self.api_keys, &self.state) {
            return Err(Error::new(format!(
                "there are both api-keys, {}, and state, {}: the file of keys keeps the state, too; leave `state` out",
                keys.display(),
                state.display()
            ))
            .at(["state"]));
        }
        let Some(admin) = self.admin else { return Ok(()) };
        if !admin.ip().is_loopback() && self.api_keys.is_none() {
            return Err(Error::new(format!(
                "{admin} can be reached by other machines, and there are no API keys: make one with `realm api-key create \
                 --scope administration` and give its file with `--api-keys FILE.db`, or administer at 127.0.0.1"
            ))
            .at(["admin"]));
        }
        if self.api_keys.is_none() && self.state.is_none() {
            return Err(Error::new(
                "administration needs a file that keeps what it changes: give one with `--state FILE.db`, or the file of \
                 `--api-keys FILE.db`",
            )
            .at(["admin"]));
        }
        Ok(())
    }

    /// The file of SQLite that keeps keys and what administration changes.
    pub(crate) fn store(&self) -> Option<&Path> {
        self.api_keys.as_deref().or(self.state.as_deref())
    }

    /// Returns the name of the first option that differs in `new` and that a running server can't change.
    pub(crate) fn fixed(&self, new: &Self) -> Option<&'static str> {
        let differs = [
            ("host", self.host != new.host),
            ("port", self.port != new.port),
            ("api-keys", self.api_keys != new.api_keys),
            ("state", self.state != new.state),
            ("admin", self.admin != new.admin),
            ("access-log", self.access_log != new.access_log),
            ("audit-log", self.audit_log != new.audit_log),
            ("tls", self.tls.is_some() != new.tls.is_some()),
            ("http.max-connections", self.http.max_connections != new.http.max_connections),
        ];
        differs.iter().find(|(_, differs)| *differs).map(|(name, _)| *name)
    }
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains('/') && !text.contains('*'))
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
