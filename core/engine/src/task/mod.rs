//! A request inside the engine: a token sequence, its pages of the KV cache, and its purpose.
//!
//! - [`generate`]: text, token by token.
//! - [`score`]: log-probabilities of a given text.
//! - [`embed`]: one vector for a text.
//! - [`session`]: a sequence that a program drives itself.

pub(crate) mod embed;
pub(crate) mod generate;
mod rows;
pub(crate) mod score;
pub(crate) mod session;

use std::sync::Arc;
use std::time::Instant;

use realm_compute::Want;
use realm_tokenizer::Tokenizer;

use crate::adapter::Applied;
use crate::answer::CHANNEL_BYTES;
use crate::kv::{KvCache, PageTables, Scope};
use crate::metrics::{Meter, Outcome};
use crate::prices::Prices;
use crate::tenant::Place;
use crate::{Error, MemoryCharge, MemoryKind, Tenant};

use embed::Embed;
use generate::Generate;
use score::Score;
use session::Session;

pub(crate) use rows::Rows;

/// A token sequence with its pages of the KV cache, and its purpose.
pub(crate) struct Task {
    /// Ids ascend in order of arrival.
    pub(crate) id: u64,
    pub(crate) tenant: Arc<Tenant>,
    /// The request's place among its tenant's requests; sessions have none.
    pub(crate) place: Option<Place>,
    /// The prompt and the generated tokens.
    pub(crate) tokens: Vec<u32>,
    /// The number of tokens that the KV cache holds.
    pub(crate) cached: usize,
    /// The most tokens that the task may grow to.
    pub(crate) limit: usize,
    pub(crate) pages: PageTables,
    /// The most pages that the task may hold beside a sequence above its tenant's share; 0 if it was not
    /// admitted beside one.
    pub(crate) reserved: usize,
    /// True while the task waits for tasks with reserved pages.
    pub(crate) held_up: bool,
    /// Keeps the adapter loaded.
    pub(crate) adapter: Option<Applied>,
    /// The number of tokens at the beginning that may be shared with other tenants that mark them.
    pub(crate) shared_prefix: usize,
    /// True if some keys and values are not trusted: no other task may use them.
    pub(crate) foreign: bool,
    /// The time at which the request times out.
    pub(crate) deadline: Option<Instant>,
    /// Drafts, computed along with the last token.
    pub(crate) drafts: Vec<u32>,
    /// The step that last computed rows of the task.
    pub(crate) served: u64,
    pub(crate) meter: Meter,
    /// The charge for the task's memory.
    pub(crate) memory: MemoryCharge,
    /// Bytes of the charge that do not change while the task runs.
    pub(crate) fixed: usize,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    Generate(Box<Generate>),
    Score(Score),
    Embed(Embed),
    Session(Session),
}

impl Work {
    /// The purpose of the task's memory.
    fn memory_kind(&self) -> MemoryKind {
        match self {
            Self::Session(_) => MemoryKind::Sequences,
            Self::Generate(_) | Self::Score(_) | Self::Embed(_) => MemoryKind::Requests,
        }
    }

    /// Bytes of memory that change while the task runs.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Generate(work) => work.memory(),
            Self::Score(work) => work.memory(),
            Self::Embed(_) => 0,
            Self::Session(work) => work.memory(),
        }
    }

    /// The kind's name in traces.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Generate(_) => "generate",
            Self::Score(_) => "score",
            Self::Embed(_) => "embed",
            Self::Session(_) => "sequence",
        }
    }
}

/// The state of a task after a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The task continues.
    More,
    /// The task has nothing to compute for now, and keeps its pages.
    Rests,
    /// The task has ended.
    Ended,
}

impl Task {
    /// Bytes of memory that a task takes before it has tokens, including its entries in tables that have room
    /// to grow.
    pub(crate) fn bytes(work: &Work) -> usize {
        match work {
            Work::Generate(_) => size_of::<Self>() + size_of::<Generate>() + CHANNEL_BYTES,
            Work::Score(_) | Work::Embed(_) => size_of::<Self>() + CHANNEL_BYTES,
            Work::Session(_) => Self::SESSION_BYTES,
        }
    }

    /// Bytes of memory that a program's sequence takes before it has tokens.
    pub(crate) const SESSION_BYTES: usize = size_of::<Self>() * 3 / 2;

    /// Updates the charge after the task has grown or shrunk.
    pub(crate) fn count_memory(&mut self) {
        let bytes = self.fixed + self.tokens.capacity() * size_of::<u32>() + self.work.memory();
        if bytes != self.memory.bytes() {
            self.memory.set(bytes);
        }
    }

    /// Creates a task that has computed nothing yet.
    pub(crate) fn new(
        id: u64,
        tenant: &Arc<Tenant>,
        limit: usize,
        groups: usize,
        meter: Meter,
        work: Work,
    ) -> Self {
        Self {
            id,
            tenant: Arc::clone(tenant),
            place: None,
            tokens: Vec::new(),
            cached: 0,
            limit,
            pages: PageTables::new(groups, tenant.id()),
            reserved: 0,
            held_up: false,
            adapter: None,
            shared_prefix: 0,
            foreign: false,
            deadline: None,
            drafts: Vec::new(),
            served: 0,
            meter,
            memory: tenant.memory().open(work.memory_kind()),
            fixed: 0,
            work,
        }
    }

    /// The number of tokens that are not in the cache.
    pub(crate) fn due(&self) -> usize {
        self.tokens.len() - self.cached
    }

    /// Returns whether the task decodes: one row and perhaps drafts, as opposed to a prompt's many.
    pub(crate) fn decodes(&self) -> bool {
        self.cached > 0 && self.due() == 1
    }

    /// Returns whether the task waits for a reader that does not read. The reader then wakes the engine.
    pub(crate) fn is_paused(&self) -> bool {
        matches!(&self.work, Work::Generate(work) if work.waits_for_reader())
    }

    /// Returns a function that gives the scope of the page that ends at token `end`.
    pub(crate) fn scope(&self) -> impl Fn(usize) -> Scope + use<> {
        let tenant = self.tenant.id();
        let adapter = self.adapter.as_ref().map(Applied::used).map(|a| (a.id, a.scale.to_bits()));
        let shared = self.shared_prefix;
        move |end| Scope { tenant: (end > shared).then_some(tenant), adapter, kept_back: false }
    }

    /// Attaches cached pages of its next tokens; returns the number of those tokens.
    pub(crate) fn attach(&mut self, kv: &mut KvCache) -> usize {
        let (before, most, scope) = (self.cached, self.silent(), self.scope());
        self.cached = kv.attach(&mut self.pages, &self.tokens, before, most, scope);
        self.cached - before
    }

    /// Adds computed pages to the prefix cache, and gives back those that no later row sees.
    pub(crate) fn publish(&mut self, kv: &mut KvCache) {
        if !self.foreign {
            let scope = self.scope();
            kv.publish(&mut self.pages, &self.tokens, self.cached, scope);
        }
        kv.slide(&mut self.pages, self.cached);
    }

    /// The number of tokens at the beginning that need only their keys and values.
    pub(crate) fn silent(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        match &self.work {
            Work::Generate(_) => last,
            Work::Score(work) => work.first_row().min(last),
            Work::Embed(work) => {
                if work.every_row() {
                    0
                } else {
                    last
                }
            }
            // One row is always computed, so that the task takes part in a pass that ends the forward.
            Work::Session(work) => work.silent(self.tokens.len()).min(last),
        }
    }

    /// The results that the next `rows` rows have to give.
    pub(crate) fn want(&self, rows: usize) -> Want {
        let whole = self.cached + rows >= self.tokens.len();
        match &self.work {
            Work::Generate(_) if !self.drafts.is_empty() => Want::Logits,
            Work::Generate(_) if whole => Want::LastLogits,
            Work::Generate(_) => Want::Nothing,
            Work::Score(_) if self.cached >= self.silent() => Want::Logits,
            Work::Score(_) => Want::Nothing,
            Work::Embed(work) if work.every_row() || whole => Want::Hidden,
            Work::Embed(_) => Want::Nothing,
            Work::Session(work) => work.want(self.cached, self.tokens.len(), whole),
        }
    }

    /// Returns whether the likeliest tokens suffice for the use of its rows' logits.
    pub(crate) fn top_k_suffices(&self) -> bool {
        match &self.work {
            Work::Generate(work) => work.top_k_suffices(),
            Work::Session(work) => work.keeps_rows(),
            Work::Score(_) | Work::Embed(_) => false,
        }
    }

    /// The price of using `rows` rows of logits, in rows of a pass: choosing from them, or copying them.
    pub(crate) fn sampled(&self, rows: usize, prices: &Prices) -> f64 {
        let looks = match &self.work {
            Work::Generate(work) => work.looks(),
            Work::Score(_) | Work::Session(_) => 1,
            Work::Embed(_) => 0,
        };
        prices.numbers(rows * looks * prices.vocab())
    }

    /// Returns whether its rows' logits are kept for later.
    pub(crate) fn keeps_rows(&self) -> bool {
        matches!(&self.work, Work::Session(work) if work.keeps_rows())
    }

    /// Replaces `out` by the tokens of the next `rows` rows, including drafts.
    pub(crate) fn tokens_of(&self, rows: usize, out: &mut Vec<u32>) {
        let prompt_rows = rows - self.drafts.len();
        out.clear();
        out.extend_from_slice(&self.tokens[self.cached..self.cached + prompt_rows]);
        out.extend_from_slice(&self.drafts);
    }

    /// Prepares for the computation of the next `rows` rows.
    pub(crate) fn prepare(&mut self, rows: usize) {
        let wanted = self.want(rows) != Want::Nothing;
        if let Work::Generate(work) = &mut self.work
            && wanted
        {
            work.prepare();
        }
    }

    /// The number of the next `rows` rows that go into one forward pass, so that rows without results and
    /// rows of which every result is wanted do not mix. Takes the number of the latter off `most`, which
    /// bounds them.
    pub(crate) fn clip(&self, rows: usize, most: &mut usize) -> usize {
        let every = match &self.work {
            Work::Generate(_) => false,
            Work::Score(_) => true,
            Work::Embed(work) => work.every_row(),
            Work::Session(work) => work.every_row(),
        };
        if !every {
            return rows;
        }
        let silent = self.silent();
        if self.cached < silent {
            return rows.min(silent - self.cached);
        }
        let rows = rows.min(*most);
        *most -= rows;
        rows
    }

    /// Takes the results of `rows` rows. They are counted before the caller can read them.
    pub(crate) fn advance(&mut self, rows: usize, results: &Rows<'_>, tokenizer: &Tokenizer) -> Progress {
        let progress = self.take_results(rows, results, tokenizer);
        self.count_memory();
        progress
    }

    fn take_results(&mut self, rows: usize, results: &Rows<'_>, tokenizer: &Tokenizer) -> Progress {
        let (before, meter) = (self.cached, &mut self.meter);
        if !matches!(self.work, Work::Generate(_)) {
            self.cached += rows;
            meter.advanced(before, self.cached, 0);
        }
        let complete = self.cached == self.tokens.len();
        let progress = |ended| if ended { Progress::Ended } else { Progress::More };
        if complete && !matches!(self.work, Work::Generate(_)) {
            // Before the answer goes out: its caller may want the place at once.
            self.place = None;
            meter.ended(Outcome::Finished);
        }
        match &mut self.work {
            Work::Generate(work) => {
                let prompt_rows = rows - self.drafts.len();
                self.cached += prompt_rows;
                if self.cached < self.tokens.len() {
                    meter.advanced(before, self.cached, 0);
                    return Progress::More;
                }
                let drafts = std::mem::take(&mut self.drafts);
                let room = self.limit - self.tokens.len();
                let (cached, mut ended) = (self.cached, false);
                let step = work.advance(results, &drafts, tokenizer, room, |generated, accepted, outcome| {
                    meter.advanced(before, cached + generated.saturating_sub(1), generated);
                    meter.drafted(drafts.len(), accepted);
                    if let Some(outcome) = outcome {
                        ended = true;
                        meter.ended(outcome);
                        // The reader may want the place at once.
                        self.place = None;
                    }
                });
                if step.ended && !ended {
                    meter.ended(Outcome::Cancelled);
                }
                // Accepted drafts already have their keys and values; the last token has not.
                self.cached += step.tokens.len().saturating_sub(1);
                self.tokens.extend(step.tokens);
                progress(step.ended)
            }
            Work::Score(work) => {
                work.advance(results, self.cached, &self.tokens);
                progress(complete && work.finish(self.tenant.memory().open(MemoryKind::Results)))
            }
            Work::Embed(work) => {
                work.advance(results);
                progress(complete && work.finish(self.tenant.memory().open(MemoryKind::Results)))
            }
            Work::Session(work) => {
                work.advance(results);
                if complete {
                    work.finish();
                    return Progress::Rests;
                }
                Progress::More
            }
        }
    }

    /// Sends the text that its reader has not received yet.
    pub(crate) fn deliver(&mut self) {
        if let Work::Generate(work) = &mut self.work {
            work.deliver();
        }
    }

    /// Discards its results so far: they are computed again.
    pub(crate) fn restart(&mut self) {
        self.cached = 0;
        self.foreign = false;
        (self.reserved, self.held_up) = (0, false);
        self.drafts.clear();
        self.deliver();
        match &mut self.work {
            Work::Generate(_) => {}
            Work::Score(work) => work.restart(),
            Work::Embed(work) => work.restart(),
            Work::Session(work) => work.restart(),
        }
    }

    /// Returns whether the caller has stopped waiting.
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.work {
            Work::Generate(work) => work.is_abandoned(),
            Work::Score(work) => work.is_abandoned(),
            Work::Embed(work) => work.is_abandoned(),
            Work::Session(work) => work.is_abandoned(),
        }
    }

    /// Ends the task with an error.
    pub(crate) fn fail(&mut self, outcome: Outcome, error: Error) {
        self.place = None;
        self.meter.ended(outcome);
        match &mut self.work {
            Work::Generate(work) => work.fail(error),
            Work::Score(work) => work.fail(error),
            Work::Embed(work) => work.fail(error),
            Work::Session(work) => work.fail(error),
        }
    }
}
