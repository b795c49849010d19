//! Divides the slots of instances among tenants.
//!
//! The pool has a fixed number of slots for runs, core instances, memories and tables, and a program may
//! need many of some and few of others. Half of each is divided among the tenants by their weights, with one
//! part left for the next tenant that comes; the other half goes to the first that ask. A run without slots
//! waits: runs within their tenant's part are let in first, then those of the tenant that has the least for
//! its weight, each tenant's own in order of arrival.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use realm_engine::{Members, Tenant};
use tokio::sync::oneshot;

/// Numbers of runs, core instances, memories and tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs(pub(crate) [u32; 4]);

impl Needs {
    fn each(self, other: Self, of: impl Fn(u32, u32) -> u32) -> Self {
        Self(std::array::from_fn(|i| of(self.0[i], other.0[i])))
    }

    fn and(self, other: Self) -> Self {
        self.each(other, u32::saturating_add)
    }

    fn without(self, other: Self) -> Self {
        self.each(other, u32::saturating_sub)
    }

    fn fits(self, other: Self) -> bool {
        self.0.iter().zip(other.0).all(|(&need, room)| need <= room)
    }
}

/// All slots of the pool.
#[derive(Debug)]
pub(crate) struct Slots {
    members: Members,
    all: Needs,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: Needs,
    by_tenant: HashMap<u64, Needs>,
    /// Waiting runs, by tenant.
    waiting: HashMap<u64, VecDeque<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    needs: Needs,
    turn: oneshot::Sender<Slot>,
}

/// The slots of one run, which are free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    tenant: u64,
    needs: Needs,
}

impl Slots {
    pub(crate) fn new(all: Needs) -> Arc<Self> {
        Arc::new(Self { members: Members::default(), all, taken: Mutex::default() })
    }

    /// Reserves a part for a tenant from now on.
    pub(crate) fn reserve(&self, tenant: &Arc<Tenant>) {
        self.members.add(tenant);
    }

    /// Returns whether there would be slots if nothing else ran.
    pub(crate) fn could_hold(&self, needs: Needs) -> bool {
        needs.fits(self.all)
    }

    /// Takes a run's slots, if they are free and no other run waits for them.
    pub(crate) fn try_take(self: &Arc<Self>, tenant: u64, needs: Needs) -> Option<Slot> {
        let mut taken = self.lock();
        taken.forget_abandoned();
        let may = !taken.waiting.contains_key(&tenant)
            && (self.is_within(&taken, tenant, needs)
                || (taken.waiting.is_empty() && self.may_borrow(&taken, tenant, needs)));
        may.then(|| self.slot(&mut taken, tenant, needs))
    }

    /// Takes slots for a run that another run of the same tenant waits for. It must not wait: the other run
    /// holds its own slots meanwhile.
    pub(crate) fn try_take_more(self: &Arc<Self>, tenant: u64, needs: Needs) -> Option<Slot> {
        let mut taken = self.lock();
        let may = self.is_within(&taken, tenant, needs) || self.may_borrow(&taken, tenant, needs);
        may.then(|| self.slot(&mut taken, tenant, needs))
    }

    /// Waits for a run's slots; `None` if the pool never has that many.
    pub(crate) async fn take(self: &Arc<Self>, tenant: u64, needs: Needs) -> Option<Slot> {
        let (turn, mine) = oneshot::channel();
        self.lock().waiting.entry(tenant).or_default().push_back(Waiting { needs, turn });
        self.serve();
        mine.await.ok()
    }

    /// Returns the slots that a tenant has in any case.
    fn part(&self, tenant: u64) -> Needs {
        let part = self.members.part_beside_another(tenant);
        Needs(self.all.0.map(|all| (f64::from(all.div_ceil(2)) * part) as u32))
    }

    fn is_within(&self, taken: &Taken, tenant: u64, needs: Needs) -> bool {
        let own = taken.of(tenant).and(needs);
        taken.all.and(needs).fits(self.all) && own.fits(self.part(tenant))
    }

    /// Returns whether there are slots in the half that is not divided.
    fn may_borrow(&self, taken: &Taken, tenant: u64, needs: Needs) -> bool {
        let wanted = taken.all.and(needs);
        let common = Needs(self.all.0.map(|all| all / 2));
        // The common case: few slots are taken, or none.
        if wanted.fits(common) || (taken.all == Needs::default() && wanted.fits(self.all)) {
            return true;
        }
        let others = taken.by_tenant.iter().filter(|(other, _)| **other != tenant);
        let beyond = others.map(|(&other, held)| held.without(self.part(other)));
        let own = taken.of(tenant).and(needs).without(self.part(tenant));
        wanted.fits(self.all) && beyond.fold(own, Needs::and).fits(common)
    }

    fn slot(self: &Arc<Self>, taken: &mut Taken, tenant: u64, needs: Needs) -> Slot {
        taken.all = taken.all.and(needs);
        let held = taken.by_tenant.entry(tenant).or_default();
        *held = held.and(needs);
        Slot { slots: Arc::clone(self), tenant, needs }
    }

    /// Lets in all runs that have slots.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut taken = self.lock();
            taken.forget_abandoned();
            let Some(tenant) = self.next(&taken) else { return };
            let Some(waiting) = taken.take_first(tenant) else { return };
            let slot = self.slot(&mut taken, tenant, waiting.needs);
            drop(taken);
            // A run that stopped waiting just now leaves its slot to the next one.
            drop(waiting.turn.send(slot));
        }
    }

    /// Returns the tenant whose first waiting run may be let in.
    fn next(&self, taken: &Taken) -> Option<u64> {
        let first = taken.waiting.iter().filter_map(|(&tenant, runs)| Some((tenant, runs.front()?.needs)));
        let first: Vec<(u64, Needs)> = first.collect();
        if let Some(&(tenant, _)) =
            first.iter().find(|&&(tenant, needs)| self.is_within(taken, tenant, needs))
        {
            return Some(tenant);
        }
        let share = |tenant: u64| {
            let held = taken.of(tenant).0.into_iter().zip(self.all.0);
            let parts = held.map(|(held, all)| f64::from(held) / f64::from(all));
            parts.fold(0.0, f64::max) / self.members.part(tenant)
        };
        let least = first.into_iter().min_by(|a, b| share(a.0).total_cmp(&share(b.0)).then(a.0.cmp(&b.0)));
        // While it waits for slots, no tenant that holds more gets any.
        least.filter(|&(tenant, needs)| self.may_borrow(taken, tenant, needs)).map(|(tenant, _)| tenant)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn of(&self, tenant: u64) -> Needs {
        self.by_tenant.get(&tenant).copied().unwrap_or_default()
    }

    fn take_first(&mut self, tenant: u64) -> Option<Waiting> {
        let runs = self.waiting.get_mut(&tenant)?;
        let first = runs.pop_front();
        if runs.is_empty() {
            self.waiting.remove(&tenant);
        }
        first
    }

    /// Removes runs whose readers have left.
    fn forget_abandoned(&mut self) {
        self.waiting.retain(|_, runs| {
            while runs.front().is_some_and(|run| run.turn.is_closed()) {
                runs.pop_front();
            }
            !runs.is_empty()
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut taken = self.slots.lock();
            taken.all = taken.all.without(self.needs);
            if let Some(held) = taken.by_tenant.get_mut(&self.tenant) {
                *held = held.without(self.needs);
                if *held == Needs::default() {
                    taken.by_tenant.remove(&self.tenant);
                }
            }
        }
        self.slots.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use realm_engine::Limits;

    use super::*;

    fn tenant(slots: &Slots, weight: f32) -> Arc<Tenant> {
        let tenant = Arc::new(Tenant::new("t", Limits { weight, ..Limits::default() }).unwrap());
        slots.reserve(&tenant);
        tenant
    }

    fn poll(waits: Pin<&mut impl Future<Output = Option<Slot>>>) -> Option<Slot> {
        match waits.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(slot) => slot,
            Poll::Pending => None,
        }
    }

    const ONE: Needs = Needs([1, 1, 1, 1]);

    #[test]
    fn each_tenant_has_its_part_of_everything_whatever_others_need() {
        let slots = Slots::new(Needs([64, 256, 64, 256]));
        let greedy = tenant(&slots, 1.0);
        for needs in [Needs([1, 60, 1, 1]), Needs([1, 1, 4, 1]), Needs([1, 1, 1, 16]), ONE] {
            let all: Vec<Slot> = (0..64).map_while(|_| slots.try_take(greedy.id(), needs)).collect();
            // Three quarters of its scarcest slots: its own part, the part left for another tenant, and the
            // whole undivided half.
            let taken = all.len() as u32;
            let most = (0..4).map(|i| slots.all.0[i] * 3 / 4 / needs.0[i]).min().unwrap();
            assert!((most - 1..=most).contains(&taken), "{taken} of {needs:?}");
            let others: Vec<_> = (0..3).map(|_| tenant(&slots, 1.0)).collect();
            // Four tenants and the next one to come have half of it.
            for other in &others {
                let own: Vec<Slot> = (0..5).filter_map(|_| slots.try_take(other.id(), ONE)).collect();
                assert!(own.len() >= 5, "{} beside {taken} of {needs:?}", own.len());
            }
        }
    }

    #[test]
    fn those_that_wait_get_their_turn_by_what_they_have() {
        let slots = Slots::new(Needs([8, 8, 8, 8]));
        let [one, other] = [tenant(&slots, 1.0), tenant(&slots, 1.0)].map(|tenant| (tenant.id(), tenant));
        let mut held: Vec<Slot> = (0..8).map_while(|_| slots.try_take(one.0, ONE)).collect();
        assert_eq!(held.len(), 5, "four that belong to no tenant, and one of its own");
        assert!(slots.try_take_more(one.0, ONE).is_none());
        let mut more = pin!(slots.take(one.0, ONE));
        assert!(poll(more.as_mut()).is_none());
        // The other tenant's own slot; after that it waits.
        let own = slots.try_take(other.0, ONE).unwrap();
        let (mut second, mut given_up) = (pin!(slots.take(other.0, ONE)), Box::pin(slots.take(other.0, ONE)));
        assert!(poll(second.as_mut()).is_none() && poll(given_up.as_mut()).is_none());
        drop(held.pop());
        let second = poll(second.as_mut()).expect("it has less");
        assert!(poll(more.as_mut()).is_none());
        drop(given_up);
        drop(held.pop());
        let more = poll(more.as_mut()).expect("no other run waits");
        drop((held, second, more, own));
        let taken = slots.lock();
        assert!(taken.all == Needs::default() && taken.by_tenant.is_empty() && taken.waiting.is_empty());
    }

    #[test]
    fn a_run_that_needs_nearly_everything_is_let_in_when_nothing_runs() {
        let slots = Slots::new(Needs([16, 64, 16, 64]));
        let (one, other) = (tenant(&slots, 1.0), tenant(&slots, 1.0));
        let large = Needs([1, 64, 4, 16]);
        assert!(slots.could_hold(large) && !slots.could_hold(Needs([1, 65, 1, 1])));
        let small = slots.try_take(other.id(), ONE).unwrap();
        let mut waits = pin!(slots.take(one.id(), large));
        assert!(poll(waits.as_mut()).is_none());
        drop(small);
        assert!(poll(waits.as_mut()).is_some());
    }
}
