//! The penalties for tokens that occurred before.

use std::collections::{HashMap, VecDeque};

use super::{Sampling, table_memory};

pub(crate) struct History {
    repetition: f32,
    frequency: f32,
    presence: f32,
    /// The last tokens, including the prompt's, and how often each occurs among them.
    recent: VecDeque<u32>,
    window: usize,
    in_window: HashMap<u32, u32>,
    /// The number of times that each token was generated.
    generated: HashMap<u32, u32>,
}

impl History {
    pub(crate) fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        let mut this = Self {
            repetition: sampling.repetition_penalty,
            frequency: sampling.frequency_penalty,
            presence: sampling.presence_penalty,
            recent: VecDeque::new(),
            window: sampling.repetition_window,
            in_window: HashMap::new(),
            generated: HashMap::new(),
        };
        if this.applies() {
            for &token in &prompt[prompt.len().saturating_sub(this.window)..] {
                this.remember(token);
            }
        }
        this
    }

    /// Bytes of memory that the history takes.
    pub(crate) fn memory(&self) -> usize {
        let counts = [&self.in_window, &self.generated];
        let counts = counts.map(|table| table_memory(table.capacity(), size_of::<(u32, u32)>()));
        self.recent.capacity() * size_of::<u32>() + counts.iter().sum::<usize>()
    }

    /// Returns whether any penalty is on.
    pub(crate) fn applies(&self) -> bool {
        self.repetition != 1.0 || self.frequency != 0.0 || self.presence != 0.0
    }

    pub(crate) fn push(&mut self, token: u32) {
        if self.applies() {
            *self.generated.entry(token).or_default() += 1;
            self.remember(token);
        }
    }

    fn remember(&mut self, token: u32) {
        self.recent.push_back(token);
        *self.in_window.entry(token).or_default() += 1;
        if self.recent.len() > self.window
            && let Some(old) = self.recent.pop_front()
            && let Some(count) = self.in_window.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.in_window.remove(&old);
            }
        }
    }

    pub(crate) fn penalize(&self, logits: &mut [f32]) {
        if self.repetition != 1.0 {
            for &token in self.in_window.keys() {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = self.repeated(*logit);
                }
            }
        }
        for (&token, &count) in &self.generated {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= self.generated(count);
            }
        }
    }

    /// Returns one token's logit as [`penalize`](Self::penalize) changes it.
    pub(crate) fn penalized(&self, token: u32, mut logit: f32) -> f32 {
        if self.repetition != 1.0 && self.in_window.contains_key(&token) {
            logit = self.repeated(logit);
        }
        self.generated.get(&token).map_or(logit, |&count| logit - self.generated(count))
    }

    fn repeated(&self, logit: f32) -> f32 {
        if logit > 0.0 { logit / self.repetition } else { logit * self.repetition }
    }

    fn generated(&self, count: u32) -> f32 {
        self.presence + self.frequency * count as f32
    }
}
