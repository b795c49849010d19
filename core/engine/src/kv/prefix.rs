//! What was computed before: a radix tree over whole pages of tokens.
//!
//! A node stands for a page of tokens after the path that leads to it, in a scope: a tenant's own, or the common one of
//! prefixes that tenants marked as shared. It holds one page of the KV cache for every group of layers; a group with a
//! window may have lost its own. A node whose pages nobody else holds is idle, and the idle node that was used longest
//! ago is forgotten when a page is needed, leaves first. Pages of windows go on their own: a long sequence keeps a whole
//! path busy and sees only the end of it.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use realm_compute::{CacheLayout, NO_PAGE, PAGE_TOKENS};
use rustc_hash::FxBuildHasher;

use super::pool::PagePool;

pub(super) type NodeId = u32;

/// The beginning of all sequences.
pub(super) const ROOT: NodeId = 0;
const NO_NODE: NodeId = u32::MAX;

/// Who may use a remembered page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// A tenant, or everybody who marks the prefix as shared.
    pub(crate) tenant: Option<u64>,
    /// The adapter that computed it and the bits of its scale: another one computes other keys and values.
    pub(crate) adapter: Option<(u32, u32)>,
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
    /// One for each group.
    pages: Box<[u32]>,
    /// When it was last used.
    tick: u64,
}

pub(super) struct PrefixTree {
    nodes: Vec<Option<Node>>,
    unused: Vec<NodeId>,
    by_key: HashMap<Key, NodeId, FxBuildHasher>,
    /// Which node has a page.
    owner: Vec<NodeId>,
    /// Groups with a window.
    windowed: Box<[bool]>,
    /// Nodes without children whose pages nobody else holds, by age.
    leaves: BTreeSet<(u64, NodeId)>,
    /// Nodes with pages of windows that nobody else holds, by age.
    windows: BTreeSet<(u64, NodeId)>,
    /// Pages of nodes that nobody else holds.
    idle: usize,
    tick: u64,
}

impl PrefixTree {
    pub(super) fn new(layout: &CacheLayout, pages: usize) -> Self {
        let windowed: Box<[bool]> = layout.windows.iter().map(Option::is_some).collect();
        let scope = Scope { tenant: None, adapter: None };
        let key = Key { parent: NO_NODE, scope, tokens: [0; PAGE_TOKENS] };
        let root = Node { key, children: 0, pages: vec![NO_PAGE; windowed.len()].into(), tick: 0 };
        Self {
            nodes: vec![Some(root)],
            unused: Vec::new(),
            by_key: HashMap::default(),
            owner: vec![NO_NODE; pages],
            windowed,
            leaves: BTreeSet::new(),
            windows: BTreeSet::new(),
            idle: 0,
            tick: 0,
        }
    }

    /// Pages that only the tree holds.
    pub(super) fn idle_pages(&self) -> usize {
        self.idle
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes[id as usize].as_ref().expect("a node that somebody refers to")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id as usize].as_mut().expect("a node that somebody refers to")
    }

    fn key(parent: NodeId, scope: Scope, tokens: &[u32]) -> Option<Key> {
        Some(Key { parent, scope, tokens: tokens.try_into().ok()? })
    }

    pub(super) fn child(&self, parent: NodeId, scope: Scope, tokens: &[u32]) -> Option<NodeId> {
        self.by_key.get(&Self::key(parent, scope, tokens)?).copied()
    }

    /// The child for `tokens`, which are a whole page.
    pub(super) fn child_or_new(&mut self, parent: NodeId, scope: Scope, tokens: &[u32]) -> NodeId {
        let key = Self::key(parent, scope, tokens).expect("a whole page");
        if let Some(&id) = self.by_key.get(&key) {
            return id;
        }
        let node = Node {
            key: key.clone(),
            children: 0,
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
        self.leaves.remove(&(self.node(parent).tick, parent));
        self.node_mut(parent).children += 1;
        id
    }

    pub(super) fn parent(&self, id: NodeId) -> NodeId {
        self.node(id).key.parent
    }

    pub(super) fn page(&self, id: NodeId, group: usize) -> u32 {
        self.node(id).pages[group]
    }

    /// It was used just now.
    pub(super) fn touch(&mut self, id: NodeId) {
        self.tick += 1;
        let tick = self.tick;
        let old = std::mem::replace(&mut self.node_mut(id).tick, tick);
        for set in [&mut self.leaves, &mut self.windows] {
            if set.remove(&(old, id)) {
                set.insert((tick, id));
            }
        }
    }

    /// Gives a node a page that somebody else holds too.
    pub(super) fn adopt(&mut self, pool: &mut PagePool, id: NodeId, group: usize, page: u32) {
        pool.hold(page);
        self.owner[page as usize] = id;
        self.node_mut(id).pages[group] = page;
        self.sort(pool, id);
    }

    /// Holds a page once more.
    pub(super) fn hold(&mut self, pool: &mut PagePool, page: u32) {
        if pool.hold(page) == 2 && self.owner[page as usize] != NO_NODE {
            self.idle -= 1;
            self.sort(pool, self.owner[page as usize]);
        }
    }

    /// Holds a page once less.
    pub(super) fn let_go(&mut self, pool: &mut PagePool, page: u32) {
        if pool.let_go(page) == 1 && self.owner[page as usize] != NO_NODE {
            self.idle += 1;
            self.sort(pool, self.owner[page as usize]);
        }
    }

    /// Puts a node into the sets that it belongs to.
    fn sort(&mut self, pool: &PagePool, id: NodeId) {
        let node = self.node(id);
        let idle = |&(&page, _): &(&u32, &bool)| page != NO_PAGE && !pool.is_shared(page);
        let present = |&(&page, _): &(&u32, &bool)| page != NO_PAGE;
        let pages = || node.pages.iter().zip(&self.windowed);
        let leaf = node.children == 0 && pages().filter(present).all(|p| idle(&p));
        let window = pages().any(|p| *p.1 && idle(&p));
        let entry = (node.tick, id);
        for (set, belongs) in [(&mut self.leaves, leaf), (&mut self.windows, window)] {
            if belongs {
                set.insert(entry);
            } else {
                set.remove(&entry);
            }
        }
    }

    /// Frees at least one page, unless none is idle.
    pub(super) fn forget_oldest(&mut self, pool: &mut PagePool) -> bool {
        match (self.windows.first().copied(), self.leaves.first().copied()) {
            (Some((window, id)), leaf) if leaf.is_none_or(|(leaf, _)| window <= leaf) => {
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
                self.remove_leaf(pool, id);
                true
            }
            _ => false,
        }
    }

    /// Takes an idle page from a node.
    fn drop_page(&mut self, pool: &mut PagePool, id: NodeId, group: usize) {
        let page = std::mem::replace(&mut self.node_mut(id).pages[group], NO_PAGE);
        if page != NO_PAGE {
            self.owner[page as usize] = NO_NODE;
            self.idle -= 1;
            pool.let_go(page);
        }
    }

    /// Removes a node without children whose pages are idle, and then its parent if nothing is left of that.
    fn remove_leaf(&mut self, pool: &mut PagePool, id: NodeId) {
        for group in 0..self.windowed.len() {
            self.drop_page(pool, id, group);
        }
        let Some(node) = self.nodes[id as usize].take() else { return };
        self.leaves.remove(&(node.tick, id));
        self.windows.remove(&(node.tick, id));
        self.by_key.remove(&node.key);
        self.unused.push(id);
        let parent = node.key.parent;
        self.node_mut(parent).children -= 1;
        if parent != ROOT {
            self.sort(pool, parent);
            self.prune(pool, parent);
        }
    }

    /// Removes a node that leads nowhere and holds nothing.
    fn prune(&mut self, pool: &mut PagePool, id: NodeId) {
        let node = self.node(id);
        if node.children == 0 && node.pages.iter().all(|&page| page == NO_PAGE) {
            self.remove_leaf(pool, id);
        }
    }

    /// Forgets the idle nodes of scopes that `gone` names.
    pub(super) fn forget(&mut self, pool: &mut PagePool, gone: impl Fn(&Scope) -> bool) {
        loop {
            let leaves = self.leaves.iter().map(|&(_, id)| id);
            let leaves: Vec<_> = leaves.filter(|&id| gone(&self.node(id).key.scope)).collect();
            if leaves.is_empty() {
                return;
            }
            // What led to them may be leaves now.
            leaves.into_iter().for_each(|id| self.remove_leaf(pool, id));
        }
    }

    /// Adds the tree's own references to `refs` and checks what it knows of them.
    #[cfg(test)]
    pub(super) fn check(&self, pool: &PagePool, refs: &mut [u32]) {
        let mut idle = 0;
        for (id, node) in self.nodes.iter().enumerate().skip(1) {
            let Some(node) = node else { continue };
            for &page in node.pages.iter().filter(|&&page| page != NO_PAGE) {
                assert_eq!(self.owner[page as usize], id as NodeId);
                refs[page as usize] += 1;
                idle += usize::from(pool.refs(page) == 1);
            }
            assert_eq!(self.by_key[&node.key], id as NodeId);
        }
        assert_eq!(self.idle, idle);
        let owned = self.owner.iter().filter(|&&o| o != NO_NODE).count();
        let held =
            self.nodes.iter().skip(1).flatten().flat_map(|n| &n.pages).filter(|&&p| p != NO_PAGE).count();
        assert_eq!(owned, held);
    }
}
