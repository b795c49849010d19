//! Administration: models, aliases, tenants, adapters, programs and keys, while requests run.
//!
//! A call passes the defense against web pages and its key, and then the power that its route needs. Changes
//! are made by the keeper's thread, one after the other, and are in the store before they are answered. An
//! administrator of a tenant gets the same answers for other tenants' things as for things that do not exist.

mod adapters;
mod errors;
mod keys;
mod models;
mod places;
mod programs;
mod tenants;

pub(crate) use self::places::Places;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use hyper::body::Incoming;
use realm::ErrorCode;
use realm_protocol::ApiError;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::errors::{absent, invalid, of_realm};
use super::auth::{self, Administrator};
use super::{AnswerBody, asked, health};
use crate::call::Call;
use crate::keeper::Keeper;
use crate::reload;
use crate::routes::{ADMIN, Act, Power, Route, names_in};
use crate::state::{Settings, State};

/// The status and the body of an answer.
type Answer = Result<(u16, Value), ApiError>;

pub(super) async fn guarded(
    state: &Arc<State>,
    settings: &Settings,
    call: &Arc<Call>,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<AnswerBody>, ApiError> {
    settings.administering.check(parts)?;
    let path = parts.uri.path();
    if path == "/health" && parts.method == Method::GET {
        return Ok(health(state));
    }
    let by = auth::administrator(state, call, &parts.headers)?;
    if path == "/openapi.json" && parts.method == Method::GET {
        return Ok(super::json(200, crate::openapi::administration().to_owned()));
    }
    let (route, names) = find(parts.method.as_str(), path)?;
    let place = state.places.take(by.tenant.as_deref()).ok_or_else(errors::busy)?;
    let body = asked(&settings.config.http, parts, body).await?;
    let (key, of) = (by.key.clone(), by.tenant.clone());
    let acting = Acting { state: Arc::clone(state), by, names, body };
    // The act runs to its end even if the caller leaves, so that it is in the audit log.
    let objects = acting.names.join("/");
    let (state, id) = (Arc::clone(state), call.id.clone());
    let work = async move {
        let _place = place;
        let result = acting.run(route).await;
        if let Some(audit) = state.audit.as_ref().filter(|_| route.method != "GET") {
            audit
                .act(json!({
                    "time": crate::log::timestamp(),
                    "act": format!("{:?}", route.act),
                    "object": objects,
                    "result": result.as_ref().map_or_else(|error| error.realm_code(), |_| "done"),
                    "request": id,
                    "key": key,
                    "tenant": of,
                }))
                .await?;
        }
        result
    };
    let done = tokio::spawn(work).await;
    let (status, value) = done.map_err(|error| {
        tracing::error!(request = call.id, "an act of administration failed: {error}");
        ApiError::new(500, "server_error", ErrorCode::Internal, "the server failed; its log says why")
    })??;
    Ok(super::json(status, value.to_string()))
}

/// Finds the call of a path, and the names in it.
fn find(method: &str, path: &str) -> Result<(&'static Route, Vec<String>), ApiError> {
    let known = |route: &&Route| names_in(route.path, path).is_some();
    let mut routes = ADMIN.iter().filter(known).peekable();
    if routes.peek().is_none() {
        let why = "there is no such path; GET /openapi.json lists those of administration";
        return Err(ApiError::new(404, "invalid_request_error", ErrorCode::NotFound, why).code("unknown_url"));
    }
    let methods: Vec<_> = routes.clone().map(|route| route.method).collect();
    let route = routes.find(|route| route.method == method).ok_or_else(|| {
        let why = format!("this path answers {}, not {method}", methods.join(" and "));
        ApiError::new(405, "invalid_request_error", ErrorCode::Unsupported, why).code("method_not_allowed")
    })?;
    Ok((route, names_in(route.path, path).unwrap_or_default()))
}

/// An act, and all that it needs.
struct Acting {
    state: Arc<State>,
    by: Administrator,
    /// The names in the path.
    names: Vec<String>,
    body: Bytes,
}

impl Acting {
    async fn run(self, route: &Route) -> Answer {
        if let Some(own) = &self.by.tenant {
            if route.power == Power::Everything {
                let why = "the API key may not call this: it lacks the scope `administration`";
                return Err(ApiError::new(403, "permission_error", ErrorCode::Denied, why));
            }
            if route.path.contains("/TENANT") && self.names[0] != *own {
                return Err(absent("tenant", &self.names[0]));
            }
        }
        match route.act {
            Act::Status => Ok(self.status()),
            Act::Reload => self.reload().await,
            Act::ListModels => Ok(self.list_models()),
            Act::ShowModel => self.show_model(),
            Act::LoadModel => self.load_model(),
            Act::UnloadModel => self.unload_model().await,
            Act::ListAliases => Ok(self.list_aliases()),
            Act::SetAlias => self.set_alias().await,
            Act::RemoveAlias => self.remove_alias().await,
            Act::ListTenants => Ok(self.list_tenants()),
            Act::ShowTenant => self.show_tenant(),
            Act::SetTenant => self.set_tenant().await,
            Act::RemoveTenant => self.remove_tenant().await,
            Act::ListAdapters => self.list_adapters(),
            Act::LoadAdapter => self.load_adapter().await,
            Act::UnloadAdapter => self.unload_adapter().await,
            Act::ListPrograms => self.list_programs().await,
            Act::PutProgram => self.put_program().await,
            Act::RollBack => self.roll_back().await,
            Act::RemoveProgram => self.remove_program().await,
            Act::ListKeys => self.list_keys().await,
            Act::CreateKey => self.create_key().await,
            Act::RotateKey => self.rotate_key().await,
            Act::RevokeKey => self.revoke_key().await,
        }
    }

    fn keeper(&self) -> Result<Keeper, ApiError> {
        // Administration without a store is refused when the server starts.
        self.state
            .keeper
            .clone()
            .ok_or_else(|| invalid("state", "this server has no file that keeps changes"))
    }

    /// Reads the body; an empty one is an empty object.
    fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let body = if self.body.is_empty() { b"{}" } else { &self.body[..] };
        serde_json::from_slice(body).map_err(|error| {
            let why = format!("the body is not what this call takes: {error}");
            ApiError::new(400, "invalid_request_error", ErrorCode::InvalidArgument, why)
        })
    }

    fn status(&self) -> (u16, Value) {
        let names = self.state.catalog.names();
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "models": names.models.len(),
            "aliases": names.aliases.len(),
            "tenants": names.tenants.len(),
            "adapters": names.adapters.len(),
            "programs": names.programs.len(),
            "draining": *self.state.draining.borrow(),
        });
        (200, status)
    }

    async fn reload(&self) -> Answer {
        let state = Arc::clone(&self.state);
        on_a_thread(move || {
            let invalid = |error: crate::Error| {
                ApiError::new(400, "invalid_request_error", ErrorCode::InvalidArgument, error.to_string())
                    .code("invalid_configuration")
            };
            reload::reload(&state).map_err(invalid)
        })
        .await?;
        Ok((200, json!({"reloaded": true})))
    }

    /// Returns whether a tenant has settings or keys, or is the tenant of requests without a key.
    fn knows_tenant(&self, tenant: &str) -> bool {
        tenant == crate::catalog::DEFAULT
            || self.state.catalog.names().tenants.contains_key(tenant)
            || self.state.keys.as_ref().is_some_and(|keys| keys.has_tenant(tenant))
    }

    /// Returns the tenant in the path, if there is one.
    fn tenant(&self) -> Result<&str, ApiError> {
        let tenant = &self.names[0];
        if self.knows_tenant(tenant) { Ok(tenant) } else { Err(absent("tenant", tenant)) }
    }
}

/// Runs work that takes time on a thread of its own.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!("{error}");
        Err(ApiError::new(500, "server_error", ErrorCode::Internal, "the server failed; its log says why"))
    })
}

/// Returns the name under which the store has an adapter or a program.
fn full_name(owner: &str, name: &str) -> String {
    format!("{owner}/{name}")
}

fn loaded<T>(result: Result<T, realm::Error>) -> Result<T, ApiError> {
    result.map_err(of_realm)
}
