//! The page tables of one sequence.

use realm_compute::NO_PAGE;

use super::pool::PagePool;
use super::prefix::{NodeId, PrefixTree, ROOT};

/// For every group of layers the pages of a sequence's tokens, all tables of one length.
#[derive(Clone)]
pub(crate) struct PageTables {
    /// Whose sequence it is.
    pub(super) tenant: u64,
    /// `[groups][pages]`; `NO_PAGE` where a window has passed.
    pub(super) tables: Vec<Vec<u32>>,
    /// For each group, how many pages at the beginning were given back.
    pub(super) slid: Vec<usize>,
    /// How many pages the prefix tree has, and its node for the last of them.
    pub(super) published: usize,
    pub(super) node: NodeId,
}

impl PageTables {
    /// No pages yet of a tenant's sequence.
    pub(crate) fn new(groups: usize, tenant: u64) -> Self {
        Self { tenant, tables: vec![Vec::new(); groups], slid: vec![0; groups], published: 0, node: ROOT }
    }

    /// One table for every group.
    pub(crate) fn groups(&self) -> &[Vec<u32>] {
        &self.tables
    }

    /// How many pages it holds.
    pub(crate) fn held(&self) -> usize {
        self.tables.iter().zip(&self.slid).map(|(table, slid)| table.len() - slid).sum()
    }

    /// Gives back all pages from the `len`th on.
    pub(super) fn truncate(&mut self, pool: &mut PagePool, tree: &mut PrefixTree, len: usize) {
        self.unpublish(tree, len);
        for (table, slid) in self.tables.iter_mut().zip(&mut self.slid) {
            // From the end, so that the tree's leaves are let go before their parents.
            while table.len() > len {
                if let Some(page) = table.pop().filter(|&page| page != NO_PAGE) {
                    tree.let_go(pool, page);
                }
            }
            *slid = (*slid).min(len);
        }
    }

    /// Forgets that pages from the `len`th on are the tree's.
    pub(super) fn unpublish(&mut self, tree: &PrefixTree, len: usize) {
        while self.published > len {
            self.node = tree.parent(self.node);
            self.published -= 1;
        }
    }
}
