//! What the engine's thread does: it picks the rows of the next forward pass and hands out the results.
//!
//! Every step takes one row of each sequence that decodes, then prompts in order of arrival up to the
//! budget, so that a long prompt holds the others up for one chunk and no longer. Pages are taken as sequences
//! grow. When none is left, the sequence that came last gives its pages up and is computed again later: its
//! tokens are kept, and the same rows give the same bits, so its reader notices nothing but the time.

use std::collections::VecDeque;
use std::sync::Arc;

use realm_compute::{Batch, PAGE_TOKENS, Want};
use realm_model::Forward;
use realm_tokenizer::Tokenizer;

use crate::Error;
use crate::pages::PagePool;
use crate::sequence::{Sequence, Work};

/// Rows with logits in one step at most: beyond that a vocabulary of 262,144 takes more than 64 MiB.
const SCORED_ROWS: usize = 64;

pub(crate) struct Scheduler {
    runner: Box<dyn Forward>,
    tokenizer: Arc<Tokenizer>,
    pages: PagePool,
    groups: usize,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    budget: usize,
    batch: Batch,
    /// For each span of the batch, the index in `running`.
    spans: Vec<usize>,
}

impl Scheduler {
    /// `budget` is the number of rows in one forward pass at most, as far as prompts decide it.
    pub(crate) fn new(runner: Box<dyn Forward>, tokenizer: Arc<Tokenizer>, budget: usize) -> Self {
        Self {
            pages: PagePool::new(runner.pages()),
            groups: runner.layout().groups(),
            runner,
            tokenizer,
            waiting: VecDeque::new(),
            running: Vec::new(),
            budget,
            batch: Batch::default(),
            spans: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    pub(crate) fn free_pages(&self) -> usize {
        self.pages.free()
    }

    /// Runs one forward pass; false if there is nothing to run.
    pub(crate) fn step(&mut self) -> bool {
        self.drop_abandoned();
        self.admit();
        self.reserve();
        self.fill_batch();
        if self.batch.rows() == 0 {
            return false;
        }
        tracing::trace!(rows = self.batch.rows(), sequences = self.spans.len(), "step");
        match self.runner.forward(&self.batch) {
            Ok(()) => {
                let logits = self.runner.logits();
                let vocab = logits.len() / self.batch.outputs.len().max(1);
                let mut rows = logits.chunks_exact(vocab.max(1));
                let mut ended = Vec::new();
                for (span, &index) in self.batch.spans.iter().zip(&self.spans) {
                    let sequence = &mut self.running[index];
                    sequence.cached += span.rows.len();
                    if advance(sequence, span.rows.len(), &mut rows, &self.tokenizer) {
                        ended.push(index);
                    }
                }
                self.remove(ended);
            }
            Err(error) => {
                tracing::error!(%error, "a forward pass failed");
                let error = Error::Model(error.to_string());
                let failed = self.spans.clone();
                for &index in &failed {
                    self.running[index].fail(error.clone());
                }
                self.remove(failed);
            }
        }
        true
    }

    /// Takes sequences out of `running`, given by index.
    fn remove(&mut self, mut indices: Vec<usize>) {
        indices.sort_unstable();
        for index in indices.into_iter().rev() {
            let sequence = self.running.remove(index);
            self.pages.give_back(sequence.pages);
        }
    }

    fn drop_abandoned(&mut self) {
        self.waiting.retain(|s| !s.is_abandoned());
        let abandoned = (0..self.running.len()).filter(|&i| self.running[i].is_abandoned()).collect();
        self.remove(abandoned);
    }

    /// Lets sequences in, in order of arrival, while there are pages for what they hold and one token more.
    fn admit(&mut self) {
        let mut free = self.pages.free();
        while let Some(next) = self.waiting.front() {
            let needed = self.groups * (next.tokens.len() + 1).min(next.limit).div_ceil(PAGE_TOKENS);
            if needed > free {
                break;
            }
            free -= needed;
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            if let Work::Generate(work) = &mut sequence.work {
                work.start();
            }
            self.running.push(sequence);
        }
    }

    /// Takes the pages that this step will write, in order of arrival. One sequence alone always fits, so the
    /// first one always gets on.
    fn reserve(&mut self) {
        let mut index = 0;
        while let Some(sequence) = self.running.get_mut(index) {
            let due = sequence.tokens.len() - sequence.cached;
            let needed = self.groups * (sequence.cached + due.min(self.budget)).div_ceil(PAGE_TOKENS);
            match self.pages.take(needed.saturating_sub(sequence.pages.len())) {
                Some(pages) => {
                    sequence.pages.extend(pages);
                    index += 1;
                }
                None => {
                    let Some(mut last) = self.running.pop() else { return };
                    tracing::debug!(tokens = last.tokens.len(), "pre-empted");
                    self.pages.give_back(std::mem::take(&mut last.pages));
                    last.cached = 0;
                    if let Work::Score(work) = &mut last.work {
                        work.rows.clear();
                    }
                    self.waiting.push_front(last);
                }
            }
        }
    }

    fn fill_batch(&mut self) {
        self.batch.clear();
        self.spans.clear();
        let mut scored = SCORED_ROWS;
        for decoding in [true, false] {
            for (index, sequence) in self.running.iter().enumerate() {
                let due = sequence.tokens.len() - sequence.cached;
                let decodes = sequence.cached > 0 && due == 1;
                if decodes != decoding {
                    continue;
                }
                let room = if decoding { 1 } else { self.budget.saturating_sub(self.batch.rows()) };
                let (rows, every) = match &sequence.work {
                    Work::Generate(work) if work.waits_for_reader() => continue,
                    Work::Generate(_) => (due.min(room), false),
                    Work::Score(_) => (due.min(room).min(scored), true),
                };
                if rows == 0 {
                    continue;
                }
                if every {
                    scored -= rows;
                }
                let tokens = &sequence.tokens[sequence.cached..sequence.cached + rows];
                let pages = (sequence.cached + rows).div_ceil(PAGE_TOKENS);
                let table = |group| sequence.pages.iter().skip(group).step_by(self.groups).take(pages);
                let tables: Vec<Vec<u32>> = (0..self.groups).map(|g| table(g).copied().collect()).collect();
                let want = match (every, rows < due) {
                    (true, _) => Want::Logits,
                    (false, false) => Want::LastLogits,
                    // In the middle of a prompt nobody needs logits.
                    (false, true) => Want::Nothing,
                };
                self.batch.push(tokens, sequence.cached, &tables, want);
                self.spans.push(index);
            }
        }
    }
}

/// Gives a sequence the logits of its rows; true if it has ended.
fn advance<'a>(
    sequence: &mut Sequence,
    rows: usize,
    logits: &mut impl Iterator<Item = &'a [f32]>,
    tokenizer: &Tokenizer,
) -> bool {
    let complete = sequence.cached == sequence.tokens.len();
    match &mut sequence.work {
        Work::Score(work) => {
            for row in logits.take(rows) {
                work.advance(row);
            }
            if complete {
                work.finish();
            }
            complete
        }
        Work::Generate(_) if !complete => false,
        Work::Generate(work) => {
            let Some(row) = logits.next() else { return true };
            let last = sequence.tokens.len() + 1 >= sequence.limit;
            let generated = sequence.tokens.len() - work.prompt_tokens();
            match work.advance(row, tokenizer, generated, last) {
                Some(token) => {
                    sequence.tokens.push(token);
                    false
                }
                None => true,
            }
        }
    }
}
