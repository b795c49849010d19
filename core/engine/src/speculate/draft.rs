//! A draft model: a small model of the same vocabulary that predicts the tokens of the large one.

use std::time::Instant;

use hashbrown::HashMap;
use realm_compute::{Batch, CacheType, PAGE_TOKENS, Want};
use realm_model::{Forward, Weights};
use realm_tokenizer::Tokenizer;
use rustc_hash::FxBuildHasher;

use super::control::Costs;
use crate::Error;
use crate::kv::{KvCache, PageTables, pages_for};
use crate::sampling::argmax;

/// The most rows of texts that the draft model catches up on in one step.
const CATCH_UP: usize = 256;

/// The most tokens by which vocabularies of one family differ: Qwen's are padded to multiples of 128 and 512.
const PADDING: usize = 512;

/// The draft model's KV cache takes at most one part in this many of the model's.
const MEMORY_SHARE: u64 = 4;

/// The parts of a draft model.
pub struct Draft<'a> {
    /// The draft model's weights.
    pub weights: &'a dyn Weights,
    /// The draft model's tokenizer, which must have the same tokens as the model's.
    pub tokenizer: &'a Tokenizer,
}

/// A draft model on the engine's thread, with a KV cache of its own.
pub(crate) struct DraftModel {
    runner: Box<dyn Forward>,
    kv: KvCache,
    texts: HashMap<u64, Text, FxBuildHasher>,
    batch: Batch,
    /// The costs of passes with one row for each sequence.
    pub(super) costs: Costs,
    /// Seconds per row of catching up on a text; 0 before the first time.
    pub(super) row_seconds: f64,
    /// Tokens that both models know.
    vocabulary: usize,
    steps: u64,
}

/// The draft model's cached tokens of a sequence.
struct Text {
    pages: PageTables,
    /// The number of the sequence's tokens in the cache. Drafts follow them.
    confirmed: usize,
    drafts: Vec<u32>,
    used: u64,
}

/// A wish for `count` drafts after `tokens`.
pub(super) struct Wish<'a> {
    pub(super) id: u64,
    pub(super) tokens: &'a [u32],
    pub(super) count: usize,
}

impl DraftModel {
    /// Checks that the draft model has the model's vocabulary, and allocates its cache. The model's own cache
    /// has `model_pages` pages of type `kind`.
    ///
    /// # Errors
    /// `InvalidArgument` for another vocabulary; `LimitExceeded` if the cache can't be allocated.
    pub(crate) fn new(
        draft: &Draft<'_>,
        weights: &dyn Weights,
        tokenizer: &Tokenizer,
        model_pages: usize,
        kind: CacheType,
    ) -> Result<Self, Error> {
        check_vocabulary(draft, tokenizer)?;
        let (own, model) = (draft.weights.config(), weights.config());
        let layout = own.cache_layout();
        let bytes = |weights: &dyn Weights| weights.page_bytes(kind).max(1) as u64;
        let memory = model_pages as u64 * bytes(weights) / MEMORY_SHARE;
        // As many tokens as the model's own cache holds. One sequence always fits.
        let tokens = model_pages / model.cache_layout().groups() * PAGE_TOKENS;
        let most = layout.groups() * tokens.div_ceil(PAGE_TOKENS);
        let least = pages_for(&layout, 2 * CATCH_UP, CATCH_UP);
        let pages = ((memory / bytes(draft.weights)) as usize).min(most).max(least);
        let runner = draft
            .weights
            .runner(pages, kind)
            .map_err(|e| Error::LimitExceeded(format!("the draft model: {e}")))?;
        let mut this = Self {
            kv: KvCache::new(layout, pages, false),
            runner,
            texts: HashMap::default(),
            batch: Batch::default(),
            costs: Costs::new(),
            row_seconds: 0.0,
            vocabulary: own.vocab.min(model.vocab),
            steps: 0,
        };
        this.measure()?;
        Ok(this)
    }

    /// The longest text that the draft model can continue, in tokens.
    pub(super) fn context(&self) -> usize {
        self.runner.config().context_length
    }

    /// The number of a text's tokens that the draft model has not read.
    pub(super) fn lag(&self, id: u64, tokens: usize) -> usize {
        tokens.saturating_sub(self.texts.get(&id).map_or(0, |text| text.confirmed))
    }

    /// Measures the time per token once on dummy input, so that the first sequence need not.
    fn measure(&mut self) -> Result<(), Error> {
        for _ in 0..4 {
            self.propose(&[Wish { id: u64::MAX, tokens: &[0], count: 3 }])?;
            self.forget(u64::MAX);
        }
        Ok(())
    }

    /// Returns the likeliest continuations; shorter ones or none where the draft model has to catch up first,
    /// or has no room.
    ///
    /// # Errors
    /// `Model` if a forward pass failed.
    pub(super) fn propose(&mut self, wishes: &[Wish<'_>]) -> Result<Vec<Vec<u32>>, Error> {
        self.steps += 1;
        let mut drafts: Vec<Vec<u32>> = wishes.iter().map(|_| Vec::new()).collect();
        let ready = self.catch_up(wishes, &mut drafts)?;
        let mut going: Vec<usize> = ready;
        loop {
            going.retain(|&i| drafts[i].len() < wishes[i].count && self.reserve(&wishes[i], 1));
            if going.is_empty() {
                return Ok(drafts);
            }
            let start = Instant::now();
            self.batch.clear();
            for &i in &going {
                let Some(text) = self.texts.get_mut(&wishes[i].id) else { continue };
                let last = *drafts[i].last().unwrap_or(&0);
                self.batch.push(&[last], text.len(), text.pages.groups(), Want::LastLogits);
                text.drafts.push(last);
            }
            self.run(&going, &mut drafts)?;
            self.costs.observe(going.len(), start.elapsed().as_secs_f64());
        }
    }

    /// Computes the tokens of the texts that the cache lacks, and their first drafts; returns the indices of
    /// the texts that have one.
    fn catch_up(&mut self, wishes: &[Wish<'_>], drafts: &mut [Vec<u32>]) -> Result<Vec<usize>, Error> {
        let (mut ready, mut budget) = (Vec::new(), CATCH_UP);
        let groups = self.runner.layout().groups();
        let start = Instant::now();
        self.batch.clear();
        for (i, wish) in wishes.iter().enumerate() {
            let steps = self.steps;
            let text = self.texts.entry(wish.id).or_insert_with(|| Text {
                pages: PageTables::new(groups, 0),
                confirmed: 0,
                drafts: Vec::new(),
                used: steps,
            });
            text.used = steps;
            // Accepted drafts are part of the text now.
            let right = text.drafts.iter().zip(&wish.tokens[text.confirmed..]).take_while(|(a, b)| a == b);
            // The last token is always computed, for its logits.
            let known = (text.confirmed + right.count()).min(wish.tokens.len() - 1);
            let held = text.len();
            text.confirmed = self.kv.truncate(&mut text.pages, known, held);
            text.drafts.clear();
            self.kv.slide(&mut text.pages, text.confirmed);
            let rows = (wish.tokens.len() - text.confirmed).min(budget);
            let unknown = |&token: &u32| token as usize >= self.vocabulary;
            let new = &wish.tokens[text.confirmed..][..rows];
            if rows == 0 || new.iter().any(unknown) || !self.reserve(wish, rows) {
                continue;
            }
            let Some(text) = self.texts.get_mut(&wish.id) else { continue };
            let (from, to) = (text.confirmed, text.confirmed + rows);
            let whole = to == wish.tokens.len();
            let want = if whole { Want::LastLogits } else { Want::Nothing };
            self.batch.push(&wish.tokens[from..to], from, text.pages.groups(), want);
            text.confirmed = to;
            budget -= rows;
            if whole {
                ready.push(i);
            }
        }
        let rows = self.batch.rows();
        if rows == 0 {
            return Ok(ready);
        }
        self.run(&ready, drafts)?;
        let seconds = start.elapsed().as_secs_f64();
        // With few rows it is a pass like the others.
        if rows <= 2 * wishes.len() {
            self.costs.observe(rows, seconds);
        } else {
            let row = seconds / rows as f64;
            self.row_seconds = if self.row_seconds == 0.0 { row } else { 0.8 * self.row_seconds + 0.2 * row };
        }
        Ok(ready)
    }

    /// Runs the batch. Its logits belong to `going`, in order, and give each one more draft.
    fn run(&mut self, going: &[usize], drafts: &mut [Vec<u32>]) -> Result<(), Error> {
        self.runner.forward(&self.batch).map_err(|e| Error::Model(format!("the draft model: {e}")))?;
        let vocab = self.runner.config().vocab;
        for (&i, logits) in going.iter().zip(self.runner.outputs().host().chunks_exact(vocab)) {
            drafts[i].push(argmax(&logits[..self.vocabulary]));
        }
        Ok(())
    }

    /// Gives a text pages for `rows` more tokens, if need be from the least recently used texts.
    fn reserve(&mut self, wish: &Wish<'_>, rows: usize) -> bool {
        loop {
            let Some(text) = self.texts.get_mut(&wish.id) else { return false };
            let (from, mut copies) = (text.len(), Vec::new());
            if from + rows > self.runner.config().context_length {
                return false;
            }
            if self.kv.reserve(&mut text.pages, from, from + rows, &mut copies).is_ok() {
                // Texts share no pages, so nothing has to be copied.
                debug_assert!(copies.is_empty());
                return true;
            }
            let idle = self.texts.iter().filter(|(_, text)| text.used < self.steps);
            let Some((&oldest, _)) = idle.min_by_key(|(id, text)| (text.used, **id)) else { return false };
            self.forget(oldest);
        }
    }

    /// Frees the pages of a sequence that no longer runs.
    pub(crate) fn forget(&mut self, id: u64) {
        if let Some(mut text) = self.texts.remove(&id) {
            self.kv.release(&mut text.pages);
        }
    }

    /// Panics unless every page is accounted for.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.kv.check(self.texts.values().map(|text| &text.pages));
    }
}

impl Text {
    /// The number of tokens in the cache.
    fn len(&self) -> usize {
        self.confirmed + self.drafts.len()
    }
}

fn check_vocabulary(draft: &Draft<'_>, tokenizer: &Tokenizer) -> Result<(), Error> {
    let refused = |why: String| {
        Err(Error::InvalidArgument(format!(
            "the draft model has another vocabulary ({why}); choose a smaller model of the same family"
        )))
    };
    let (own, model) = (draft.tokenizer.vocabulary_len(), tokenizer.vocabulary_len());
    // Within a family some vocabularies are padded to a round number.
    if own.abs_diff(model) > PADDING {
        return refused(format!("{own} tokens, and the model {model}"));
    }
    let spelled = |tokenizer: &Tokenizer, id: u32| {
        let mut bytes = Vec::new();
        // A token that spells nothing compares as empty.
        let _ = tokenizer.push_bytes(id, true, &mut bytes);
        bytes
    };
    match (0..own.min(model) as u32).find(|&id| spelled(draft.tokenizer, id) != spelled(tokenizer, id)) {
        Some(id) => refused(format!("token {id} is another one")),
        None => Ok(()),
    }
}
