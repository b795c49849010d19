//! Acts at once: each may have a body in memory and a thread that compiles or loads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most acts at once of administrators, and as many of all tenants' administrators.
const ALL: usize = 32;

/// The most acts at once of one tenant's administrators.
const OF_TENANT: usize = 4;

/// The places of a server.
#[derive(Default)]
pub(crate) struct Places(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    administrators: usize,
    tenants: HashMap<String, usize>,
}

/// A place, until it is dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    tenant: Option<String>,
}

impl Places {
    /// Takes a place, if there is one for this tenant's administrator, or for an administrator of everything.
    pub(super) fn take(&self, tenant: Option<&str>) -> Option<Place> {
        let mut taken = lock(&self.0);
        match tenant {
            None if taken.administrators < ALL => taken.administrators += 1,
            Some(tenant) if taken.tenants.values().sum::<usize>() < ALL => {
                let own = taken.tenants.entry(tenant.to_owned()).or_default();
                if *own >= OF_TENANT {
                    return None;
                }
                *own += 1;
            }
            _ => return None,
        }
        Some(Place { taken: Arc::clone(&self.0), tenant: tenant.map(str::to_owned) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        let Some(tenant) = &self.tenant else {
            taken.administrators -= 1;
            return;
        };
        if let Some(own) = taken.tenants.get_mut(tenant) {
            *own -= 1;
            if *own == 0 {
                taken.tenants.remove(tenant);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_administrator_leaves_room_for_others() {
        let places = Places::default();
        let acme: Vec<_> = (0..OF_TENANT).map(|_| places.take(Some("acme")).unwrap()).collect();
        assert!(places.take(Some("acme")).is_none());
        let others: Vec<_> =
            (OF_TENANT..ALL).map(|at| places.take(Some(&format!("other-{at}"))).unwrap()).collect();
        assert!(places.take(Some("one-more")).is_none());
        // Administrators have places of their own.
        let all: Vec<_> = (0..ALL).map(|_| places.take(None).unwrap()).collect();
        assert!(places.take(None).is_none());
        drop((acme, others, all));
        assert!(places.take(Some("acme")).is_some() && places.take(None).is_some());
        assert!(lock(&places.0).tenants.is_empty());
    }
}
