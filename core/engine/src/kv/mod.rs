//! The KV cache's pages: their holders, their owners, and the prefix cache of earlier requests.
//!
//! - [`pool`]: reference counts, the free list, and the owner of each page.
//! - [`parts`]: how many pages each owner may have.
//! - [`prefix`]: the prefix cache, a radix tree over whole pages of tokens, so that a prompt's beginning is
//!   computed once.
//! - [`tables`]: the page tables of one sequence.
//!
//! [`KvCache`] puts them together. It decides about pages only; the backend holds their contents.

mod parts;
mod pool;
mod prefix;
mod tables;

use realm_compute::{CacheLayout, NO_PAGE, PAGE_TOKENS};

use parts::Parts;
pub(crate) use pool::Owner;
use pool::PagePool;
pub(crate) use prefix::Scope;
use prefix::{NodeId, PrefixTree, ROOT};
pub(crate) use tables::PageTables;

/// There are not enough pages, even after the tenant has evicted all that it has beyond its part.
#[derive(Debug, PartialEq)]
pub(crate) struct OutOfPages;

/// A copy of a page, from and to, before the next forward pass.
pub(crate) type Copy = (u32, u32);

/// All pages of one model's KV cache.
pub(crate) struct KvCache {
    layout: CacheLayout,
    pool: PagePool,
    tree: PrefixTree,
    parts: Parts,
    /// True if computed pages are kept for later requests.
    remember: bool,
}

impl KvCache {
    pub(crate) fn new(layout: CacheLayout, pages: usize, remember: bool) -> Self {
        let (pool, tree) = (PagePool::new(pages), PrefixTree::new(&layout, pages));
        Self { pool, tree, parts: Parts::new(pages), layout, remember }
    }

    /// Divides the pages among tenants by their weights. With `shares`, some tenants mark prefixes as shared.
    /// The division leaves room for a sequence of `longest` pages beside the prefix cache.
    pub(crate) fn divide(&mut self, weights: &[(u64, f64)], shares: bool, longest: usize) {
        self.parts.divide(self.pool.total(), longest, weights, shares);
        for owner in self.tree.owners() {
            self.forget_beyond(owner, 0);
        }
    }

    /// The number of empty pages.
    pub(crate) fn free(&self) -> usize {
        self.pool.free()
    }

    /// The number of pages that no sequence holds: empty ones, and those that only the prefix cache holds.
    pub(crate) fn available(&self) -> usize {
        self.pool.free() + self.tree.idle_pages()
    }

    /// The number of pages that only the prefix cache holds.
    pub(crate) fn remembered(&self) -> usize {
        self.tree.idle_pages()
    }

    /// The number of pages of all owners for which `wanted` returns true, in sequences and in the prefix
    /// cache.
    pub(crate) fn pages_of_all(&self, wanted: impl Fn(Owner) -> bool) -> usize {
        self.pool.owners().filter(|&(owner, _)| wanted(owner)).map(|(_, pages)| pages).sum()
    }

    /// Returns whether the owner's sequences would hold more than its part with `more` pages. Pages that only
    /// the prefix cache holds do not count: they would be evicted first.
    pub(crate) fn hold_beyond(&self, owner: Owner, more: usize) -> bool {
        self.pool.of(owner) - self.tree.idle_pages_of(owner) + more > self.parts.of(owner)
    }

    /// Returns whether an owner would have more than its part with `more` pages.
    fn is_beyond(&self, owner: Owner, more: usize) -> bool {
        self.pool.of(owner) + more > self.parts.of(owner)
    }

    /// Returns whether each of these owners can take this many more pages. Each owner is named once. Owners
    /// evict only pages of their own.
    pub(crate) fn has_room(&self, wanted: impl IntoIterator<Item = (Owner, usize)>) -> bool {
        let mut free = self.pool.free() as isize;
        for (owner, pages) in wanted {
            let beyond = (self.pool.of(owner) + pages).saturating_sub(self.parts.of(owner));
            free += beyond.min(self.tree.idle_pages_of(owner)) as isize - pages as isize;
        }
        free >= 0
    }

    /// Evicts pages of an owner from the prefix cache until `more` pages fit into its part.
    fn forget_beyond(&mut self, owner: Owner, more: usize) {
        while self.is_beyond(owner, more) && self.tree.forget_oldest(&mut self.pool, owner) {}
    }

    /// Evicts the pages of all other owners from the prefix cache; returns whether that freed any.
    pub(crate) fn forget_others(&mut self, owner: Owner) -> bool {
        let before = self.pool.free();
        for other in self.tree.owners().into_iter().filter(|&other| other != owner) {
            while self.tree.forget_oldest(&mut self.pool, other) {}
        }
        self.pool.free() > before
    }

    /// The number of all pages.
    pub(crate) fn total(&self) -> usize {
        self.pool.total()
    }

    /// The number of pages that a sequence of `tokens` tokens holds while at most `chunk` of them are
    /// computed at once.
    pub(crate) fn pages_for(&self, tokens: usize, chunk: usize) -> usize {
        pages_for(&self.layout, tokens, chunk)
    }

    /// Attaches pages of the prefix cache to a sequence whose `cached` tokens end with a whole page. Takes at
    /// most `most` tokens from the cache; returns how many of the sequence's tokens are cached then. The page
    /// that ends at token `e` must belong to `scope(e)`.
    pub(crate) fn attach(
        &mut self,
        seq: &mut PageTables,
        tokens: &[u32],
        cached: usize,
        most: usize,
        scope: impl Fn(usize) -> Scope,
    ) -> usize {
        let first = cached / PAGE_TOKENS;
        if !cached.is_multiple_of(PAGE_TOKENS) || !self.remember || seq.published < first {
            return cached;
        }
        seq.truncate(&mut self.pool, &mut self.tree, first);
        let mut nodes = Vec::new();
        let mut node = seq.node;
        for (i, page) in tokens[..most.min(tokens.len())].chunks_exact(PAGE_TOKENS).enumerate().skip(first) {
            let scope = self.scope_after(node, scope((i + 1) * PAGE_TOKENS), seq.tenant);
            let found = self.tree.child(node, scope, page);
            match found.or_else(|| self.tree.child(node, scope.kept_back(seq.tenant), page)) {
                Some(child) => node = child,
                None => break,
            }
            nodes.push(node);
        }
        // Find the longest end at which every group still has the pages that the next row sees.
        while let Some(&last) = nodes.last() {
            let end = first + nodes.len();
            let complete = (0..self.layout.groups()).all(|group| {
                (self.first_held(group, end * PAGE_TOKENS, end)..end).all(|page| {
                    match page.checked_sub(first) {
                        Some(i) => self.tree.page(nodes[i], group) != NO_PAGE,
                        None => seq.tables[group][page] != NO_PAGE,
                    }
                })
            });
            if complete {
                for (i, &node) in nodes.iter().enumerate() {
                    self.tree.touch(node);
                    for group in 0..self.layout.groups() {
                        let held = first + i >= self.first_held(group, end * PAGE_TOKENS, end);
                        let page = if held { self.tree.page(node, group) } else { NO_PAGE };
                        if held {
                            self.tree.hold(&mut self.pool, page);
                        }
                        seq.tables[group].push(page);
                    }
                }
                (seq.node, seq.published) = (last, end);
                self.slide(seq, end * PAGE_TOKENS);
                return end * PAGE_TOKENS;
            }
            nodes.pop();
        }
        cached
    }

    /// The number of pages that [`reserve`](Self::reserve) would take.
    pub(crate) fn missing(&self, seq: &PageTables, cached: usize, tokens: usize) -> usize {
        let (first, end) = (cached / PAGE_TOKENS, tokens.div_ceil(PAGE_TOKENS));
        let shared = |table: &Vec<u32>| {
            table.iter().skip(first).filter(|&&page| page != NO_PAGE && self.pool.is_shared(page)).count()
        };
        seq.tables.iter().map(|table| end.saturating_sub(table.len()) + shared(table)).sum()
    }

    /// Gives a sequence pages for writing tokens `cached .. tokens`, with copies of shared ones. Appends to
    /// `copies` the pages whose earlier tokens have to be copied first.
    ///
    /// # Errors
    /// `OutOfPages` if there are too few pages; nothing has changed then.
    pub(crate) fn reserve(
        &mut self,
        seq: &mut PageTables,
        cached: usize,
        tokens: usize,
        copies: &mut Vec<Copy>,
    ) -> Result<(), OutOfPages> {
        let owner = Some(seq.tenant);
        if !self.has_room([(owner, self.missing(seq, cached, tokens))]) {
            return Err(OutOfPages);
        }
        let (first, end) = (cached / PAGE_TOKENS, tokens.div_ceil(PAGE_TOKENS));
        for group in 0..seq.tables.len() {
            for i in first..seq.tables[group].len() {
                let page = seq.tables[group][i];
                if page == NO_PAGE || !self.pool.is_shared(page) {
                    continue;
                }
                let own = self.take(owner)?;
                if i * PAGE_TOKENS < cached {
                    copies.push((page, own));
                }
                self.tree.let_go(&mut self.pool, page);
                seq.tables[group][i] = own;
            }
            while seq.tables[group].len() < end {
                let own = self.take(owner)?;
                seq.tables[group].push(own);
            }
        }
        // Pages that are written again no longer match the tree's node.
        seq.unpublish(&self.tree, first);
        Ok(())
    }

    fn take(&mut self, owner: Owner) -> Result<u32, OutOfPages> {
        self.forget_beyond(owner, 1);
        self.pool.take(owner).ok_or(OutOfPages)
    }

    /// The scope of a page after `node`: a page after one of a tenant's own is never shared.
    fn scope_after(&self, node: NodeId, scope: Scope, tenant: u64) -> Scope {
        let private = node != ROOT && self.tree.owner(node).is_some();
        if private && scope.tenant.is_none() { scope.kept_back(tenant) } else { scope }
    }

    /// Returns whether one more page of every group may be shared, after eviction of others if need be.
    fn may_share(&mut self) -> bool {
        let groups = self.layout.groups();
        self.forget_beyond(None, groups);
        !self.is_beyond(None, groups)
    }

    /// Adds the whole pages among the first `cached` tokens to the prefix cache. The page that ends at token
    /// `e` belongs to `scope(e)`.
    pub(crate) fn publish(
        &mut self,
        seq: &mut PageTables,
        tokens: &[u32],
        cached: usize,
        scope: impl Fn(usize) -> Scope,
    ) {
        if !self.remember {
            return;
        }
        let whole = cached / PAGE_TOKENS;
        while seq.published < whole {
            let i = seq.published;
            let tokens = &tokens[i * PAGE_TOKENS..(i + 1) * PAGE_TOKENS];
            let mut scope = self.scope_after(seq.node, scope((i + 1) * PAGE_TOKENS), seq.tenant);
            let is_new = self.tree.child(seq.node, scope, tokens).is_none();
            if scope.tenant.is_none() && is_new && !self.may_share() {
                scope = scope.kept_back(seq.tenant);
            }
            let node = self.tree.child_or_new(seq.node, scope, tokens);
            for group in 0..self.layout.groups() {
                let own = seq.tables[group][i];
                if own == NO_PAGE {
                    continue;
                }
                let known = self.tree.page(node, group);
                if known == NO_PAGE {
                    self.tree.adopt(&mut self.pool, node, group, own);
                } else if known != own {
                    // Another sequence has computed the same page: one of the two suffices.
                    self.tree.hold(&mut self.pool, known);
                    self.tree.let_go(&mut self.pool, own);
                    seq.tables[group][i] = known;
                }
            }
            self.tree.touch(node);
            (seq.node, seq.published) = (node, i + 1);
        }
        self.settle(seq);
    }

    /// Evicts what the sequence's owners have beyond their parts, after pages have changed hands.
    fn settle(&mut self, seq: &PageTables) {
        self.forget_beyond(Some(seq.tenant), 0);
        self.forget_beyond(None, 0);
    }

    /// Gives back the pages that no later row sees.
    pub(crate) fn slide(&mut self, seq: &mut PageTables, cached: usize) {
        for group in 0..self.layout.groups() {
            let end = self.first_held(group, cached, seq.published).min(seq.tables[group].len());
            while seq.slid[group] < end {
                let page = std::mem::replace(&mut seq.tables[group][seq.slid[group]], NO_PAGE);
                if page != NO_PAGE {
                    self.tree.let_go(&mut self.pool, page);
                }
                seq.slid[group] += 1;
            }
        }
        self.settle(seq);
    }

    /// The first page of a group that a sequence holds when its next row is at `position`: the first one that
    /// the row sees, or the last published one if that is earlier, so that the tree keeps the sequence's
    /// node.
    fn first_held(&self, group: usize, position: usize, published: usize) -> usize {
        let seen = self.layout.first_page(group, position);
        if published > 0 { seen.min(published - 1) } else { seen }
    }

    /// Shortens a sequence to `len` tokens, of which `cached` are in the cache; returns how many are cached
    /// afterwards. It is 0 if pages that the next row would see were already given back.
    pub(crate) fn truncate(&mut self, seq: &mut PageTables, len: usize, cached: usize) -> usize {
        let cached = cached.min(len);
        let pages = cached.div_ceil(PAGE_TOKENS);
        seq.truncate(&mut self.pool, &mut self.tree, pages);
        seq.unpublish(&self.tree, cached / PAGE_TOKENS);
        let complete = (0..self.layout.groups()).all(|group| {
            let held = self.first_held(group, cached, seq.published)..pages;
            seq.tables[group][held].iter().all(|&page| page != NO_PAGE)
        });
        if complete {
            self.settle(seq);
            return cached;
        }
        self.release(seq);
        0
    }

    /// Makes a second sequence with the same tokens. Both share all pages until one of them writes.
    pub(crate) fn fork(&mut self, seq: &PageTables) -> PageTables {
        for &page in seq.tables.iter().flatten().filter(|&&page| page != NO_PAGE) {
            self.tree.hold(&mut self.pool, page);
        }
        seq.clone()
    }

    /// Takes all pages from a sequence. Published pages stay in the prefix cache.
    pub(crate) fn release(&mut self, seq: &mut PageTables) {
        seq.truncate(&mut self.pool, &mut self.tree, 0);
        self.settle(seq);
    }

    /// Gives an empty sequence pages for a snapshot of another one. `present` lists the pages that the
    /// snapshot has, group after group.
    ///
    /// # Errors
    /// `OutOfPages` if there are too few pages; nothing has changed then.
    pub(crate) fn restore(&mut self, seq: &mut PageTables, present: &[bool]) -> Result<(), OutOfPages> {
        let owner = Some(seq.tenant);
        if !self.has_room([(owner, present.iter().filter(|&&p| p).count())]) {
            return Err(OutOfPages);
        }
        let len = present.len() / self.layout.groups();
        for (group, present) in present.chunks_exact(len.max(1)).enumerate() {
            for &present in present {
                let page = if present { self.take(owner)? } else { NO_PAGE };
                seq.tables[group].push(page);
            }
            seq.slid[group] = present.iter().take_while(|&&p| !p).count();
        }
        Ok(())
    }

    /// Evicts everything in scopes for which `gone` returns true.
    pub(crate) fn forget(&mut self, gone: impl Fn(&Scope) -> bool) {
        self.tree.forget(&mut self.pool, gone);
    }

    /// Panics unless every page is accounted for, given all existing sequences. For tests.
    #[cfg(test)]
    pub(crate) fn check<'a>(&self, sequences: impl Iterator<Item = &'a PageTables>) {
        let mut refs = vec![0; self.pool.total()];
        for &page in sequences.flat_map(|s| s.tables.iter().flatten()).filter(|&&p| p != NO_PAGE) {
            refs[page as usize] += 1;
        }
        self.tree.check(&self.pool, &mut refs);
        self.pool.check(&refs);
    }
}

/// The number of pages that a sequence of `tokens` tokens holds while at most `chunk` of them are computed at
/// once.
pub(crate) fn pages_for(layout: &CacheLayout, tokens: usize, chunk: usize) -> usize {
    let whole = tokens.div_ceil(PAGE_TOKENS);
    // A window that begins and ends inside a page, the rows that are being written, and the last published
    // page.
    let held = |window: usize| (window + chunk).div_ceil(PAGE_TOKENS) + 2;
    layout.windows.iter().map(|window| window.map_or(whole, |w| whole.min(held(w)))).sum()
}

#[cfg(test)]
mod tests;
