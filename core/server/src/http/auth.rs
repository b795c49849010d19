//! Keys of requests.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use realm::ErrorCode;
use realm_protocol::ApiError;

use crate::call::{Call, Caller};
use crate::catalog::DEFAULT;
use crate::keys::{LiveKey, Scope, Secret};
use crate::state::State;

/// Returns the scope that a path needs. A path that does not exist needs one, too.
pub(super) fn needed(path: &str) -> Scope {
    if path == "/metrics" { Scope::Metrics } else { Scope::Inference }
}

/// Finds the caller of a request, and refuses it if its key does not allow the call. Nothing of the request
/// but its path and its key is looked at before, so a refusal tells nothing of models.
pub(super) fn caller(
    state: &State,
    call: &Call,
    headers: &HeaderMap,
    scope: Scope,
) -> Result<Caller, ApiError> {
    let key = key(state, call, headers, |key| key.may(scope), || format!("it lacks the scope `{scope}`"))?;
    let name: Arc<str> = key.as_ref().map_or(DEFAULT, |key| &key.key.tenant).into();
    let tenant = state.catalog.tenant(&name).map_err(|error| {
        tracing::error!(tenant = &*name, "{error}");
        ApiError::new(
            500,
            "server_error",
            ErrorCode::Internal,
            "the server failed to set up the key's tenant",
        )
    })?;
    Ok(Caller { key, tenant, tenant_name: name })
}

/// The caller of administration.
#[derive(Clone)]
pub(super) struct Administrator {
    /// The public part of its key.
    pub(super) key: Option<String>,
    /// The tenant that it administers; `None` for all.
    pub(super) tenant: Option<String>,
}

/// Finds the caller of administration. A refusal depends on the key alone.
pub(super) fn administrator(
    state: &State,
    call: &Call,
    headers: &HeaderMap,
) -> Result<Administrator, ApiError> {
    let may = |key: &LiveKey| key.may(Scope::Administration) || key.may(Scope::TenantAdministration);
    let lacks = || "it has no scope of administration".to_owned();
    let key = key(state, call, headers, may, lacks)?;
    let own = |key: &Arc<LiveKey>| (!key.may(Scope::Administration)).then(|| key.key.tenant.clone());
    Ok(Administrator { key: key.as_ref().map(|key| key.key.id.clone()), tenant: key.as_ref().and_then(own) })
}

/// Returns the key of a request; `None` if the server has no keys.
fn key(
    state: &State,
    call: &Call,
    headers: &HeaderMap,
    may: impl FnOnce(&LiveKey) -> bool,
    lacks: impl FnOnce() -> String,
) -> Result<Option<Arc<LiveKey>>, ApiError> {
    let Some(keys) = &state.keys else {
        call.is_from(None, DEFAULT);
        return Ok(None);
    };
    let refused = |id: Option<&str>, why: &str| {
        if let Some(audit) = &state.audit {
            audit.refused(&call.id, call.route(), id, why);
        }
    };
    let Some(given) = given(headers) else {
        refused(None, "no-key");
        return Err(unauthorized(
            "this server needs an API key, as `Authorization: Bearer rk_…` or `x-api-key: rk_…`",
        ));
    };
    let Some(key) = keys.find(given, crate::keys::now()) else {
        refused(Secret::parse(given).as_ref().map(Secret::id), "unknown-key");
        return Err(unauthorized("the API key is none of this server's, or it was revoked or has expired"));
    };
    call.is_from(Some(&key), &key.key.tenant);
    if !may(&key) {
        refused(Some(&key.key.id), "scope");
        let why = format!("the API key may not call this: {}", lacks());
        return Err(ApiError::new(403, "permission_error", ErrorCode::Denied, why));
    }
    Ok(Some(key))
}

/// Returns the key that a request gives. Two different ones are none.
fn given(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let own = headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim);
    match (bearer, own) {
        (Some(bearer), Some(own)) if bearer != own => None,
        (bearer, own) => bearer.or(own),
    }
}

fn unauthorized(why: &str) -> ApiError {
    ApiError::new(401, "authentication_error", ErrorCode::Denied, why).code("invalid_api_key")
}
