//! Reference counts, the free list, and the owner of each page.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// The owner of a page: a tenant, or `None` if the page holds a prefix that tenants marked as shared.
pub(crate) type Owner = Option<u64>;

/// The pages of one cache.
pub(super) struct PagePool {
    free: Vec<u32>,
    /// For each page, the number of sequences with the page in a table, plus 1 if the prefix tree has it.
    refs: Vec<u32>,
    /// The owner of each page that is held.
    owner: Vec<Owner>,
    /// The number of pages of every owner that has any.
    counts: HashMap<Owner, usize, FxBuildHasher>,
}

impl PagePool {
    pub(super) fn new(total: usize) -> Self {
        let free = (0..total as u32).rev().collect();
        Self { free, refs: vec![0; total], owner: vec![None; total], counts: HashMap::default() }
    }

    pub(super) fn total(&self) -> usize {
        self.refs.len()
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free page for `owner`, held once.
    pub(super) fn take(&mut self, owner: Owner) -> Option<u32> {
        let page = self.free.pop()?;
        self.refs[page as usize] = 1;
        self.owner[page as usize] = owner;
        *self.counts.entry(owner).or_default() += 1;
        Some(page)
    }

    /// The number of pages of one owner, in sequences and in the tree.
    pub(super) fn of(&self, owner: Owner) -> usize {
        self.counts.get(&owner).copied().unwrap_or(0)
    }

    /// Iterates over the owners of pages with the number of their pages.
    pub(super) fn owners(&self) -> impl Iterator<Item = (Owner, usize)> {
        self.counts.iter().map(|(&owner, &count)| (owner, count))
    }

    /// Changes the owner of a held page.
    pub(super) fn give(&mut self, page: u32, owner: Owner) {
        let before = std::mem::replace(&mut self.owner[page as usize], owner);
        if before != owner {
            self.uncount(before);
            *self.counts.entry(owner).or_default() += 1;
        }
    }

    fn uncount(&mut self, owner: Owner) {
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
    }

    /// Returns whether the page is held more than once. Such a page must not be written to.
    pub(super) fn is_shared(&self, page: u32) -> bool {
        self.refs[page as usize] > 1
    }

    /// Holds a page once more; returns how often it is held then.
    pub(super) fn hold(&mut self, page: u32) -> u32 {
        let refs = &mut self.refs[page as usize];
        debug_assert!(*refs > 0, "a free page was held");
        *refs += 1;
        *refs
    }

    /// Holds a page once less; returns how often it is held then. At 0 the page is free.
    pub(super) fn let_go(&mut self, page: u32) -> u32 {
        let refs = &mut self.refs[page as usize];
        debug_assert!(*refs > 0, "a page was given back twice");
        *refs -= 1;
        let left = *refs;
        if left == 0 {
            self.free.push(page);
            self.uncount(self.owner[page as usize]);
        }
        left
    }

    /// The owner of a held page.
    #[cfg(test)]
    pub(super) fn owner(&self, page: u32) -> Owner {
        self.owner[page as usize]
    }

    #[cfg(test)]
    pub(super) fn refs(&self, page: u32) -> u32 {
        self.refs[page as usize]
    }

    #[cfg(test)]
    pub(super) fn check(&self, refs: &[u32]) {
        assert_eq!(self.refs, refs);
        let mut free = self.free.clone();
        free.sort_unstable();
        let unheld: Vec<u32> = (0..refs.len() as u32).filter(|&p| refs[p as usize] == 0).collect();
        assert_eq!(free, unheld);
        let mut counts = HashMap::default();
        for page in (0..refs.len()).filter(|&page| refs[page] > 0) {
            *counts.entry(self.owner[page]).or_default() += 1;
        }
        assert_eq!(counts, self.counts);
    }
}
