//! Keys of requests.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use realm::ErrorCode;
use realm_protocol::ApiError;

use crate::call::Caller;
use crate::keys::Scope;
use crate::state::State;
use crate::tenants::DEFAULT;

/// Returns the scope that a path needs. A path that does not exist needs one, too.
pub(super) fn needed(path: &str) -> Scope {
    if path == "/metrics" { Scope::Metrics } else { Scope::Inference }
}

/// Finds the caller of a request, and refuses it if its key does not allow the call. Nothing of the request
/// but its path and its key is looked at before, so a refusal tells nothing of models.
pub(super) fn caller(state: &State, headers: &HeaderMap, scope: Scope) -> Result<Caller, ApiError> {
    let key = match &state.keys {
        None => None,
        Some(keys) => {
            let given = given(headers).ok_or_else(|| {
                unauthorized(
                    "this server needs an API key, as `Authorization: Bearer rk_…` or `x-api-key: rk_…`",
                )
            })?;
            let key = keys.find(given, crate::keys::now()).ok_or_else(|| {
                unauthorized("the API key is none of this server's, or it was revoked or has expired")
            })?;
            if !key.may(scope) {
                let why = format!("the API key may not call this: it lacks the scope `{scope}`");
                return Err(ApiError::new(403, "permission_error", ErrorCode::Denied, why));
            }
            Some(key)
        }
    };
    let name: Arc<str> = key.as_ref().map_or(DEFAULT, |key| &key.key.tenant).into();
    let tenant = state.tenants.tenant(&name).map_err(|error| {
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
