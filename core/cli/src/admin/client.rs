//! Calls of a server.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use ureq::http::Request;
use ureq::tls::{RootCerts, TlsConfig};

use crate::output::say;

const URL: &str = "http://127.0.0.1:8081";

/// The most bytes of an answer that are read.
const LARGEST: u64 = 64 << 20;

/// A server, and the key that it is called with.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
    /// True to print answers as they are.
    pub(super) json: bool,
}

impl Client {
    pub(super) fn new(url: Option<&str>, key: Option<&Path>, json: bool) -> Result<Self> {
        let from_environment = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = url.map(str::to_owned).or_else(|| from_environment("REALM_ADMIN_URL"));
        let url = url.unwrap_or_else(|| URL.to_owned());
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("`{url}` is no URL such as {URL}");
        }
        let key = match key {
            Some(path) if path == Path::new("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read the key from stdin")?;
                Some(text)
            }
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Some(text.with_context(|| format!("cannot read the key in {}", path.display()))?)
            }
            None => from_environment("REALM_ADMIN_KEY"),
        };
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = ureq::Agent::config_builder().http_status_as_error(false).tls_config(tls).build();
        let key = key.map(|key| key.trim().to_owned());
        Ok(Self { agent: config.into(), url: url.trim_end_matches('/').to_owned(), key, json })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, &[])
    }

    /// Sends JSON; null for no body.
    pub(super) fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.call(method, path, text.as_bytes())
    }

    /// Sends bytes, and returns the answer; a failure has the server's words.
    pub(super) fn call(&self, method: &str, path: &str, body: &[u8]) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(body).with_context(|| format!("`{url}` is no URL"))?;
        let mut answer = self.agent.run(request).map_err(|error| {
            anyhow!("{} does not answer: {error}; is the server running with `--admin`?", self.url)
        })?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(LARGEST).read_to_string();
        let text = text.with_context(|| format!("the answer of {} broke off", self.url))?;
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} answered with status {status} and no JSON", self.url))?;
        if status.is_success() {
            return Ok(value);
        }
        match value["error"]["message"].as_str() {
            Some(why) if status.as_u16() == 401 && self.key.is_none() => {
                bail!("{why}; set REALM_ADMIN_KEY, or give --key-file FILE")
            }
            Some(why) => bail!("{why}"),
            None => bail!("{} answered with status {status}", self.url),
        }
    }

    /// Prints an answer as JSON.
    pub(super) fn show(&self, value: &Value) -> Result<()> {
        say!("{value:#}")?;
        Ok(())
    }
}

/// Writes a name as a part of a path.
pub(super) fn escaped(name: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Splits NAME=VALUE.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!("`{text}` is not NAME=VALUE")),
    }
}
