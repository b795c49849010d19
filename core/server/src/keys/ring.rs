//! The keys in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq;

use super::{Key, Scope, Secret};
use crate::limits::Account;

/// A key, and what its requests have used.
#[derive(Debug)]
pub(crate) struct LiveKey {
    pub(crate) key: Key,
    pub(crate) account: Arc<Account>,
}

impl LiveKey {
    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.key.scopes.contains(&scope)
    }
}

/// All keys, by their public parts.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    keys: RwLock<HashMap<String, Arc<LiveKey>>>,
}

impl Keyring {
    /// Replaces all keys. A key that stays keeps its account.
    pub(crate) fn replace(&self, keys: Vec<Key>) {
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let live = |key: Key| {
            let account = match current.get(&key.id) {
                Some(old) => {
                    if old.key.rates != key.rates {
                        old.account.set_rates(&key.rates);
                    }
                    Arc::clone(&old.account)
                }
                None => Account::new("key", &key.rates),
            };
            (key.id.clone(), Arc::new(LiveKey { key, account }))
        };
        *current = keys.into_iter().map(live).collect();
    }

    /// Returns whether a tenant has keys.
    pub(crate) fn has_tenant(&self, tenant: &str) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().any(|live| live.key.tenant == tenant)
    }

    /// The tenants that have keys, with their numbers of keys.
    pub(crate) fn tenants(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for live in self.keys.read().unwrap_or_else(PoisonError::into_inner).values() {
            *found.entry(live.key.tenant.clone()).or_default() += 1;
        }
        found
    }

    /// Returns whether a key that was found before would be found again, at a time in seconds since 1970.
    pub(crate) fn still_has(&self, key: &LiveKey, at: u64) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let now = keys.get(&key.key.id);
        now.is_some_and(|live| live.key.hash == key.key.hash && !live.key.is_expired(at))
    }

    /// Returns the key that a caller gave, at a time in seconds since 1970. The time that this takes tells
    /// nothing of a secret: hashes are compared to their last bit, and those of unknown keys too.
    pub(crate) fn find(&self, given: &str, at: u64) -> Option<Arc<LiveKey>> {
        let secret = Secret::parse(given)?;
        let found = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(secret.id()).cloned();
        let known = found.as_ref().map_or([0; 32], |live| live.key.hash);
        let same = bool::from(secret.hash().ct_eq(&known));
        found.filter(|live| same && !live.key.is_expired(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Rates;

    #[test]
    fn a_key_is_found_by_its_whole_text_until_it_expires() {
        let ring = Keyring::default();
        let (mut key, secret) = Key::create("acme").unwrap();
        key.expires = Some(100);
        ring.replace(vec![key]);
        assert!(ring.find(secret.as_str(), 99).is_some());
        assert!(ring.find(secret.as_str(), 100).is_none());
        let mut forged = secret.as_str().to_owned();
        let last = if forged.pop() == Some('a') { 'b' } else { 'a' };
        forged.push(last);
        assert!(ring.find(&forged, 99).is_none());
        assert!(ring.find("", 99).is_none());
        let live = ring.find(secret.as_str(), 99).unwrap();
        assert!(ring.still_has(&live, 99) && !ring.still_has(&live, 100));
        ring.replace(Vec::new());
        assert!(ring.find(secret.as_str(), 99).is_none());
        assert!(!ring.still_has(&live, 99));
    }

    #[test]
    fn what_a_key_used_outlives_a_change_of_other_keys() {
        let ring = Keyring::default();
        let (mut key, secret) = Key::create("acme").unwrap();
        key.rates = Rates { requests_per_minute: Some(10), ..Rates::default() };
        ring.replace(vec![key.clone()]);
        let now = std::time::Instant::now();
        let live = ring.find(secret.as_str(), 0).unwrap();
        drop(crate::limits::enter(vec![Arc::clone(&live.account)], now).unwrap());
        ring.replace(vec![Key::create("other").unwrap().0, key]);
        let live = ring.find(secret.as_str(), 0).unwrap();
        assert_eq!(live.account.left(now).0.unwrap().remaining, 9);
    }
}
