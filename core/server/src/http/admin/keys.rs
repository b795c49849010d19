//! API keys.

use std::collections::HashMap;

use realm_protocol::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::{absent, conflict, invalid, too_many};
use super::{Acting, Answer};
use crate::Rates;
use crate::config::names::{check, check_model};
use crate::keeper::of_store;
use crate::keys::{Key, Scope, Store, Used, now};
use crate::state::State;

/// The most keys of a tenant.
const KEYS: usize = 1000;

/// The most bytes of a note.
const NOTE: usize = 256;

/// The most models that a key lists.
const MODELS: usize = 256;

/// The longest time that can be set, in seconds: a thousand years.
const LONGEST: u64 = 1000 * 366 * 24 * 3600;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct NewKey {
    tenant: String,
    #[serde(default)]
    note: String,
    scopes: Option<Vec<String>>,
    models: Option<Vec<String>>,
    #[serde(default)]
    rates: Rates,
    /// Seconds until the key expires.
    expires_in: Option<u64>,
}

/// Returns whether a tenant's administrator may see, make and change a key: one that can do no more than it.
fn is_tenants(key: &Key, tenant: &str) -> bool {
    let may = |scope: &Scope| matches!(scope, Scope::Inference | Scope::TenantAdministration);
    key.tenant == tenant && key.scopes.iter().all(may)
}

impl Acting {
    fn has_keys(&self) -> Result<(), ApiError> {
        match &self.state.keys {
            Some(_) => Ok(()),
            None => Err(conflict("this server has no keys; start it with `--api-keys FILE.db`")),
        }
    }

    pub(super) async fn list_keys(&self) -> Answer {
        self.has_keys()?;
        let own = self.by.tenant.clone();
        self.keeper()?
            .run(move |_, store| {
                let used: HashMap<String, Used> = store.usage().map_err(of_store)?.into_iter().collect();
                let keys = store.keys().map_err(of_store)?;
                let visible = keys.iter().filter(|key| own.as_ref().is_none_or(|own| is_tenants(key, own)));
                let shown: Vec<_> = visible.map(|key| of_key(key, used.get(&key.id))).collect();
                Ok((200, json!({"keys": shown})))
            })
            .await
    }

    pub(super) async fn create_key(&self) -> Answer {
        self.has_keys()?;
        let new: NewKey = self.read()?;
        if self.by.tenant.as_ref().is_some_and(|own| *own != new.tenant) {
            return Err(absent("tenant", &new.tenant));
        }
        let key = self.new_key(new)?;
        self.keeper()?
            .run(move |state, store| {
                let (key, secret) = key;
                let keys = store.keys().map_err(of_store)?;
                if keys.iter().filter(|other| other.tenant == key.tenant).count() >= KEYS {
                    return Err(too_many("keys of this tenant", KEYS));
                }
                store.add(&key).map_err(of_store)?;
                reread(state, store)?;
                let mut shown = of_key(&key, None);
                shown["key"] = json!(secret.as_str());
                Ok((200, shown))
            })
            .await
    }

    fn new_key(&self, new: NewKey) -> Result<(Key, crate::keys::Secret), ApiError> {
        check("tenants", &new.tenant).map_err(|why| invalid("tenant", why))?;
        let scopes = new.scopes.unwrap_or_else(|| vec![Scope::Inference.as_str().to_owned()]);
        let scopes = scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, _>>();
        let scopes = scopes.map_err(|why| invalid("scopes", why))?;
        if new.note.len() > NOTE {
            return Err(invalid("note", format!("note has {} bytes; at most {NOTE}", new.note.len())));
        }
        let models = new.models.as_deref().unwrap_or_default();
        if models.len() > MODELS {
            return Err(invalid("models", format!("models has {} names; at most {MODELS}", models.len())));
        }
        for name in models {
            check_model(name).map_err(|why| invalid("models", why))?;
        }
        new.rates.check().map_err(|why| invalid("rates", why))?;
        if let Some(time) = new.expires_in.filter(|&time| time > LONGEST) {
            let why = format!("expires-in is {time} seconds; at most {LONGEST}");
            return Err(invalid("expires-in", why));
        }
        let made = Key::create(new.tenant);
        let (key, secret) = made.map_err(|_| no_randomness())?;
        let expires = new.expires_in.map(|time| key.created + time);
        let key = Key { note: new.note, scopes, models: new.models, rates: new.rates, expires, ..key };
        if let Some(own) = &self.by.tenant
            && !is_tenants(&key, own)
        {
            let why = "scopes may be `inference` and `tenant-administration`: a tenant's administrator gives no others";
            return Err(invalid("scopes", why));
        }
        Ok((key, secret))
    }

    pub(super) async fn rotate_key(&self) -> Answer {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            /// Seconds until the old key expires. By default a day.
            overlap: Option<u64>,
        }
        self.has_keys()?;
        let overlap = self.read::<Body>()?.overlap.unwrap_or(24 * 3600);
        if overlap > LONGEST {
            return Err(invalid("overlap", format!("overlap is {overlap} seconds; at most {LONGEST}")));
        }
        let (id, own) = (self.names[0].clone(), self.by.tenant.clone());
        self.keeper()?
            .run(move |state, store| {
                let old = find(store, &id, own.as_deref())?;
                let made = Key::create(&*old.tenant);
                let (new, secret) = made.map_err(|_| no_randomness())?;
                let Key { note, scopes, models, rates, .. } = old;
                let new = Key { note, scopes, models, rates, ..new };
                if !store.rotate(&id, &new, now() + overlap).map_err(of_store)? {
                    return Err(absent("key", &id));
                }
                reread(state, store)?;
                let mut shown = of_key(&new, None);
                shown["key"] = json!(secret.as_str());
                Ok((200, shown))
            })
            .await
    }

    pub(super) async fn revoke_key(&self) -> Answer {
        self.has_keys()?;
        let (id, own) = (self.names[0].clone(), self.by.tenant.clone());
        self.keeper()?
            .run(move |state, store| {
                find(store, &id, own.as_deref())?;
                if !store.revoke(&id).map_err(of_store)? {
                    return Err(absent("key", &id));
                }
                reread(state, store)?;
                Ok((200, json!({"id": id, "revoked": true})))
            })
            .await
    }
}

fn no_randomness() -> ApiError {
    let why = "the system has no random numbers for a key";
    ApiError::new(500, "server_error", realm::ErrorCode::Internal, why)
}

/// Returns a key that the caller may change.
fn find(store: &mut dyn Store, id: &str, own: Option<&str>) -> Result<Key, ApiError> {
    let keys = store.keys().map_err(of_store)?;
    let found = keys.into_iter().find(|key| key.id == id);
    found.filter(|key| own.is_none_or(|own| is_tenants(key, own))).ok_or_else(|| absent("key", id))
}

/// Gives requests the keys of now.
fn reread(state: &State, store: &mut dyn Store) -> Result<(), ApiError> {
    if let Some(keys) = &state.keys {
        keys.replace(store.keys().map_err(of_store)?);
    }
    Ok(())
}

fn of_key(key: &Key, used: Option<&Used>) -> Value {
    let used = used.copied().unwrap_or_default();
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "note": key.note,
        "scopes": scopes,
        "models": key.models,
        "rates": key.rates,
        "created": key.created,
        "expires": key.expires,
        "used": {
            "requests": used.requests,
            "prompt-tokens": used.prompt_tokens,
            "cached-tokens": used.cached_tokens,
            "generated-tokens": used.generated_tokens,
        },
    })
}
