//! Tenants' programs, with their versions.

use std::sync::Arc;

use realm_protocol::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::{absent, conflict, invalid, not_compiled, too_many};
use super::models::owns;
use super::{Acting, Answer, full_name, on_a_thread};
use crate::assets;
use crate::catalog::{Catalog, Compiled, HeldProgram, Origin};
use crate::config::names::check;
use crate::keeper::of_store;
use crate::keys::{Entry, Kind, Store, Version, now};
use crate::state::State;

/// The most programs of a tenant.
const PROGRAMS: usize = 64;

/// The versions of a program that are kept.
const VERSIONS: usize = 8;

/// The most bytes of all versions of a tenant's programs.
const BYTES: u64 = 256 << 20;

impl Acting {
    pub(super) async fn list_programs(&self) -> Answer {
        let tenant = self.tenant()?.to_owned();
        self.keeper()?
            .run(move |state, store| {
                let names = state.catalog.names();
                let mut shown = Vec::new();
                for ((_, name), held) in names.programs.iter().filter(|((owner, _), _)| *owner == tenant) {
                    let versions = match held.origin {
                        Origin::Administration => {
                            store.versions(&full_name(&tenant, name)).map_err(of_store)?
                        }
                        _ => vec![held.version.clone()],
                    };
                    shown.push(of_program(name, held, &versions));
                }
                for granted in &names.tenant(&tenant).grants.programs {
                    if let Some(held) = names.program(&tenant, granted) {
                        shown.push(of_program(granted, held, std::slice::from_ref(&held.version)));
                    }
                }
                Ok((200, json!({"programs": shown})))
            })
            .await
    }

    /// Compiles a program on its tenant's account. Requests that run finish with the version that they began
    /// with.
    pub(super) async fn put_program(&self) -> Answer {
        let (tenant, name) = (self.tenant()?.to_owned(), self.names[1].clone());
        check("programs", &name).map_err(|why| invalid("name", why))?;
        if self.body.is_empty() {
            return Err(invalid("body", "the body is empty; send a WebAssembly component or module"));
        }
        let (key, sha256) = ((tenant.clone(), name.clone()), assets::sha256(&self.body));
        may_put(&self.state.catalog.names(), &key)?;
        let wasm = self.body.clone();
        let program = self.compile(&tenant, wasm.to_vec()).await?;
        self.keeper()?
            .run(move |state, store| {
                let names = state.catalog.names();
                may_put(&names, &key)?;
                if let Some(held) = names.programs.get(&key)
                    && held.version.sha256 == sha256
                    && held.program.is_ok()
                {
                    return Ok((200, shown(&name, held, store, &tenant)?));
                }
                let full = full_name(&tenant, &name);
                let kept = bytes_of(&names, store, &tenant)?;
                if kept + wasm.len() as u64 > BYTES {
                    let why = format!(
                        "the versions of the tenant's programs have {kept} bytes and may have {BYTES}: remove a program first"
                    );
                    return Err(ApiError::new(
                        400,
                        "invalid_request_error",
                        realm::ErrorCode::LimitExceeded,
                        why,
                    )
                    .code("too_many"));
                }
                let last = store.versions(&full).map_err(of_store)?.last().map_or(0, |last| last.number);
                let version =
                    Version { number: last + 1, sha256, bytes: wasm.len() as u64, created: now() };
                store.add_version(&full, &version, &wasm, VERSIONS).map_err(of_store)?;
                let held = swap(&state.catalog, key, version, program)?;
                Ok((200, shown(&name, &held, store, &tenant)?))
            })
            .await
    }

    /// Goes back to an earlier version, by default the one before.
    pub(super) async fn roll_back(&self) -> Answer {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            version: Option<u64>,
        }
        let (tenant, name) = (self.tenant()?.to_owned(), self.names[1].clone());
        let Body { version } = self.read()?;
        let (key, full) = ((tenant.clone(), name.clone()), full_name(&tenant, &name));
        let keeper = self.keeper()?;
        let (wanted, to_find) = (full.clone(), key.clone());
        let (version, wasm) = keeper
            .run(move |state, store| {
                let names = state.catalog.names();
                let held = names.programs.get(&to_find).ok_or_else(|| absent("program", &to_find.1))?;
                owns(held.origin, "program", &to_find.1)?;
                find(store, &wanted, version, held.version.number)
            })
            .await?;
        let program = self.compile(&tenant, wasm).await?;
        keeper
            .run(move |state, store| {
                if !state.catalog.names().programs.contains_key(&key) {
                    return Err(absent("program", &name));
                }
                let entry = Entry { kind: Kind::Program, name: full, value: json!(version.number) };
                store.put(&entry).map_err(of_store)?;
                let held = swap(&state.catalog, key, version, program)?;
                Ok((200, shown(&name, &held, store, &tenant)?))
            })
            .await
    }

    pub(super) async fn remove_program(&self) -> Answer {
        let (tenant, name) = (self.tenant()?.to_owned(), self.names[1].clone());
        self.keeper()?
            .run(move |state, store| {
                let (names, key) = (state.catalog.names(), (tenant.clone(), name.clone()));
                let held = names.programs.get(&key).ok_or_else(|| absent("program", &name))?;
                owns(held.origin, "program", &name)?;
                store.remove(Kind::Program, &full_name(&tenant, &name)).map_err(of_store)?;
                state.catalog.change(|names| {
                    names.programs.remove(&key);
                    Ok::<_, ApiError>(())
                })?;
                Ok((200, json!({"name": name, "removed": true})))
            })
            .await
    }

    async fn compile(&self, tenant: &str, wasm: Vec<u8>) -> Result<Compiled, ApiError> {
        let (state, tenant): (Arc<State>, _) = (Arc::clone(&self.state), tenant.to_owned());
        on_a_thread(move || assets::compile(&state.catalog, &tenant, &wasm).map_err(not_compiled)).await
    }
}

/// Checks that a tenant can have a program of a name, or another version of it.
fn may_put(names: &crate::catalog::Names, key: &(String, String)) -> Result<(), ApiError> {
    match names.programs.get(key) {
        Some(held) => owns(held.origin, "program", &key.1),
        None if names.programs.keys().filter(|(owner, _)| *owner == key.0).count() >= PROGRAMS => {
            Err(too_many("programs", PROGRAMS))
        }
        None => Ok(()),
    }
}

/// Returns a version with its bytes; by default the newest one before `active`.
fn find(
    store: &mut dyn Store,
    program: &str,
    wanted: Option<u64>,
    active: u64,
) -> Result<(Version, Vec<u8>), ApiError> {
    let versions = store.versions(program).map_err(of_store)?;
    let numbers: Vec<_> = versions.iter().map(|version| version.number.to_string()).collect();
    let found = versions.into_iter().rev().find(|version| match wanted {
        Some(number) => version.number == number,
        None => version.number < active,
    });
    let version = found.ok_or_else(|| {
        let which = wanted.map_or("earlier version".to_owned(), |number| format!("version {number}"));
        conflict(format!("there is no {which}; version {active} runs, and there are {}", numbers.join(", ")))
    })?;
    let wasm = store.wasm(program, version.number).map_err(of_store)?;
    Ok((version, wasm.ok_or_else(|| conflict("the version is gone"))?))
}

fn swap(
    catalog: &Arc<Catalog>,
    key: (String, String),
    version: Version,
    program: Compiled,
) -> Result<Arc<HeldProgram>, ApiError> {
    let held = Arc::new(HeldProgram { origin: Origin::Administration, version, program: Ok(program) });
    catalog.change(|names| {
        names.programs.insert(key, Arc::clone(&held));
        Ok::<_, ApiError>(())
    })?;
    Ok(held)
}

/// The bytes of all versions of a tenant's programs.
fn bytes_of(names: &crate::catalog::Names, store: &mut dyn Store, tenant: &str) -> Result<u64, ApiError> {
    let mut sum = 0;
    for (_, name) in names.programs.keys().filter(|(owner, _)| owner == tenant) {
        let versions = store.versions(&full_name(tenant, name)).map_err(of_store)?;
        sum += versions.iter().map(|version| version.bytes).sum::<u64>();
    }
    Ok(sum)
}

fn shown(name: &str, held: &HeldProgram, store: &mut dyn Store, tenant: &str) -> Result<Value, ApiError> {
    let versions = store.versions(&full_name(tenant, name)).map_err(of_store)?;
    Ok(of_program(name, held, &versions))
}

fn of_program(name: &str, held: &HeldProgram, versions: &[Version]) -> Value {
    let version = |version: &Version| {
        json!({
            "number": version.number,
            "sha256": version.sha256,
            "bytes": version.bytes,
            "created": version.created,
        })
    };
    json!({
        "name": name,
        "state": if held.program.is_ok() { "ready" } else { "failed" },
        "error": held.program.as_ref().err(),
        "origin": held.origin,
        "version": held.version.number,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
    })
}
