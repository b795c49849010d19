//! The tenants that share something, and each one's part of it.
//!
//! A part depends on which tenants exist and on their weights, never on what they do. So the size of a
//! tenant's own part reveals nothing about the activity of others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::Tenant;
use crate::tenant::{changed, changes};

/// The tenants that share something, until they are dropped.
#[derive(Debug, Default)]
pub struct Members(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tenants: HashMap<u64, (Weak<Tenant>, f64), FxBuildHasher>,
    /// The sum of all weights.
    all: f64,
    /// The number of [changes] that this state corresponds to.
    seen: u64,
}

impl Members {
    /// Adds a tenant to those that share, if it is not one of them.
    pub fn add(&self, tenant: &Arc<Tenant>) {
        let mut inner = self.lock();
        if !inner.tenants.contains_key(&tenant.id()) {
            let weight = f64::from(tenant.read().weight);
            inner.tenants.insert(tenant.id(), (Arc::downgrade(tenant), weight));
            inner.all += weight;
            changed();
        }
    }

    /// Returns a tenant's part of everything, from 0 to 1; 0 for a tenant that does not share.
    pub fn part(&self, tenant: u64) -> f64 {
        let inner = self.current();
        inner.tenants.get(&tenant).map_or(0.0, |(_, weight)| weight / inner.all)
    }

    /// Returns a tenant's part if one more tenant of the mean weight shared: it leaves room for the next
    /// tenant.
    pub fn part_beside_another(&self, tenant: u64) -> f64 {
        let inner = self.current();
        let more = 1.0 + 1.0 / inner.tenants.len().max(1) as f64;
        inner.tenants.get(&tenant).map_or(0.0, |(_, weight)| weight / (inner.all * more))
    }

    /// Returns all tenants with their weights, if anything changed since `seen`.
    pub(crate) fn news(&self, seen: &mut u64) -> Option<Vec<(u64, f64)>> {
        let now = changes();
        if std::mem::replace(seen, now) == now {
            return None;
        }
        Some(self.current().tenants.iter().map(|(&id, &(_, weight))| (id, weight)).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        let now = changes();
        if std::mem::replace(&mut inner.seen, now) != now {
            let mut all = 0.0;
            inner.tenants.retain(|_, (tenant, weight)| {
                // The upgraded handle may be the tenant's last. Dropping it here works as anywhere else.
                let Some(tenant) = tenant.upgrade() else { return false };
                *weight = tenant.read().weight.into();
                all += *weight;
                true
            });
            inner.all = all;
        }
        inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn parts_follow_weights_and_who_is_there() {
        let tenant = |weight| Arc::new(Tenant::new("t", Limits { weight, ..Limits::default() }).unwrap());
        let (members, one, three) = (Members::default(), tenant(1.0), tenant(3.0));
        let mut seen = 0;
        members.add(&one);
        assert_eq!((members.part(one.id()), members.part(three.id())), (1.0, 0.0));
        assert_eq!(members.part_beside_another(one.id()), 0.5);
        members.add(&three);
        members.add(&three);
        assert_eq!((members.part(one.id()), members.part(three.id())), (0.25, 0.75));
        assert_eq!(members.news(&mut seen).map(|all| all.len()), Some(2));
        three.set_limits(Limits::default()).unwrap();
        assert_eq!(members.part(one.id()), 0.5);
        drop(three);
        assert_eq!(members.part(one.id()), 1.0);
        assert_eq!(members.news(&mut seen), Some(vec![(one.id(), 1.0)]));
    }
}
