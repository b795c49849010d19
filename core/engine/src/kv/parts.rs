//! Each owner's part of the pages.
//!
//! Pages that a tenant's sequences hold and its pages in the prefix cache count together. While they exceed
//! its part, the tenant evicts its least recently used pages; within its part it evicts nothing, whatever
//! others do. A part depends on which tenants exist and on their weights, and on nothing that any of them
//! does. So a tenant finds the same pages in the prefix cache whether it is alone or not.
//!
//! Beyond its part a tenant runs on pages that are free at the moment, and gives them back when it is
//! preempted, which takes time and shows in no count. To allow for this, the parts leave out as many pages as
//! the longest sequence takes, or half of all pages if that is less.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::pool::Owner;

/// The number of pages that each owner may have, in sequences and in the prefix cache together, before it
/// evicts any.
pub(super) struct Parts {
    tenants: HashMap<u64, usize, FxBuildHasher>,
    /// The part of prefixes that tenants marked as shared.
    common: usize,
    /// The part of each tenant that was not named.
    others: usize,
}

impl Parts {
    /// Gives every owner all pages, until tenants are named.
    pub(super) fn new(total: usize) -> Self {
        Self { tenants: HashMap::default(), common: total, others: total }
    }

    /// Divides `total` pages among tenants by their weights. A sequence of `longest` pages fits beside the
    /// prefix cache, unless it takes more than half of them. With `shares`, prefixes that tenants marked as
    /// shared have as much as a tenant of the mean weight.
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
