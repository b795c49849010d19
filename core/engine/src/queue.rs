//! The places of requests that wait for an engine.
//!
//! Half of the places are divided among the tenants by their weights, at least one for each. The other half
//! goes to requests in the order of their arrival. So a tenant with few waiting requests is never refused
//! because of what others sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::members::Members;

/// The places of requests that wait for an engine.
#[derive(Debug)]
pub(crate) struct Queue {
    most: usize,
    members: Arc<Members>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Taken places by tenant: of its own part, and of the common half.
    by_tenant: HashMap<u64, (usize, usize), FxBuildHasher>,
    /// Taken places of the common half.
    common: usize,
}

impl Queue {
    /// Creates a queue with `most` places, and at least one for each tenant.
    pub(crate) fn new(most: usize, members: Arc<Members>) -> Self {
        Self { most, members, taken: Mutex::default() }
    }

    /// Takes a place for the tenant; returns `false` if none is free for it.
    pub(crate) fn enter(&self, tenant: u64) -> bool {
        if self.most == 0 {
            return false;
        }
        let divided = self.most.div_ceil(2);
        let own = ((divided as f64 * self.members.part(tenant)) as usize).max(1);
        let mut taken = self.lock();
        let common = taken.common;
        let places = taken.by_tenant.entry(tenant).or_default();
        if places.0 < own {
            places.0 += 1;
        } else if common < self.most - divided {
            places.1 += 1;
            taken.common += 1;
        } else {
            return false;
        }
        true
    }

    /// Takes a place for a request that ran already and waits again, even if none is free.
    pub(crate) fn enter_again(&self, tenant: u64) {
        self.lock().by_tenant.entry(tenant).or_default().0 += 1;
    }

    /// Gives a tenant's place back.
    pub(crate) fn leave(&self, tenant: u64) {
        let mut taken = self.lock();
        let Some(places) = taken.by_tenant.get_mut(&tenant) else { return };
        let common = places.1 > 0;
        if common {
            places.1 -= 1;
        } else {
            places.0 = places.0.saturating_sub(1);
        }
        if *places == (0, 0) {
            taken.by_tenant.remove(&tenant);
        }
        taken.common -= usize::from(common);
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Tenant};

    fn tenants(members: &Members, count: usize) -> Vec<Arc<Tenant>> {
        let tenant = |_| Arc::new(Tenant::new("t", Limits::default()).unwrap());
        let all: Vec<_> = (0..count).map(tenant).collect();
        all.iter().for_each(|tenant| members.add(tenant));
        all
    }

    #[test]
    fn one_tenant_alone_has_every_place() {
        for most in [1, 2, 3, 4096] {
            let members = Arc::new(Members::default());
            let one = tenants(&members, 1).remove(0);
            let queue = Queue::new(most, members);
            assert_eq!((0..5000).filter(|_| queue.enter(one.id())).count(), most);
            (0..most).for_each(|_| queue.leave(one.id()));
            assert!(queue.lock().by_tenant.is_empty());
            assert_eq!(queue.lock().common, 0);
        }
    }

    /// Before, six tenants at default limits filled the places of all others.
    #[test]
    fn a_tenant_with_nothing_waiting_is_never_refused() {
        let members = Arc::new(Members::default());
        let all = tenants(&members, 8);
        let queue = Queue::new(4096, Arc::clone(&members));
        let taken: Vec<usize> =
            all[..7].iter().map(|tenant| (0..4096).filter(|_| queue.enter(tenant.id())).count()).collect();
        assert_eq!(taken.iter().sum::<usize>(), 2048 + 7 * 256);
        assert_eq!((0..1000).filter(|_| queue.enter(all[7].id())).count(), 256, "its part, and no more");
        // This holds for any number of tenants, and for one that just came.
        let (queue, more) = (Queue::new(4, Arc::clone(&members)), tenants(&members, 100));
        assert!(more.iter().all(|tenant| queue.enter(tenant.id())));
        let stranger = Tenant::new("s", Limits::default()).unwrap();
        assert!(queue.enter(stranger.id()));
        // A place of the common half goes back first.
        let queue = Queue::new(4, Arc::new(Members::default()));
        assert!(queue.enter(1) && queue.enter(1) && queue.enter(1) && !queue.enter(1) && queue.enter(2));
        queue.leave(1);
        assert!(queue.enter(2) && !queue.enter(2) && !queue.enter(1));
    }
}
