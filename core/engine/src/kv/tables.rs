//! The page tables of one sequence.

use realm_compute::NO_PAGE;

use super::pool::PagePool;
use super::prefix::{NodeId, PrefixTree, ROOT};

/// The pages of a sequence's tokens for every group of layers. All tables have one length.
#[derive(Clone)]
pub(crate) struct PageTables {
    /// The owner of the sequence.
    pub(super) tenant: u64,
    /// `[groups][pages]`; `NO_PAGE` where a window has passed.
    pub(super) tables: Vec<Vec<u32>>,
    /// For each group, the number of pages at the beginning that were given back.
    pub(super) slid: Vec<usize>,
    /// The number of pages in the prefix tree, and the tree's node for the last of them.
    pub(super) published: usize,
    pub(super) node: NodeId,
}

impl PageTables {
    /// Creates empty tables for a tenant's sequence.
    pub(crate) fn new(groups: usize, tenant: u64) -> Self {
        Self { tenant, tables: vec![Vec::new(); groups], slid: vec![0; groups], published: 0, node: ROOT }
    }

    /// One table for every group.
    pub(crate) fn groups(&self) -> &[Vec<u32>] {
        &self.tables
    }

    /// The number of pages that the sequence holds.
    pub(crate) fn held(&self) -> usize {
        self.tables.iter().zip(&self.slid).map(|(table, slid)| table.len() - slid).sum()
    }

    /// Gives back all pages from index `len` on.
    pub(super) fn truncate(&mut self, pool: &mut PagePool, tree: &mut PrefixTree, len: usize) {
        self.unpublish(tree, len);
        for (table, slid) in self.tables.iter_mut().zip(&mut self.slid) {
            // From the end, so that the tree's leaves are released before their parents.
            while table.len() > len {
                if let Some(page) = table.pop().filter(|&page| page != NO_PAGE) {
                    tree.let_go(pool, page);
                }
            }
            *slid = (*slid).min(len);
        }
    }

    /// Detaches pages from index `len` on from the tree.
    pub(super) fn unpublish(&mut self, tree: &PrefixTree, len: usize) {
        while self.published > len {
            self.node = tree.parent(self.node);
            self.published -= 1;
        }
    }
}
