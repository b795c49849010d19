//! Random lives of sequences: every page stays accounted for, and a sequence sees exactly what it wrote.

use proptest::prelude::*;

use super::*;

/// A cache whose pages have contents: the tokens that were written, by group.
struct Model {
    cache: KvCache,
    contents: Vec<[u32; PAGE_TOKENS]>,
    sequences: Vec<Seq>,
    /// Hits of the prefix cache: the owner of the text, and its number of tokens.
    found: Vec<(u64, usize)>,
    /// True if tenants 0 and 1 have parts of their own.
    divided: bool,
}

#[derive(Clone)]
struct Seq {
    tokens: Vec<u32>,
    cached: usize,
    pages: PageTables,
    tenant: u64,
}

const PAGES: usize = 24;

impl Model {
    fn new(windows: &[Option<usize>]) -> Self {
        let layout = CacheLayout::new(1, 4, windows);
        let cache = KvCache::new(layout, PAGES, true);
        Self {
            cache,
            contents: vec![[0; PAGE_TOKENS]; PAGES],
            sequences: Vec::new(),
            found: Vec::new(),
            divided: false,
        }
    }

    fn divide(&mut self, weights: [f64; 2], longest: usize) {
        self.cache.divide(&[(0, weights[0]), (1, weights[1])], false, longest);
        self.divided = true;
    }

    fn scope(tenant: u64) -> impl Fn(usize) -> Scope {
        move |_| Scope { tenant: Some(tenant), adapter: None, kept_back: false }
    }

    /// Computes the next `rows` tokens of a sequence, if there are pages.
    fn compute(&mut self, s: usize, rows: usize) {
        let seq = &mut self.sequences[s];
        let tenant = seq.tenant;
        let most = seq.tokens.len().saturating_sub(1);
        seq.cached = self.cache.attach(&mut seq.pages, &seq.tokens, seq.cached, most, Self::scope(tenant));
        self.found.push((tenant, seq.cached));
        let end = (seq.cached + rows).min(seq.tokens.len());
        if end == seq.cached {
            return;
        }
        let mut copies = Vec::new();
        let before = seq.pages.groups().to_vec();
        let missing = self.cache.missing(&seq.pages, seq.cached, end);
        let owner = Some(tenant);
        if self.divided {
            // A tenant can have all pages that others do not have in the prefix cache within their part,
            // since sequences give way. Tenant 0 stays within its own part, so that it never has to.
            let held = self.cache.pool.of(owner) - self.cache.tree.idle_pages_of(owner);
            let part = self.cache.parts.of(Some(0));
            if held + missing > if tenant == 0 { part } else { PAGES - part } {
                return;
            }
            for other in self.sequences.iter_mut().filter(|other| other.tenant != tenant) {
                if !self.cache.has_room([(owner, missing)]) && self.cache.is_beyond(Some(other.tenant), 0) {
                    self.cache.release(&mut other.pages);
                    other.cached = 0;
                }
            }
            assert!(self.cache.has_room([(owner, missing)]));
        }
        let seq = &mut self.sequences[s];
        if self.cache.reserve(&mut seq.pages, seq.cached, end, &mut copies).is_err() {
            assert_eq!(seq.pages.groups(), before);
            return;
        }
        for (from, to) in copies {
            self.contents[to as usize] = self.contents[from as usize];
        }
        for table in seq.pages.groups() {
            for position in seq.cached..end {
                self.contents[table[position / PAGE_TOKENS] as usize][position % PAGE_TOKENS] =
                    seq.tokens[position];
            }
        }
        seq.cached = end;
        self.cache.publish(&mut seq.pages, &seq.tokens, seq.cached, Self::scope(tenant));
        self.cache.slide(&mut seq.pages, seq.cached);
    }

    /// Does one step with the sequences of tenants for which `whose` returns true.
    fn apply(&mut self, step: Step, whose: impl Fn(u64) -> bool) {
        let own = |model: &Self, nth: usize| {
            let mut own = (0..model.sequences.len()).filter(|&s| whose(model.sequences[s].tenant));
            own.nth(nth)
        };
        let room = own(self, 5).is_none();
        match step {
            Step::Start { tenant, text, len } if room => {
                let tokens = (0..len as u32).map(|i| text * 1000 + i).collect();
                let pages = PageTables::new(self.cache.layout.groups(), tenant);
                self.sequences.push(Seq { tokens, cached: 0, pages, tenant });
            }
            Step::Compute { seq, rows } => {
                if let Some(seq) = own(self, seq) {
                    self.compute(seq, rows);
                }
            }
            Step::Append { seq, tokens } => {
                let Some(seq) = own(self, seq) else { return };
                let seq = &mut self.sequences[seq];
                let end = seq.tokens.len() as u32;
                seq.tokens.extend(end..end + tokens as u32);
            }
            Step::Fork { seq } if room => {
                let Some(index) = own(self, seq) else { return };
                let mut other = self.sequences[index].clone();
                other.pages = self.cache.fork(&self.sequences[index].pages);
                other.tokens.push(seq as u32);
                self.sequences.push(other);
            }
            Step::Truncate { seq, len } => {
                let Some(seq) = own(self, seq) else { return };
                let seq = &mut self.sequences[seq];
                let len = len.min(seq.tokens.len());
                seq.tokens.truncate(len);
                seq.cached = self.cache.truncate(&mut seq.pages, len, seq.cached);
            }
            Step::End { seq } => {
                let Some(seq) = own(self, seq) else { return };
                let mut seq = self.sequences.remove(seq);
                self.cache.release(&mut seq.pages);
            }
            Step::Start { .. } | Step::Fork { .. } => {}
        }
    }

    fn check(&self) {
        self.cache.check(self.sequences.iter().map(|s| &s.pages));
        for seq in &self.sequences {
            for (group, table) in seq.pages.groups().iter().enumerate() {
                let window = self.cache.layout.windows[group];
                let first = window.map_or(0, |w| (seq.cached + 1).saturating_sub(w));
                for position in first..seq.cached {
                    let page = table[position / PAGE_TOKENS] as usize;
                    assert_eq!(self.contents[page][position % PAGE_TOKENS], seq.tokens[position]);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Start { tenant: u64, text: u32, len: usize },
    Compute { seq: usize, rows: usize },
    Append { seq: usize, tokens: usize },
    Fork { seq: usize },
    Truncate { seq: usize, len: usize },
    End { seq: usize },
}

impl Step {
    /// The same step for another tenant.
    fn of(self, tenant: u64) -> Self {
        match self {
            Self::Start { text, len, .. } => Self::Start { tenant, text, len },
            other => other,
        }
    }
}

/// Windows of the groups of layers.
fn windows(kind: usize) -> &'static [Option<usize>] {
    match kind {
        0 => &[None; 3],
        1 => &[Some(9); 2],
        2 => &[Some(40), Some(40), None],
        _ => &[Some(1), None],
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..120)
}

fn step() -> impl Strategy<Value = Step> {
    let seq = 0usize..6;
    prop_oneof![
        2 => (0u64..2, 0u32..4, 1usize..150).prop_map(|(tenant, text, len)| Step::Start { tenant, text, len }),
        6 => (seq.clone(), 1usize..70).prop_map(|(seq, rows)| Step::Compute { seq, rows }),
        2 => (seq.clone(), 1usize..40).prop_map(|(seq, tokens)| Step::Append { seq, tokens }),
        1 => seq.clone().prop_map(|seq| Step::Fork { seq }),
        1 => (seq.clone(), 0usize..150).prop_map(|(seq, len)| Step::Truncate { seq, len }),
        1 => seq.prop_map(|seq| Step::End { seq }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_page_is_lost_and_everybody_sees_their_own_tokens(steps in steps(), kind in 0usize..4, divided in any::<bool>()) {
        let mut model = Model::new(windows(kind));
        if divided {
            model.divide([1.0, 2.0], 4);
        }
        for step in steps {
            model.apply(step, |_| true);
            model.check();
        }
        for mut seq in std::mem::take(&mut model.sequences) {
            model.cache.release(&mut seq.pages);
        }
        model.check();
        prop_assert_eq!(model.cache.available(), PAGES);
        model.cache.forget(|_| true);
        prop_assert_eq!(model.cache.free(), PAGES);
    }

    /// While a tenant's sequences stay within its part, everything that it can see of the cache is the same
    /// whatever others do: how much of its texts is in the prefix cache, and the order of eviction.
    #[test]
    fn what_a_tenant_finds_depends_on_its_own_use_alone(
        lives in prop::collection::vec((step(), prop::collection::vec(step(), 0..4)), 1..120),
        kind in 0usize..4,
    ) {
        let live = |others: bool| {
            let mut model = Model::new(windows(kind));
            model.divide([1.0, 1.0], PAGES / 3);
            for (step, beside) in &lives {
                for step in beside.iter().filter(|_| others) {
                    model.apply(step.clone().of(1), |tenant| tenant == 1);
                }
                model.apply(step.clone().of(0), |tenant| tenant == 0);
                model.check();
            }
            let forgotten = model.cache.tree.forgotten.iter().filter(|entry| entry.0 == Some(0));
            let found = model.found.iter().filter(|found| found.0 == 0);
            (found.copied().collect::<Vec<_>>(), forgotten.copied().collect::<Vec<_>>())
        };
        prop_assert_eq!(live(true), live(false));
    }
}

#[test]
fn a_prefix_is_found_again_by_its_own_tenant_alone() {
    let mut model = Model::new(&[None]);
    let tokens: Vec<u32> = (0..100).collect();
    let start = |model: &mut Model, tenant: u64| {
        let pages = PageTables::new(model.cache.layout.groups(), tenant);
        model.sequences.push(Seq { tokens: tokens.clone(), cached: 0, pages, tenant });
        model.compute(model.sequences.len() - 1, 0);
        model.sequences.last().expect("the new one").cached
    };
    assert_eq!(start(&mut model, 1), 0);
    model.compute(0, 100);
    assert_eq!(start(&mut model, 1), 96);
    assert_eq!(start(&mut model, 2), 0);
}

#[test]
fn a_window_takes_no_more_pages_however_long_the_text() {
    let mut model = Model::new(&[Some(40)]);
    let tokens: Vec<u32> = (0..4000).collect();
    let pages = PageTables::new(model.cache.layout.groups(), 1);
    model.sequences.push(Seq { tokens, cached: 0, pages, tenant: 1 });
    while model.sequences[0].cached < 4000 {
        model.compute(0, 64);
        assert!(model.sequences[0].pages.held() <= model.cache.pages_for(4000, 64));
    }
    model.check();
}
