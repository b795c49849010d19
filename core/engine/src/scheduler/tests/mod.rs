//! The scheduler step by step, on small random models of the repository.

mod drafts;
mod fair;
mod faults;
mod leaks;
mod lives;
mod pacing;
mod work;

use std::path::PathBuf;
use std::sync::OnceLock;

use realm_compute::CacheType;
use realm_compute::cpu::CpuBackend;
use realm_gguf::Gguf;
use realm_handover::Receiver;
use realm_hub::{Hub, Reference};
use realm_model::{Transformer, Weights};

use super::*;
use crate::chunk::Unread;
use crate::metrics::{Ledger, Meter};
use crate::request::Request;
use crate::speculate::Speculator;
use crate::task::generate::Generate;
use crate::{Draft, Limits, Sampling, Speculation, Tenant};

pub(super) type Model = Arc<Transformer<CpuBackend>>;

/// A small random model on one thread.
pub(super) fn tiny(name: &str) -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny");
    load(&folder.join(format!("{name}.gguf")), 1)
}

pub(super) fn load(path: &std::path::Path, threads: usize) -> Model {
    let gguf = Gguf::open(path).expect("a GGUF file");
    let backend = Arc::new(CpuBackend::new(threads).expect("a backend"));
    Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).expect("a model"))
}

pub(super) fn smollm2() -> PathBuf {
    let reference = Reference::parse("smollm2-135m").expect("a name");
    Hub::new().and_then(|hub| hub.resolve(&reference, &mut ())).expect("the model's file")
}

/// Returns any tokenizer: the small models have none, and no test reads their text.
fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let load = || {
        let gguf = Gguf::open(smollm2()).expect("a GGUF file");
        Arc::new(Tokenizer::from_metadata(gguf.metadata()).expect("a tokenizer"))
    };
    Arc::clone(TOKENIZER.get_or_init(load))
}

/// A scheduler and the other parts that its requests need.
pub(super) struct Bench {
    pub(super) scheduler: Scheduler,
    pub(super) context: usize,
    ids: u64,
    pub(super) members: Arc<Members>,
}

pub(super) type Chunks = Receiver<Unread>;

impl Bench {
    /// Creates a bench with `pages` pages for each group of layers.
    pub(super) fn new(model: &dyn Weights, pages: usize, config: EngineConfig) -> Self {
        // The model is its own draft model.
        Self::with_draft(model, pages, config, model)
    }

    /// Creates a bench with a draft model, which is used if drafts come from one.
    pub(super) fn with_draft(
        model: &dyn Weights,
        pages: usize,
        config: EngineConfig,
        other: &dyn Weights,
    ) -> Self {
        let layout = model.config().cache_layout();
        let pages = pages * layout.groups();
        let runner = model.runner(pages, CacheType::F32).expect("a runner");
        let fits = |tokens: &usize| crate::kv::pages_for(&layout, *tokens, config.prefill_chunk) <= pages;
        let context = (1..4096).take_while(fits).last().expect("room for a token");
        let ledger = Arc::new(Ledger::new(pages, model.page_bytes(CacheType::F32)));
        let draft = match config.speculation {
            Speculation::Draft => {
                let draft = Draft { weights: other, tokenizer: &tokenizer() };
                Some(
                    DraftModel::new(&draft, model, &tokenizer(), config.pages(model), config.cache_type)
                        .expect("a draft model"),
                )
            }
            _ => None,
        };
        let members = Arc::<Members>::default();
        let scheduler = Scheduler::new(runner, tokenizer(), config, ledger, Arc::clone(&members), draft);
        Self { scheduler, context, ids: 0, members }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Starts a greedy request for `tokens` tokens.
    pub(super) fn generate(&mut self, tenant: &Arc<Tenant>, prompt: &[u32], tokens: usize) -> Chunks {
        self.request(tenant, prompt, tokens, 0)
    }

    pub(super) fn request(
        &mut self,
        tenant: &Arc<Tenant>,
        prompt: &[u32],
        tokens: usize,
        shared_prefix: usize,
    ) -> Chunks {
        self.sample(tenant, prompt, tokens, shared_prefix, Sampling::greedy())
    }

    pub(super) fn sample(
        &mut self,
        tenant: &Arc<Tenant>,
        prompt: &[u32],
        tokens: usize,
        shared_prefix: usize,
        sampling: Sampling,
    ) -> Chunks {
        let (send, receive) = realm_handover::channel(tokens + 1);
        let mut request =
            Request { prompt: prompt.to_vec(), sampling, ignore_eos: true, ..Request::default() };
        let speculator =
            Speculator::new(self.scheduler.config.speculation, self.scheduler.drafting.model.is_some());
        let work =
            Generate::new(&mut request, None, speculator, send, tenant.memory().clone(), Arc::default());
        let work = Work::Generate(Box::new(work));
        self.members.add(tenant);
        let (id, limit) = (self.next_id(), (prompt.len() + tokens).min(self.context));
        let groups = self.scheduler.runner.layout().groups();
        let meter = Meter::request(&self.scheduler.ledger, tenant, work.kind(), prompt.len());
        let task = Task {
            place: Some(tenant.enqueue(None).expect("a place")),
            tokens: prompt.to_vec(),
            shared_prefix,
            ..Task::new(id, tenant, limit, groups, meter, work)
        };
        self.scheduler.add(task);
        receive
    }

    /// Steps once and checks that every page is accounted for.
    pub(super) fn step(&mut self) -> Next {
        let next = self.scheduler.step();
        self.check();
        next
    }

    pub(super) fn check(&self) {
        let s = &self.scheduler;
        let queued = s.accounts.iter().flat_map(|account| &account.queue);
        s.resting.check();
        s.kv.check(s.running.iter().chain(s.resting.values()).chain(queued).map(|task| &task.pages));
        if let Some(draft) = &s.drafting.model {
            draft.check();
        }
    }

    /// Steps until nothing is left to do.
    pub(super) fn finish(&mut self) {
        while self.step() == Next::Go {}
    }
}

pub(super) fn tenant(limits: Limits) -> Arc<Tenant> {
    Arc::new(Tenant::new("tenant", limits).expect("limits"))
}

/// Returns the tokens so far, and the end if the request has ended.
pub(super) fn tokens(chunks: &Chunks) -> (Vec<u32>, Option<crate::Finish>) {
    let (mut tokens, mut finish) = (Vec::new(), None);
    while let Ok(chunk) = chunks.try_recv() {
        let chunk = chunk.into_inner().expect("no error");
        tokens.extend(chunk.tokens.iter().map(|token| token.id));
        finish = chunk.finish;
    }
    (tokens, finish)
}

/// A text of `len` tokens that depends on `seed` from token `common` on.
pub(super) fn text(seed: u32, common: usize, len: usize) -> Vec<u32> {
    (0..len as u32)
        .map(|i| if (i as usize) < common { i * 7 % 90 } else { (i * 13 + seed * 29) % 97 })
        .collect()
}
