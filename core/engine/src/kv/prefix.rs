//! The prefix cache: a radix tree over whole pages of computed tokens.
//!
//! A node stands for a page of tokens after the path that leads to it, in a scope: a tenant's own, or the
//! common one of prefixes that tenants marked as shared. It holds one page of the KV cache for every group of
//! layers; a group with a window may have lost its own. A node is idle if only the tree holds its pages.
//! Every owner has a shelf of idle nodes and evicts the least recently used one from it, leaves first: an
//! owner's pages in the cache depend on no other owner. Pages of windows are evicted on their own: a long
//! sequence keeps a whole path busy and sees only the end of it.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use realm_compute::{CacheLayout, NO_PAGE, PAGE_TOKENS};
use rustc_hash::FxBuildHasher;

use super::pool::{Owner, PagePool};

pub(super) type NodeId = u32;

/// The node of the empty text, with which all sequences begin.
pub(super) const ROOT: NodeId = 0;
const NO_NODE: NodeId = u32::MAX;

/// The requests that may use a cached page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// A tenant, or `None` for all who mark the prefix as shared.
    pub(crate) tenant: Owner,
    /// The adapter that computed the page and the bits of its scale: another adapter computes other keys and
    /// values.
    pub(crate) adapter: Option<(u32, u32)>,
    /// True if the page was to be shared and there was no room for that.
    pub(crate) kept_back: bool,
}

impl Scope {
    /// The tenant's own scope for pages that there was no room to share.
    pub(super) fn kept_back(self, tenant: u64) -> Self {
        Self { tenant: Some(tenant), kept_back: true, ..self }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    parent: NodeId,
    scope: Scope,
    tokens: [u32; PAGE_TOKENS],
}

struct Node {
    key: Key,
    children: u32,
    /// Children of the same owner: a shared node may have children of a tenant's own.
    kin: u32,
    /// One page for each group.
    pages: Box<[u32]>,
    /// The time of the last use, in ticks.
    tick: u64,
}

pub(super) struct PrefixTree {
    nodes: Vec<Option<Node>>,
    unused: Vec<NodeId>,
    by_key: HashMap<Key, NodeId, FxBuildHasher>,
    /// Every node but the root, sorted by its parent.
    edges: BTreeSet<(NodeId, NodeId)>,
    /// The node of each page.
    node_of: Vec<NodeId>,
    /// For each group, whether it has a window.
    windowed: Box<[bool]>,
    shelves: HashMap<Owner, Shelf, FxBuildHasher>,
    /// Pages on all shelves.
    idle: usize,
    tick: u64,
    /// Evicted pages in order.
    #[cfg(test)]
    pub(super) forgotten: Vec<(Owner, u64, [u32; PAGE_TOKENS])>,
}

/// The nodes that one owner can evict.
#[derive(Default)]
struct Shelf {
    /// Nodes without children whose pages only the tree holds, by age.
    leaves: BTreeSet<(u64, NodeId)>,
    /// Nodes with pages of windows that only the tree holds, by age.
    windows: BTreeSet<(u64, NodeId)>,
    /// Pages that only the tree holds.
    idle: usize,
}

impl Shelf {
    fn is_empty(&self) -> bool {
        self.idle == 0 && self.leaves.is_empty() && self.windows.is_empty()
    }
}

impl PrefixTree {
    pub(super) fn new(layout: &CacheLayout, pages: usize) -> Self {
        let windowed: Box<[bool]> = layout.windows.iter().map(Option::is_some).collect();
        let scope = Scope { tenant: None, adapter: None, kept_back: false };
        let key = Key { parent: NO_NODE, scope, tokens: [0; PAGE_TOKENS] };
        let root = Node { key, children: 0, kin: 0, pages: vec![NO_PAGE; windowed.len()].into(), tick: 0 };
        Self {
            nodes: vec![Some(root)],
            unused: Vec::new(),
            by_key: HashMap::default(),
            edges: BTreeSet::new(),
            node_of: vec![NO_NODE; pages],
            windowed,
            shelves: HashMap::default(),
            idle: 0,
            tick: 0,
            #[cfg(test)]
            forgotten: Vec::new(),
        }
    }

    /// The number of pages that only the tree holds.
    pub(super) fn idle_pages(&self) -> usize {
        self.idle
    }

    /// The number of one owner's pages that only the tree holds.
    pub(super) fn idle_pages_of(&self, owner: Owner) -> usize {
        self.shelves.get(&owner).map_or(0, |shelf| shelf.idle)
    }

    /// Returns all owners with something to evict.
    pub(super) fn owners(&self) -> Vec<Owner> {
        self.shelves.keys().copied().collect()
    }

    /// The owner of a node.
    pub(super) fn owner(&self, id: NodeId) -> Owner {
        self.node(id).key.scope.tenant
    }

    fn shelf(&mut self, owner: Owner) -> &mut Shelf {
        self.shelves.entry(owner).or_default()
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes[id as usize].as_ref().expect("a node that another node or a page refers to")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id as usize].as_mut().expect("a node that another node or a page refers to")
    }

    fn key(parent: NodeId, scope: Scope, tokens: &[u32]) -> Option<Key> {
        Some(Key { parent, scope, tokens: tokens.try_into().ok()? })
    }

    pub(super) fn child(&self, parent: NodeId, scope: Scope, tokens: &[u32]) -> Option<NodeId> {
        self.by_key.get(&Self::key(parent, scope, tokens)?).copied()
    }

    /// Returns the child for `tokens`, which are a whole page; creates it if need be.
    pub(super) fn child_or_new(&mut self, parent: NodeId, scope: Scope, tokens: &[u32]) -> NodeId {
        let key = Self::key(parent, scope, tokens).expect("a whole page");
        if let Some(&id) = self.by_key.get(&key) {
            return id;
        }
        let node = Node {
            key: key.clone(),
            children: 0,
            kin: 0,
            pages: vec![NO_PAGE; self.windowed.len()].into(),
            tick: self.tick,
        };
        let id = match self.unused.pop() {
            Some(id) => {
                self.nodes[id as usize] = Some(node);
                id
            }
            None => {
                self.nodes.push(Some(node));
                (self.nodes.len() - 1) as NodeId
            }
        };
        self.by_key.insert(key, id);
        self.edges.insert((parent, id));
        let (tick, owner) = (self.node(parent).tick, self.owner(parent));
        if let Some(shelf) = self.shelves.get_mut(&owner) {
            shelf.leaves.remove(&(tick, parent));
        }
        let node = self.node_mut(parent);
        node.children += 1;
        node.kin += u32::from(owner == scope.tenant);
        id
    }

    pub(super) fn parent(&self, id: NodeId) -> NodeId {
        self.node(id).key.parent
    }

    pub(super) fn page(&self, id: NodeId, group: usize) -> u32 {
        self.node(id).pages[group]
    }

    /// Marks a node as just used.
    pub(super) fn touch(&mut self, id: NodeId) {
        self.tick += 1;
        let tick = self.tick;
        let old = std::mem::replace(&mut self.node_mut(id).tick, tick);
        let owner = self.owner(id);
        let Some(shelf) = self.shelves.get_mut(&owner) else { return };
        for set in [&mut shelf.leaves, &mut shelf.windows] {
            if set.remove(&(old, id)) {
                set.insert((tick, id));
            }
        }
    }

    /// Adds a page that a sequence holds to a node. The page then belongs to the node's owner.
    pub(super) fn adopt(&mut self, pool: &mut PagePool, id: NodeId, group: usize, page: u32) {
        pool.hold(page);
        pool.give(page, self.owner(id));
        self.node_of[page as usize] = id;
        self.node_mut(id).pages[group] = page;
        self.sort(pool, id);
    }

    /// Holds a page once more, and updates the shelf of its node.
    pub(super) fn hold(&mut self, pool: &mut PagePool, page: u32) {
        let node = self.node_of[page as usize];
        if pool.hold(page) == 2 && node != NO_NODE {
            let owner = self.owner(node);
            self.idle -= 1;
            self.shelf(owner).idle -= 1;
            self.sort(pool, node);
        }
    }

    /// Holds a page once less, and updates the shelf of its node.
    pub(super) fn let_go(&mut self, pool: &mut PagePool, page: u32) {
        let node = self.node_of[page as usize];
        if pool.let_go(page) == 1 && node != NO_NODE {
            let owner = self.owner(node);
            self.idle += 1;
            self.shelf(owner).idle += 1;
            self.sort(pool, node);
        }
    }

    /// Puts a node into the sets that it belongs to.
    fn sort(&mut self, pool: &PagePool, id: NodeId) {
        let node = self.node(id);
        let idle = |&(&page, _): &(&u32, &bool)| page != NO_PAGE && !pool.is_shared(page);
        let present = |&(&page, _): &(&u32, &bool)| page != NO_PAGE;
        let pages = || node.pages.iter().zip(&self.windowed);
        // A sequence that holds a later page also holds this node's pages of groups without a window.
        let ends = node.children == 0 || (node.kin == 0 && self.windowed.contains(&false));
        let leaf = ends && pages().filter(present).all(|p| idle(&p));
        let window = pages().any(|p| *p.1 && idle(&p));
        let (entry, owner) = ((node.tick, id), node.key.scope.tenant);
        let shelf = self.shelf(owner);
        for (set, belongs) in [(&mut shelf.leaves, leaf), (&mut shelf.windows, window)] {
            if belongs {
                set.insert(entry);
            } else {
                set.remove(&entry);
            }
        }
        if shelf.is_empty() {
            self.shelves.remove(&owner);
        }
    }

    /// Evicts at least one page of an owner; returns `false` if none is idle.
    pub(super) fn forget_oldest(&mut self, pool: &mut PagePool, owner: Owner) -> bool {
        let Some(shelf) = self.shelves.get(&owner) else { return false };
        match (shelf.windows.first().copied(), shelf.leaves.first().copied()) {
            (Some((window, id)), leaf) if leaf.is_none_or(|(leaf, _)| window <= leaf) => {
                self.note_forgotten(id);
                for group in 0..self.windowed.len() {
                    let page = self.page(id, group);
                    if self.windowed[group] && page != NO_PAGE && !pool.is_shared(page) {
                        self.drop_page(pool, id, group);
                    }
                }
                self.sort(pool, id);
                self.prune(pool, id);
                true
            }
            (_, Some((_, id))) => {
                self.note_forgotten(id);
                self.remove(pool, id);
                true
            }
            _ => false,
        }
    }

    #[cfg(test)]
    fn note_forgotten(&mut self, id: NodeId) {
        let key = &self.node(id).key;
        let held = self.node(id).pages.iter().filter(|&&page| page != NO_PAGE).count();
        let entry = (key.scope.tenant, held as u64, key.tokens);
        self.forgotten.push(entry);
    }

    #[cfg(not(test))]
    fn note_forgotten(&self, _: NodeId) {}

    /// Takes an idle page from a node.
    fn drop_page(&mut self, pool: &mut PagePool, id: NodeId, group: usize) {
        let page = std::mem::replace(&mut self.node_mut(id).pages[group], NO_PAGE);
        if page != NO_PAGE {
            let owner = self.owner(id);
            self.node_of[page as usize] = NO_NODE;
            self.idle -= 1;
            self.shelf(owner).idle -= 1;
            pool.let_go(page);
        }
    }

    /// Removes a node and its descendants, all of whose pages are idle, and then its parent if that is left
    /// empty.
    fn remove(&mut self, pool: &mut PagePool, id: NodeId) {
        let mut last = id;
        let parent = loop {
            while let Some(&(_, child)) = self.edges.range((last, 0)..=(last, NodeId::MAX)).next() {
                last = child;
            }
            let Some(parent) = self.remove_leaf(pool, last) else { return };
            if last == id {
                break parent;
            }
            last = parent;
        };
        if parent != ROOT {
            self.sort(pool, parent);
            self.prune(pool, parent);
        }
    }

    /// Removes a node without children whose pages are idle; returns its parent.
    fn remove_leaf(&mut self, pool: &mut PagePool, id: NodeId) -> Option<NodeId> {
        for group in 0..self.windowed.len() {
            self.drop_page(pool, id, group);
        }
        let node = self.nodes[id as usize].take()?;
        let (parent, owner) = (node.key.parent, node.key.scope.tenant);
        if let Some(shelf) = self.shelves.get_mut(&owner) {
            shelf.leaves.remove(&(node.tick, id));
            shelf.windows.remove(&(node.tick, id));
            if shelf.is_empty() {
                self.shelves.remove(&owner);
            }
        }
        self.by_key.remove(&node.key);
        self.edges.remove(&(parent, id));
        self.unused.push(id);
        let above = self.node_mut(parent);
        above.children -= 1;
        above.kin -= u32::from(above.key.scope.tenant == owner);
        Some(parent)
    }

    /// Removes a node that has no children and no pages.
    fn prune(&mut self, pool: &mut PagePool, id: NodeId) {
        let node = self.node(id);
        if node.children == 0 && node.pages.iter().all(|&page| page == NO_PAGE) {
            self.remove(pool, id);
        }
    }

    /// Evicts the idle nodes of scopes for which `gone` returns true.
    pub(super) fn forget(&mut self, pool: &mut PagePool, gone: impl Fn(&Scope) -> bool) {
        loop {
            let leaves = self.shelves.values().flat_map(|shelf| &shelf.leaves).map(|&(_, id)| id);
            let gone = |&id: &NodeId| self.node(id).children == 0 && gone(&self.node(id).key.scope);
            let leaves: Vec<_> = leaves.filter(gone).collect();
            if leaves.is_empty() {
                return;
            }
            // Their parents may be leaves now, so the loop looks again.
            leaves.into_iter().for_each(|id| self.remove(pool, id));
        }
    }

    /// Adds the tree's own references to `refs` and checks its records of them.
    #[cfg(test)]
    pub(super) fn check(&self, pool: &PagePool, refs: &mut [u32]) {
        let mut idle = 0;
        for (id, node) in self.nodes.iter().enumerate().skip(1) {
            let Some(node) = node else { continue };
            for &page in node.pages.iter().filter(|&&page| page != NO_PAGE) {
                assert_eq!(self.node_of[page as usize], id as NodeId);
                assert_eq!(pool.owner(page), node.key.scope.tenant);
                refs[page as usize] += 1;
                idle += usize::from(pool.refs(page) == 1);
            }
            assert_eq!(self.by_key[&node.key], id as NodeId);
            assert!(self.edges.contains(&(node.key.parent, id as NodeId)));
        }
        assert_eq!(self.idle, idle);
        assert_eq!(self.shelves.values().map(|shelf| shelf.idle).sum::<usize>(), idle);
        assert_eq!(self.edges.len(), self.by_key.len());
        let owned = self.node_of.iter().filter(|&&o| o != NO_NODE).count();
        let held =
            self.nodes.iter().skip(1).flatten().flat_map(|n| &n.pages).filter(|&&p| p != NO_PAGE).count();
        assert_eq!(owned, held);
    }
}
