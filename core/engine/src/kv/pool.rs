//! Reference counts and the free list.

/// The pages of one cache.
pub(super) struct PagePool {
    free: Vec<u32>,
    /// Sequences that have the page in a table, and 1 if the prefix tree has it.
    refs: Vec<u32>,
}

impl PagePool {
    pub(super) fn new(total: usize) -> Self {
        Self { free: (0..total as u32).rev().collect(), refs: vec![0; total] }
    }

    pub(super) fn total(&self) -> usize {
        self.refs.len()
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// A page that is held once.
    pub(super) fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.refs[page as usize] = 1;
        Some(page)
    }

    /// Whether more than one holds it: then nobody may write to it.
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

    /// Holds a page once less; returns how often it is held then. At 0 it is free.
    pub(super) fn let_go(&mut self, page: u32) -> u32 {
        let refs = &mut self.refs[page as usize];
        debug_assert!(*refs > 0, "a page was given back twice");
        *refs -= 1;
        if *refs == 0 {
            self.free.push(page);
        }
        *refs
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
    }
}
