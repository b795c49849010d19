//! Defense against web pages: a page that a browser has open must not reach the server.
//!
//! A page can send requests to 127.0.0.1, and a page whose name its owner points there (DNS rebinding) can
//! read the answers. Such requests carry the page's name in `Host`, and other pages' requests an `Origin`.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use realm::ErrorCode;
use realm_protocol::ApiError;

use crate::Config;

/// The names and origins that may call.
#[derive(Debug)]
pub(crate) struct Allowed {
    /// `None` for any name.
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
}

impl Allowed {
    pub(crate) fn new(config: &Config) -> Self {
        let any = !config.host.is_loopback() && config.allowed_hosts.is_empty();
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { hosts: (!any).then(|| lower(&config.allowed_hosts)), origins: lower(&config.allowed_origins) }
    }

    /// The names and origins that may administer: no page may.
    pub(crate) fn to_administer(config: &Config) -> Self {
        let local = config.admin.is_none_or(|address| address.ip().is_loopback());
        let host = if local { std::net::Ipv4Addr::LOCALHOST.into() } else { config.host };
        let hosts = config.allowed_hosts.clone();
        Self::new(&Config { host, allowed_hosts: hosts, ..Config::default() })
    }

    /// Refuses a request that a strange page may have sent.
    pub(crate) fn check(&self, parts: &Parts) -> Result<(), ApiError> {
        let host = host(parts)?;
        if !self.has_host(&host) {
            let why = "the header `Host` names another server than this one; add the name to `allowed-hosts` (`--allowed-host`) if \
                       it is this one's";
            return Err(forbidden(why));
        }
        let mut origins = parts.headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if origins.next().is_none() && (self.origins.contains(&origin) || own == Some(&*host)) {
            return Ok(());
        }
        let why = "the request comes from a web page of another origin; add it to `allowed-origins` (`--allowed-origin`) if it may \
                   call this server";
        Err(forbidden(why))
    }

    /// Returns whether a name, in lower case and perhaps with a port, is this server's.
    fn has_host(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let name = without_port(host);
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        // An address can't be pointed elsewhere, so no page has it by a trick.
        name == "localhost"
            || address.parse::<IpAddr>().is_ok()
            || hosts.iter().any(|known| known == name || known == host)
    }

    /// Returns the origin of a request, if it is a listed page's.
    pub(crate) fn listed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.origins.contains(&text).then(|| origin.clone())
    }
}

/// Returns the name that the request was sent to, in lower case: HTTP/2's `:authority`, or the header `Host`.
fn host(parts: &Parts) -> Result<String, ApiError> {
    let mut headers = parts.headers.get_all(HOST).iter();
    let (header, another) = (headers.next(), headers.next());
    if another.is_some() {
        return Err(bad("the request has more than one header `Host`"));
    }
    let header = match header.map(HeaderValue::to_str) {
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => return Err(bad("the header `Host` has characters that no name has")),
        None => None,
    };
    let target = parts.uri.authority().map(http::uri::Authority::as_str);
    match (target, header) {
        (Some(target), Some(header)) if !target.eq_ignore_ascii_case(header) => {
            Err(bad("the request names two servers"))
        }
        (Some(name), _) | (None, Some(name)) => Ok(name.to_ascii_lowercase()),
        (None, None) => Err(bad("the request has no header `Host`")),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            // A bare IPv6 address has colons and no port.
            if name.contains(':') && !name.starts_with('[') { host } else { name }
        }
        _ => host,
    }
}

fn bad(why: &str) -> ApiError {
    ApiError::new(400, "invalid_request_error", ErrorCode::InvalidArgument, why)
}

fn forbidden(why: &str) -> ApiError {
    ApiError::new(403, "permission_error", ErrorCode::Denied, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(config: &Config, headers: &[(&str, &str)]) -> u16 {
        let mut request = http::Request::builder().uri("/v1/models");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Allowed::new(config).check(&parts).map_or_else(|error| error.status(), |()| 200)
    }

    #[test]
    fn pages_and_foreign_names_are_refused() {
        let config = Config {
            allowed_hosts: vec!["LLM.example.com".into()],
            allowed_origins: vec!["https://chat.example.com".into()],
            ..Config::default()
        };
        for (headers, expected) in [
            (&[("host", "localhost:8080")][..], 200),
            (&[("host", "127.0.0.1")], 200),
            (&[("host", "[::1]:8080")], 200),
            (&[("host", "::1")], 200),
            (&[("host", "llm.example.com:443")], 200),
            (&[("host", "evil.example.com:8080")], 403),
            (&[("host", "localhost.evil.example.com")], 403),
            (&[("host", "127.0.0.1.evil.example.com")], 403),
            (&[("host", "")], 403),
            (&[], 400),
            (&[("host", "localhost"), ("host", "localhost")], 400),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], 200),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:3000")], 403),
            (&[("host", "localhost"), ("origin", "https://chat.example.com")], 200),
            (&[("host", "localhost"), ("origin", "https://chat.example.com.evil.com")], 403),
            (&[("host", "localhost"), ("origin", "null")], 403),
        ] {
            assert_eq!(status(&config, headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_public_server_has_any_name_unless_names_are_listed() {
        let public = Config { host: [0, 0, 0, 0].into(), ..Config::default() };
        assert_eq!(status(&public, &[("host", "whatever.example.com")]), 200);
        let listed = Config { allowed_hosts: vec!["llm.example.com".into()], ..public };
        assert_eq!(status(&listed, &[("host", "whatever.example.com")]), 403);
    }
}
