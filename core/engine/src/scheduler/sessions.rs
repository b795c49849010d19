//! Commands of programs to their own sequences, carried out between two steps.

use realm_handover::Sender;

use super::Scheduler;
use crate::Error;
use crate::command::SessionCommand;
use crate::metrics::Meter;
use crate::snapshot::Snapshot;
use crate::task::session::{Output, Pending, Results, Session};
use crate::task::{Task, Work};

/// The number of numbers whose copying takes as long as a page's change of owner.
const PAGE: usize = 16;

impl Scheduler {
    /// Carries out a command, or a slice of it that costs little more than `slice` rows; returns its cost,
    /// and the rest of the command. A sequence that does not exist has lost its handle: nothing happens.
    pub(super) fn session_slice(
        &mut self,
        command: SessionCommand,
        slice: f64,
    ) -> (f64, Option<SessionCommand>) {
        // The number of copied numbers. A page counts for [`PAGE`] of them, since its references are counted.
        let mut moved = 0;
        match command {
            SessionCommand::Open { id, tenant, adapter, limit, shared_prefix } => {
                self.note_shared(shared_prefix);
                let work = Work::Session(Session::default());
                let groups = self.runner.layout().groups();
                let meter = Meter::session(&self.ledger, &tenant);
                let task =
                    Task { adapter, shared_prefix, ..Task::new(id, &tenant, limit, groups, meter, work) };
                self.resting.insert(task);
            }
            SessionCommand::Forward { id, tokens, output, results } => {
                if let Some(task) = self.take_session(id) {
                    moved = tokens.len();
                    self.forward(task, tokens, output, results);
                }
            }
            SessionCommand::Fork { id, to } => {
                let Some(task) = self.take_session(id) else { return (self.prices.command(0), None) };
                moved = task.tokens.len() + PAGE * task.pages.held();
                let work = Work::Session(Session::default());
                let mut twin = Task {
                    tokens: task.tokens.clone(),
                    cached: task.cached,
                    pages: self.kv.fork(&task.pages),
                    adapter: task.adapter.clone(),
                    foreign: task.foreign,
                    shared_prefix: task.shared_prefix,
                    ..Task::new(to, &task.tenant, task.limit, 0, task.meter.fork(), work)
                };
                twin.count_memory();
                self.resting.insert(task);
                self.resting.insert(twin);
            }
            SessionCommand::Truncate { id, len } => {
                let Some(mut task) = self.take_session(id) else { return (self.prices.command(0), None) };
                moved = PAGE * task.pages.held();
                task.tokens.truncate(len);
                task.meter.truncated(len);
                task.cached = self.kv.truncate(&mut task.pages, task.tokens.len(), task.cached);
                task.foreign &= task.cached > 0;
                self.resting.insert(task);
            }
            SessionCommand::Close { id } => {
                if let Some(mut task) = self.take_session(id) {
                    moved = PAGE * task.pages.held();
                    self.kv.release(&mut task.pages);
                }
            }
            SessionCommand::Save { id, reply, begun } => return self.save(id, reply, begun, slice),
            SessionCommand::Restore { id, snapshot, foreign, done } => {
                return self.restore(id, snapshot, foreign, done, slice);
            }
        }
        (self.prices.command(moved), None)
    }

    /// Carries out a whole command.
    #[cfg(test)]
    pub(crate) fn session(&mut self, command: SessionCommand) {
        let mut next = Some(command);
        while let Some(command) = next.take() {
            next = self.session_slice(command, 1.0).1;
        }
    }

    /// Copies some pages of a sequence.
    fn save(
        &mut self,
        id: u64,
        reply: Sender<Result<Snapshot, Error>>,
        begun: Option<Snapshot>,
        slice: f64,
    ) -> (f64, Option<SessionCommand>) {
        let Some(task) = self.take_session(id) else { return (self.prices.command(0), None) };
        // A sequence that gave up its pages in the meantime is saved without them.
        let mut cost = self.prices.command(if begun.is_some() { 0 } else { task.tokens.len() });
        let mut snapshot =
            begun.filter(|begun| begun.cached == task.cached).unwrap_or_else(|| Snapshot::begin(&task));
        let result = loop {
            match snapshot.copy_next(&task, &*self.runner) {
                Ok(Some(bytes)) => cost += self.prices.numbers(2 * bytes / 4),
                Ok(None) => break Ok(snapshot),
                Err(error) => break Err(error),
            }
            if cost > slice {
                self.resting.insert(task);
                return (cost, Some(SessionCommand::Save { id, reply, begun: Some(snapshot) }));
            }
        };
        // Fails if the caller is gone, who then needs no result.
        let _ = reply.try_send(result);
        self.resting.insert(task);
        (cost, None)
    }

    /// Fills some pages of a sequence.
    fn restore(
        &mut self,
        id: u64,
        mut snapshot: Snapshot,
        foreign: bool,
        mut done: usize,
        slice: f64,
    ) -> (f64, Option<SessionCommand>) {
        let Some(mut task) = self.take_session(id) else { return (self.prices.command(0), None) };
        let mut cost = self.prices.command(snapshot.tokens.len());
        // Without room for the pages, or if it had to give them up in the meantime, the sequence is computed
        // again.
        let mut has_pages = task.pages.held() > 0;
        if done == 0 {
            task.tokens = std::mem::take(&mut snapshot.tokens);
            // Keys and values that a tenant made up must not reach other tenants.
            task.shared_prefix = 0;
            let present: Vec<bool> = snapshot.pages.iter().map(Option::is_some).collect();
            has_pages = self.kv.restore(&mut task.pages, &present).is_ok();
        }
        let pages = task.pages.groups().concat();
        while has_pages && done < snapshot.pages.len() {
            if let Some(bytes) = snapshot.pages[done].take() {
                cost += self.prices.numbers(2 * bytes.len() / 4);
                if let Err(error) = self.runner.import_page(pages[done], &bytes) {
                    tracing::warn!(%error, "a saved sequence could not be restored");
                    self.kv.release(&mut task.pages);
                    has_pages = false;
                }
            }
            done += 1;
            if has_pages && done < snapshot.pages.len() && cost > slice {
                self.resting.insert(task);
                return (cost, Some(SessionCommand::Restore { id, snapshot, foreign, done }));
            }
        }
        if has_pages {
            (task.cached, task.foreign) = (snapshot.cached, foreign && snapshot.cached > 0);
        }
        self.resting.insert(task);
        (cost, None)
    }

    /// Appends tokens to a session and runs it.
    fn forward(&mut self, mut task: Task, tokens: Vec<u32>, output: Output, results: Results) {
        let before = task.tokens.len();
        task.tokens.extend(tokens);
        if task.tokens.is_empty() {
            let why = "the sequence has no tokens; append some before a forward".into();
            results.fail(Error::InvalidArgument(why));
            self.resting.insert(task);
            return;
        }
        if task.due() == 0 {
            // Its results were not kept: compute the last token once more.
            task.cached = self.kv.truncate(&mut task.pages, task.cached - 1, task.cached);
            task.foreign &= task.cached > 0;
        }
        let first = before.min(task.tokens.len() - 1);
        if let Work::Session(session) = &mut task.work {
            session.pending = Some(Pending { output, first, results });
        }
        if task.pages.held() > 0 {
            self.run(task);
        } else {
            self.add(task);
        }
    }

    /// Takes a session from wherever it is. A pending forward that no caller waits for is dropped.
    fn take_session(&mut self, id: u64) -> Option<Task> {
        let mut task = match self.resting.remove(id) {
            Some(task) => task,
            None => match self.place(id) {
                Some(index) => {
                    let task = self.running.remove(index);
                    self.accounts.leave(&task);
                    task
                }
                None => self.accounts.iter_mut().find_map(|account| {
                    let index = account.queue.iter().position(|task| task.id == id)?;
                    account.queue.remove(index)
                })?,
            },
        };
        match &mut task.work {
            Work::Session(session) => session.pending = None,
            _ => return None,
        }
        Some(task)
    }
}
