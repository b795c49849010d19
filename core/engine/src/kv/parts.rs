//! Each owner's part of the pages.
//!
//! What a tenant holds and what it remembers are counted together. While that is more than its part, it forgets what it used
//! longest ago; within its part it forgets nothing, whatever others do. A part depends on which tenants there are and on their
//! weights, and on nothing that any of them does. So a tenant finds the same pages remembered whether it is alone or not.
//!
//! Beyond its part a tenant runs on pages that nobody else has at the moment, and gives them back by giving way, which takes
//! time and shows in no count. For this, the parts leave out as many pages as the longest sequence takes, or half of all
//! where that is less.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::pool::Owner;

/// How many pages each owner may hold and remember together before it forgets.
pub(super) struct Parts {
    tenants: HashMap<u64, usize, FxBuildHasher>,
    /// Those of prefixes that tenants marked as shared.
    common: usize,
    /// Those of tenants that were not named.
    others: usize,
}

impl Parts {
    /// Everything is everybody's, until tenants are named.
    pub(super) fn new(total: usize) -> Self {
        Self { tenants: HashMap::default(), common: total, others: total }
    }

    /// Divides `total` pages among tenants by their weights. A sequence of `longest` pages fits beside what others remember,
    /// unless it takes more than half of them. With `shares`, prefixes that tenants marked as shared have as much as a tenant
    /// of the mean weight.
    pub(super) fn divide(&mut self, total: usize, longest: usize, weights: &[(u64, f64)], shares: bool) {
        let all: f64 = weights.iter().map(|&(_, weight)| weight).sum();
        let common = if shares { all / weights.len().max(1) as f64 } else { 0.0 };
        let alone = weights.len() <= 1 && !shares;
        let divided = if alone { total } else { (total - longest.min(total)).max(total / 2) };
        let part = |weight: f64| {
            let part = weight / (all + common);
            if part.is_finite() { (divided as f64 * part) as usize } else { 0 }
        };
        self.tenants.clear();
        self.tenants.extend(weights.iter().map(|&(tenant, weight)| (tenant, part(weight))));
        (self.common, self.others) = (part(common), 0);
    }

    pub(super) fn of(&self, owner: Owner) -> usize {
        match owner {
            Some(tenant) => self.tenants.get(&tenant).copied().unwrap_or(self.others),
            None => self.common,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_by_weight_and_leave_room_for_the_longest_sequence() {
        let mut parts = Parts::new(1000);
        assert_eq!(parts.of(Some(7)), 1000);
        parts.divide(1000, 100, &[(1, 1.0)], false);
        assert_eq!((parts.of(Some(1)), parts.of(Some(2)), parts.of(None)), (1000, 0, 0), "one alone has all");
        parts.divide(1000, 100, &[(1, 1.0), (2, 2.0)], false);
        assert_eq!((parts.of(Some(1)), parts.of(Some(2))), (300, 600));
        parts.divide(1000, 100, &[(1, 1.0), (2, 1.0)], true);
        assert_eq!((parts.of(Some(1)), parts.of(Some(2)), parts.of(None)), (300, 300, 300));
        parts.divide(1000, 900, &[(1, 1.0), (2, 1.0)], false);
        assert_eq!((parts.of(Some(1)), parts.of(Some(2))), (250, 250), "half is divided in any case");
    }
}
