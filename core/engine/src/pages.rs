//! Which pages of the KV cache are free.

/// A free list over the pages of one cache.
pub(crate) struct PagePool {
    free: Vec<u32>,
    total: usize,
}

impl PagePool {
    pub(crate) fn new(total: usize) -> Self {
        Self { free: (0..total as u32).rev().collect(), total }
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes `n` pages, or none if there are fewer.
    pub(crate) fn take(&mut self, n: usize) -> Option<Vec<u32>> {
        let rest = self.free.len().checked_sub(n)?;
        Some(self.free.split_off(rest))
    }

    pub(crate) fn give_back(&mut self, pages: Vec<u32>) {
        self.free.extend(pages);
        debug_assert!(self.free.len() <= self.total, "a page was given back twice");
    }
}
