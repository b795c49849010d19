//! Random lives of sequences: every page stays accounted for, and what a sequence sees is what it wrote.

use proptest::prelude::*;

use super::*;

/// A cache whose pages have contents: the tokens that were written, by group.
struct Model {
    cache: KvCache,
    contents: Vec<[u32; PAGE_TOKENS]>,
    sequences: Vec<Seq>,
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
        Self { cache, contents: vec![[0; PAGE_TOKENS]; PAGES], sequences: Vec::new() }
    }

    fn scope(tenant: u64) -> impl Fn(usize) -> Scope {
        move |_| Scope { tenant: Some(tenant), adapter: None }
    }

    /// Computes the next `rows` tokens of a sequence, if there are pages.
    fn compute(&mut self, s: usize, rows: usize) {
        let seq = &mut self.sequences[s];
        let tenant = seq.tenant;
        let most = seq.tokens.len().saturating_sub(1);
        seq.cached = self.cache.attach(&mut seq.pages, &seq.tokens, seq.cached, most, Self::scope(tenant));
        let end = (seq.cached + rows).min(seq.tokens.len());
        if end == seq.cached {
            return;
        }
        let mut copies = Vec::new();
        let before = seq.pages.groups().to_vec();
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

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seq = 0usize..6;
    let step = prop_oneof![
        2 => (0u64..2, 0u32..2, 1usize..150).prop_map(|(tenant, text, len)| Step::Start { tenant, text, len }),
        6 => (seq.clone(), 1usize..70).prop_map(|(seq, rows)| Step::Compute { seq, rows }),
        2 => (seq.clone(), 1usize..40).prop_map(|(seq, tokens)| Step::Append { seq, tokens }),
        1 => seq.clone().prop_map(|seq| Step::Fork { seq }),
        1 => (seq.clone(), 0usize..150).prop_map(|(seq, len)| Step::Truncate { seq, len }),
        1 => seq.prop_map(|seq| Step::End { seq }),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_page_is_lost_and_everybody_sees_their_own_tokens(steps in steps(), kind in 0usize..4) {
        let windows: &[Option<usize>] = match kind {
            0 => &[None; 3],
            1 => &[Some(9); 2],
            2 => &[Some(40), Some(40), None],
            _ => &[Some(1), None],
        };
        let mut model = Model::new(windows);
        for step in steps {
            let seqs = model.sequences.len();
            match step {
                Step::Start { tenant, text, len } if seqs < 6 => {
                    let tokens = (0..len as u32).map(|i| text * 1000 + i).collect();
                    let pages = PageTables::new(model.cache.layout.groups());
                    model.sequences.push(Seq { tokens, cached: 0, pages, tenant });
                }
                Step::Compute { seq, rows } if seq < seqs => model.compute(seq, rows),
                Step::Append { seq, tokens } if seq < seqs => {
                    let seq = &mut model.sequences[seq];
                    let end = seq.tokens.len() as u32;
                    seq.tokens.extend(end..end + tokens as u32);
                }
                Step::Fork { seq } if seq < seqs && seqs < 6 => {
                    let mut other = model.sequences[seq].clone();
                    other.pages = model.cache.fork(&model.sequences[seq].pages);
                    other.tokens.push(seq as u32);
                    model.sequences.push(other);
                }
                Step::Truncate { seq, len } if seq < seqs => {
                    let seq = &mut model.sequences[seq];
                    let len = len.min(seq.tokens.len());
                    seq.tokens.truncate(len);
                    seq.cached = model.cache.truncate(&mut seq.pages, len, seq.cached);
                }
                Step::End { seq } if seq < seqs => {
                    let mut seq = model.sequences.swap_remove(seq);
                    model.cache.release(&mut seq.pages);
                }
                _ => {}
            }
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
}

#[test]
fn a_prefix_is_found_again_by_its_own_tenant_alone() {
    let mut model = Model::new(&[None]);
    let tokens: Vec<u32> = (0..100).collect();
    let start = |model: &mut Model, tenant: u64| {
        let pages = PageTables::new(model.cache.layout.groups());
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
    let pages = PageTables::new(model.cache.layout.groups());
    model.sequences.push(Seq { tokens, cached: 0, pages, tenant: 1 });
    while model.sequences[0].cached < 4000 {
        model.compute(0, 64);
        assert!(model.sequences[0].pages.held() <= model.cache.pages_for(4000, 64));
    }
    model.check();
}
