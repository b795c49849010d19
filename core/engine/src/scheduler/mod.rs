//! The engine's thread: picks the rows of the next forward pass and hands out the results.
//!
//! - [`fairness`]: whose turn it is.
//! - [`admission`]: who may run, and who has to give pages up.
//! - [`reservation`]: how requests get in beside a sequence that takes most of the pages.
//! - [`select`]: which rows the next pass has.
//! - [`pacing`]: how many rows of prompts it has, so that it does not take long.
//! - [`speculation`]: which rows are computed on the chance that they are needed.
//! - [`beside`]: what is done between passes, and how much of it for whom.
//! - [`sessions`]: what programs do with sequences of their own; [`resting`] has those that wait.
//! - [`passes`]: the pass, and whom one that fails ends.
//! - [`results`]: what tasks, their readers and programs get of a pass.
//! - [`layerwise`]: the pass layer by layer, for programs that put it together themselves.
//! - [`gauges`]: how things stand, for readers of metrics.
//!
//! Every step takes one row of each sequence that generates, then chunks of prompts up to a budget of rows
//! and of time, so that a long prompt holds the others up for one chunk and no longer. Pages are taken as
//! sequences grow. When none is left, a sequence gives its pages up and is computed again later: the tokens
//! are kept, and the same rows give the same bits, so the reader notices nothing but the time.

mod admission;
mod beside;
mod fairness;
mod gauges;
mod layerwise;
mod pacing;
mod passes;
mod reservation;
mod resting;
mod results;
mod select;
mod sessions;
mod speculation;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use realm_compute::Batch;
use realm_model::{AdapterWeights, Forward};
use realm_tokenizer::Tokenizer;

use crate::command::SessionCommand;
use crate::kv::{Copy, KvCache, pages_for};
use crate::members::Members;
use crate::metrics::{Ledger, Outcome};
use crate::prices::Prices;
use crate::speculate::{DraftModel, Drafting};
use crate::step_hooks::{Jobs, StepHooks};
use crate::task::{Task, Work};
use crate::tenant::Sent;
use crate::{EngineConfig, Error};

use beside::Beside;
use fairness::Accounts;
use gauges::Gauges;
use layerwise::LayerwiseWork;
use pacing::Pacing;
use resting::Resting;

/// Requests of a tenant that end in one step while they wait: they take their memory's freeing of the
/// engine's thread.
const MOST_ENDED: usize = 64;
/// Rows of logits that stay on the device after a step at most.
const MOST_KEPT: usize = 256;

pub(crate) struct Scheduler {
    runner: Box<dyn Forward>,
    tokenizer: Arc<Tokenizer>,
    config: EngineConfig,
    kv: KvCache,
    members: Arc<Members>,
    /// The change of members that pages are divided by.
    divided: u64,
    /// Whether a tenant has marked a prefix as shared.
    shares: bool,
    /// Pages of the longest sequence.
    longest: usize,
    accounts: Accounts,
    drafting: Drafting,
    running: Vec<Task>,
    /// Sessions that wait for their programs, with their pages.
    resting: Resting,
    prices: Prices,
    pacing: Pacing,
    beside: Beside,
    /// Programs that compute the pass layer by layer, in the order of their turns.
    layerwise: VecDeque<LayerwiseWork>,
    batch: Batch,
    copies: Vec<Copy>,
    /// Turns of programs, which are part of the steps.
    jobs: Arc<Jobs>,
    /// Rows of the last pass, and how long it took.
    last_forward: (usize, Duration),
    /// Threads of the host that choose tokens.
    host_threads: usize,
    /// Passes to come without sequences whose tokens take long to choose.
    without_choosing: usize,
    /// Steps so far.
    steps: u64,
    wake: Wake,
    /// A sequence gave its pages up in this step.
    preempted: bool,
    ledger: Arc<Ledger>,
    gauges: Gauges,
    /// Since when the thread has been busy without a step to show for it.
    busy_since: Option<Instant>,
}

/// The engine's next action after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Next {
    /// There is more to compute.
    Go,
    /// Nothing can be computed before a command comes, or this much time has passed.
    Wait(Option<Duration>),
}

/// How long until something can happen without a command: a tenant may compute again, or a request's time is
/// up.
#[derive(Default)]
struct Wake(Option<Duration>);

impl Wake {
    fn note(&mut self, wait: Duration) {
        if !wait.is_zero() {
            self.0 = Some(self.0.map_or(wait, |other| other.min(wait)));
        }
    }
}

impl Scheduler {
    pub(crate) fn new(
        runner: Box<dyn Forward>,
        tokenizer: Arc<Tokenizer>,
        config: EngineConfig,
        ledger: Arc<Ledger>,
        members: Arc<Members>,
        draft: Option<DraftModel>,
    ) -> Self {
        let longest = config.context_length.unwrap_or(runner.config().context_length);
        Self {
            kv: KvCache::new(runner.layout().clone(), runner.pages(), config.prefix_cache),
            prices: Prices::new(runner.config(), runner.overlaps()),
            pacing: Pacing::default(),
            beside: Beside::default(),
            members,
            divided: 0,
            shares: false,
            longest: pages_for(runner.layout(), longest, config.prefill_chunk),
            runner,
            tokenizer,
            drafting: Drafting::new(draft, config.fixed_drafts),
            config,
            accounts: Accounts::default(),
            running: Vec::new(),
            resting: Resting::default(),
            layerwise: VecDeque::new(),
            batch: Batch::default(),
            copies: Vec::new(),
            jobs: Arc::default(),
            last_forward: (0, Duration::ZERO),
            host_threads: std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8)),
            without_choosing: 0,
            steps: 0,
            wake: Wake::default(),
            preempted: false,
            ledger,
            gauges: Gauges::default(),
            busy_since: None,
        }
    }

    /// The places in steps where programs compute.
    pub(crate) fn hooks(&self) -> StepHooks {
        self.jobs.hooks()
    }

    /// A new request; it waits for its turn.
    pub(crate) fn add(&mut self, task: Task) {
        self.note_shared(task.shared_prefix);
        self.accounts.of(&task.tenant).queue.push_back(task);
    }

    /// A program's wish; it waits for its tenant's turn.
    pub(crate) fn command(&mut self, sent: Sent, command: SessionCommand) {
        self.accounts.of(&sent.0).commands.push_back((sent, command));
    }

    /// Once tenants share prefixes, these have a part of the pages.
    pub(super) fn note_shared(&mut self, prefix: usize) {
        if prefix > 0 && !std::mem::replace(&mut self.shares, true) {
            self.divided = 0;
            self.divide();
        }
    }

    /// Divides the pages anew if other tenants are there, or weigh more or less.
    fn divide(&mut self) {
        if let Some(weights) = self.members.news(&mut self.divided) {
            self.kv.divide(&weights, self.shares, self.longest);
        }
    }

    pub(crate) fn add_adapter(&mut self, id: u32, weights: Arc<dyn AdapterWeights>) -> Result<(), Error> {
        self.runner.set_adapter(id, Some(weights)).map_err(|e| Error::InvalidArgument(e.to_string()))
    }

    /// Unloads an adapter that no request names any more, and forgets what was computed with it.
    pub(crate) fn remove_adapter(&mut self, id: u32) {
        if let Err(error) = self.runner.set_adapter(id, None) {
            tracing::warn!(%error, id, "an adapter could not be unloaded");
        }
        self.kv.forget(|scope| scope.adapter.is_some_and(|(adapter, _)| adapter == id));
    }

    /// Number of pages that no sequence uses, remembered ones included.
    pub(crate) fn free_pages(&self) -> usize {
        self.kv.available()
    }

    /// Runs one forward pass, if there is anything to run.
    pub(crate) fn step(&mut self) -> Next {
        let now = Instant::now();
        let began = *self.busy_since.get_or_insert(now);
        self.preempted = false;
        #[cfg(test)]
        {
            self.beside.done = 0.0;
        }
        self.divide();
        self.run_commands();
        self.sweep(now);
        self.admit(now);
        let mut picks = self.select(now);
        self.speculate(&mut picks, now);
        let picks = self.reserve(picks);
        if picks.is_empty() {
            self.deliver();
            self.accounts.settle();
            if self.preempted {
                // There may be room now.
                return Next::Go;
            }
            self.share(&[]);
            if self.has_layerwise(now) {
                self.run_layerwise(now);
                self.run_turns();
                self.accounts.settle();
                return Next::Go;
            }
            if self.has_commands() {
                return Next::Go;
            }
            self.busy_since = None;
            self.show(now, true);
            return Next::Wait(self.wake.0);
        }
        self.steps += 1;
        self.share(&picks);
        let generates = self.only_generates(&picks);
        let picks = self.fit(picks);
        let (rows, sequences) = (picks.iter().map(|pick| pick.rows).sum(), picks.len());
        let _span = tracing::trace_span!("step", rows, sequences).entered();
        let before = Instant::now();
        let forward = self.compute(&picks, now);
        if generates && rows > 0 && self.last_forward.0 == rows {
            self.drafting.costs.observe(rows, before.elapsed().as_secs_f64());
        }
        if self.has_layerwise(now) {
            self.run_layerwise(now);
        }
        self.accounts.settle();
        self.run_turns();
        let end = Instant::now();
        self.ledger.step(rows, sequences, end - began, forward);
        self.busy_since = Some(end);
        self.show(end, false);
        Next::Go
    }

    /// Ends requests that were given up and requests that have run out of time.
    fn sweep(&mut self, now: Instant) {
        let mut wake = Wake::default();
        let mut over = |task: &mut Task| {
            if task.is_abandoned() {
                task.meter.ended(Outcome::Cancelled);
                return true;
            }
            let Some(deadline) = task.deadline else { return false };
            if deadline > now {
                wake.note(deadline - now);
                return false;
            }
            let error = format!(
                "the request took longer than tenant `{}` may (`request_timeout`); ask for fewer tokens, or raise the limit",
                task.tenant.name(),
            );
            task.fail(Outcome::TimedOut, Error::LimitExceeded(error));
            true
        };
        let (mut ended, mut more): (Vec<(u64, f64)>, bool) = (Vec::new(), false);
        for account in self.accounts.iter_mut() {
            // Requests that are given up as fast as they come keep their places until their turn to end
            // comes.
            let mut left = MOST_ENDED;
            account.queue.retain_mut(|task| {
                // A session that its program gave up is forgotten when it runs.
                if left == 0 || matches!(task.work, Work::Session(_)) || !over(task) {
                    return true;
                }
                left -= 1;
                ended.push((task.tenant.id(), self.prices.command(task.tokens.len())));
                false
            });
            more |= left == 0;
        }
        let mut index = 0;
        while index < self.running.len() {
            if over(&mut self.running[index]) {
                let task = self.running.remove(index);
                self.accounts.leave(&task);
                self.put_away(task);
            } else {
                index += 1;
            }
        }
        if more {
            wake.note(Duration::from_millis(1));
        }
        self.wake = wake;
        for (tenant, rows) in ended {
            self.charge_beside(tenant, rows);
        }
    }

    /// Puts a task away that has stopped running: a session rests, and any other task ends.
    fn put_away(&mut self, mut task: Task) {
        if let Work::Session(work) = &mut task.work {
            work.pending = None;
            self.resting.insert(task);
        } else {
            self.kv.release(&mut task.pages);
            self.drafting.forget(task.id);
        }
    }

    /// Where a task is among the running ones, which are in the order of ids.
    fn place(&self, id: u64) -> Option<usize> {
        self.running.binary_search_by_key(&id, |task| task.id).ok()
    }

    /// Takes tasks out of the running ones.
    fn retire(&mut self, tasks: &[u64]) {
        if tasks.is_empty() {
            return;
        }
        for task in self.running.extract_if(.., |task| tasks.contains(&task.id)).collect::<Vec<_>>() {
            self.accounts.leave(&task);
            self.put_away(task);
        }
    }
}

#[cfg(test)]
mod tests;
