//! The calls of the server: one table, for the answers, metrics, logs and `/openapi.json`.

use std::sync::OnceLock;

use realm_protocol::Service;

/// A call of administration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Status,
    Reload,
    ListModels,
    ShowModel,
    LoadModel,
    UnloadModel,
    ListAliases,
    SetAlias,
    RemoveAlias,
    ListTenants,
    ShowTenant,
    SetTenant,
    RemoveTenant,
    ListAdapters,
    LoadAdapter,
    UnloadAdapter,
    ListPrograms,
    PutProgram,
    RollBack,
    RemoveProgram,
    ListKeys,
    CreateKey,
    RotateKey,
    RevokeKey,
}

/// The party that may make a call of administration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    /// Administrators alone.
    Everything,
    /// A tenant's administrator too, for its own tenant.
    Tenant,
}

/// A call of administration. Words in capitals stand for names.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) power: Power,
    pub(crate) act: Act,
    pub(crate) summary: &'static str,
}

const fn route(
    method: &'static str,
    path: &'static str,
    power: Power,
    act: Act,
    summary: &'static str,
) -> Route {
    Route { method, path, power, act, summary }
}

const TENANT_ADAPTER: &str = "/admin/tenants/TENANT/adapters/NAME";
const TENANT_PROGRAM: &str = "/admin/tenants/TENANT/programs/NAME";

pub(crate) const ADMIN: [Route; 24] = {
    use Power::{Everything, Tenant};
    [
        route("GET", "/admin/status", Everything, Act::Status, "the version, and the numbers of entries"),
        route("POST", "/admin/reload", Everything, Act::Reload, "reads the configuration again"),
        route("GET", "/admin/models", Tenant, Act::ListModels, "models, with the progress of loads"),
        route("GET", "/admin/models/NAME", Tenant, Act::ShowModel, "one model"),
        route("PUT", "/admin/models/NAME", Everything, Act::LoadModel, "loads a model, or replaces it"),
        route("DELETE", "/admin/models/NAME", Everything, Act::UnloadModel, "unloads a model"),
        route("GET", "/admin/aliases", Tenant, Act::ListAliases, "further names of models"),
        route("PUT", "/admin/aliases/NAME", Everything, Act::SetAlias, "makes a name stand for a model"),
        route("DELETE", "/admin/aliases/NAME", Everything, Act::RemoveAlias, "removes a further name"),
        route("GET", "/admin/tenants", Tenant, Act::ListTenants, "tenants"),
        route("GET", "/admin/tenants/TENANT", Tenant, Act::ShowTenant, "one tenant"),
        route("PUT", "/admin/tenants/TENANT", Everything, Act::SetTenant, "sets limits and grants"),
        route("DELETE", "/admin/tenants/TENANT", Everything, Act::RemoveTenant, "removes a tenant"),
        route("GET", "/admin/tenants/TENANT/adapters", Tenant, Act::ListAdapters, "a tenant's adapters"),
        route("PUT", TENANT_ADAPTER, Everything, Act::LoadAdapter, "loads an adapter for a tenant"),
        route("DELETE", TENANT_ADAPTER, Everything, Act::UnloadAdapter, "unloads an adapter"),
        route("GET", "/admin/tenants/TENANT/programs", Tenant, Act::ListPrograms, "programs and versions"),
        route("PUT", TENANT_PROGRAM, Tenant, Act::PutProgram, "compiles a program and swaps it in"),
        route(
            "POST",
            "/admin/tenants/TENANT/programs/NAME/rollback",
            Tenant,
            Act::RollBack,
            "goes back to a version",
        ),
        route("DELETE", TENANT_PROGRAM, Tenant, Act::RemoveProgram, "removes a program with its versions"),
        route("GET", "/admin/keys", Tenant, Act::ListKeys, "keys without their secrets, and what they used"),
        route("POST", "/admin/keys", Tenant, Act::CreateKey, "makes a key, which is shown this once"),
        route("POST", "/admin/keys/ID/rotate", Tenant, Act::RotateKey, "makes a key in the place of another"),
        route("DELETE", "/admin/keys/ID", Tenant, Act::RevokeKey, "refuses a key from now on"),
    ]
};

/// The server's own calls, beside those of the protocols: method, path, summary.
pub(crate) const OWN: [(&str, &str, &str); 3] = [
    ("GET", "/health", "whether the server takes requests"),
    ("GET", "/metrics", "counters, for Prometheus"),
    ("GET", "/openapi.json", "this description"),
];

/// Returns the names in a path that has the form of `pattern`, decoded.
pub(crate) fn names_in(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut names = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(names),
            (Some(word), Some(part)) if is_name(word) => {
                names.push(decoded(part).filter(|name| !name.is_empty())?);
            }
            (Some(word), Some(part)) if word == part => {}
            _ => return None,
        }
    }
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Decodes a part of a path with escapes such as `%2F`.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, after @ ..] = rest {
        if let (b'%', [high, low, after @ ..]) = (first, after) {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            bytes.push((digit(high)? * 16 + digit(low)?) as u8);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The calls at clients' address: method and path.
pub(crate) fn clients() -> &'static [(&'static str, String)] {
    static ALL: OnceLock<Vec<(&'static str, String)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let own = OWN.iter().map(|(method, path, _)| (*method, (*path).to_owned()));
        own.chain(Service::routes()).collect()
    })
}

/// Returns the name of a path in metrics and logs: the path itself, with words in capitals for names, or
/// `other`. Strangers choose paths, and a series for each would fill the memory.
pub(crate) fn known(path: &str) -> &'static str {
    let one = |pattern: &str| path == pattern || names_in(pattern, path).is_some();
    if path.starts_with("/v1/models/") {
        return "/v1/models/NAME";
    }
    if path.starts_with("/admin/") {
        return ADMIN.iter().map(|route| route.path).find(|pattern| one(pattern)).unwrap_or("other");
    }
    let own = clients().iter().map(|(_, known)| &**known);
    own.chain(crate::grpc::CALLS.iter().map(|(known, ..)| *known))
        .find(|known| *known == path)
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_named_and_their_names_decoded() {
        for (path, name) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/models/a/b", "/v1/models/NAME"),
            ("/health", "/health"),
            ("/admin/models", "/admin/models"),
            ("/admin/models/small", "/admin/models/NAME"),
            ("/admin/tenants/a/programs/b/rollback", "/admin/tenants/TENANT/programs/NAME/rollback"),
            ("/admin/models/", "other"),
            ("/admin/models/a/b", "other"),
            ("/admin/NAME", "other"),
            ("/realm.v1.Realm/Generate", "/realm.v1.Realm/Generate"),
            ("/realm.v1.Realm/Other", "other"),
            ("/v1/other", "other"),
        ] {
            assert_eq!(known(path), name, "{path}");
        }
        let names = |path| names_in("/admin/models/NAME", path);
        assert_eq!(names("/admin/models/hf%3Aowner%2Frepo"), Some(vec!["hf:owner/repo".to_owned()]));
        assert_eq!(names("/admin/models/%"), Some(vec!["%".to_owned()]));
        for bad in ["/admin/models/%zz", "/admin/models/%ff", "/admin/models", "/admin/models/a/"] {
            assert_eq!(names(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_act_has_one_route() {
        for (at, route) in ADMIN.iter().enumerate() {
            for other in &ADMIN[..at] {
                assert_ne!(route.act, other.act);
                assert_ne!((route.method, route.path), (other.method, other.path));
            }
        }
    }
}
