//! Speculative decoding (Leviathan et al., arXiv:2211.17192): drafts, tokens that may follow, are computed
//! along with the last token, since a pass of a few rows costs little more than one of a single row. Drafts
//! that turn out right are kept.
//!
//! - [`lookup`]: drafts from the text itself, where it repeats itself.
//! - [`draft`]: drafts from a small model of the same vocabulary.
//! - Tokens that a request's grammar forces come from its guide, and are always right.
//! - [`control`]: the number of drafts that pay.
//!
//! A draft is kept only if the request's own sampler chooses that very token from the logits of the row
//! before it. So a text is the same bit for bit with and without drafts, including sampled texts with a seed:
//! drafts change only when a token comes. A new kind of draft is one more [`Source`]: it needs tokens and a
//! probability for each.

mod control;
mod draft;
mod lookup;

use std::str::FromStr;
use std::time::{Duration, Instant};

pub use draft::Draft;
pub(crate) use draft::DraftModel;

use crate::Error;
use control::{Candidate, Chance, MOST_ROWS};
pub(crate) use control::{Costs, MOST_DRAFTS};
use draft::Wish;
use lookup::Lookup;

/// The source of drafts: tokens that are computed on the chance that they follow. The text is the same with
/// and without drafts. Each source is used only while it measurably speeds texts up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Speculation {
    /// Takes drafts from every source, including tokens that a request's grammar forces.
    #[default]
    Auto,
    /// Makes no drafts.
    Off,
    /// Takes drafts from prompt lookup alone: tokens that followed the last tokens earlier in the prompt or
    /// in the text.
    Lookup,
    /// Takes drafts from the draft model alone.
    Draft,
}

impl FromStr for Speculation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            "lookup" => Ok(Self::Lookup),
            "draft" => Ok(Self::Draft),
            _ => {
                let why = format!("speculation `{name}`; it can be auto, off, lookup or draft");
                Err(Error::InvalidArgument(why))
            }
        }
    }
}

/// Probabilities of looked-up drafts before any observation, by the number of tokens that match before the
/// draft. They are low where a try would cost more than it teaches: look-ups are observed whether they are
/// used or not.
const PRIORS: [(usize, f32); 8] =
    [(0, 0.2), (1, 0.2), (2, 0.1), (3, 0.2), (4, 0.4), (6, 0.6), (9, 0.8), (16, 0.9)];

/// The probability that a draft model is right before any observation.
const DRAFT_PRIOR: f32 = 0.7;

/// A draft model that did not pay is tried again after this many times the cost of a try.
const RETRY: f64 = 300.0;

/// A text lags if the draft model has to catch up on more tokens than one step adds.
const LAGS: usize = MOST_DRAFTS + 2;

/// The drafting state of one sequence.
pub(crate) struct Speculator {
    lookup: Option<Box<LookupState>>,
    draft: Option<DraftState>,
    /// True if drafts may come from tokens that a grammar forces.
    wants_forced: bool,
    /// Tokens that must follow.
    forced: Vec<u32>,
}

impl Speculator {
    /// Bytes of memory that the state takes.
    pub(crate) fn memory(&self) -> usize {
        self.lookup.as_ref().map_or(0, |state| size_of::<LookupState>() + state.index.memory())
    }
}

struct LookupState {
    index: Lookup,
    /// For each class of [`PRIORS`].
    chances: [Chance; PRIORS.len()],
    /// The tokens that follow if the text continues as the passage does, and the number of tokens that match
    /// before them.
    proposal: Vec<u32>,
    matched: usize,
}

struct DraftState {
    chance: Chance,
    used: Option<Instant>,
    /// True if the drafts of this step are the draft model's.
    asked: bool,
    /// True while the draft model is still reading the text.
    reads: bool,
}

/// The source of a sequence's next drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Lookup,
    Forced,
    Draft,
}

/// The engine's state for drafts.
pub(crate) struct Drafting {
    pub(crate) costs: Costs,
    pub(crate) model: Option<DraftModel>,
    /// A fixed number of drafts for each sequence, whatever it costs.
    pub(crate) fixed: Option<usize>,
}

/// A sequence that decodes one row in the next pass, and may have drafts.
pub(crate) struct Speculating<'a> {
    pub(crate) id: u64,
    pub(crate) tokens: &'a [u32],
    /// The most drafts that there is room for.
    pub(crate) room: usize,
    pub(crate) speculator: &'a mut Speculator,
    /// The drafts that were chosen.
    pub(crate) drafts: &'a mut Vec<u32>,
}

impl Speculator {
    /// Creates the state for a request that wants drafts of this kind, on an engine with a draft model or
    /// without.
    pub(crate) fn new(kind: Speculation, draft_model: bool) -> Option<Self> {
        let lookup = matches!(kind, Speculation::Auto | Speculation::Lookup);
        let draft = draft_model && matches!(kind, Speculation::Auto | Speculation::Draft);
        (lookup || draft).then(|| Self {
            wants_forced: kind == Speculation::Auto,
            forced: Vec::new(),
            lookup: lookup.then(|| {
                Box::new(LookupState {
                    index: Lookup::default(),
                    chances: PRIORS.map(|(_, prior)| Chance::new(prior)),
                    proposal: Vec::new(),
                    matched: 0,
                })
            }),
            draft: draft.then(|| DraftState {
                chance: Chance::new(DRAFT_PRIOR),
                used: None,
                asked: false,
                reads: false,
            }),
        })
    }

    /// Looks up the end of the text. The result is compared with the next tokens even if it is not used as
    /// drafts.
    pub(crate) fn look_up(&mut self, tokens: &[u32]) {
        let Some(lookup) = &mut self.lookup else { return };
        lookup.proposal.clear();
        if let Some(found) = lookup.index.find(tokens) {
            lookup.proposal = lookup::continuation(tokens, found.at, MOST_DRAFTS);
            lookup.matched = found.matched;
        }
    }

    /// Records the tokens that a grammar forces, if they are used.
    pub(crate) fn force(&mut self, tokens: impl FnOnce() -> Vec<u32>) {
        if self.wants_forced {
            self.forced = tokens();
        }
    }

    /// Compares drafts with the tokens that came.
    pub(crate) fn observe(&mut self, drafts: &[u32], tokens: &[u32]) {
        let forced = std::mem::take(&mut self.forced).len();
        if let Some(lookup) = &mut self.lookup {
            for (i, (draft, token)) in lookup.proposal.iter().zip(tokens).enumerate() {
                // Where the grammar forced a token, a correct look-up says nothing about others.
                if i >= forced {
                    lookup.chances[class(lookup.matched + i)].observe(draft == token);
                }
                if draft != token {
                    break;
                }
            }
            lookup.proposal.clear();
        }
        if let Some(state) = &mut self.draft
            && std::mem::take(&mut state.asked)
        {
            for (draft, token) in drafts.iter().zip(tokens) {
                state.chance.observe(draft == token);
                if draft != token {
                    break;
                }
            }
        }
    }
}

/// The class of [`PRIORS`] for the number of tokens that match.
fn class(matched: usize) -> usize {
    PRIORS.iter().rposition(|&(least, _)| least <= matched).unwrap_or(0)
}

impl LookupState {
    /// For each of the first `room` tokens of the proposal, the probability that it and all before it are
    /// right, if the first `certain` ones are.
    fn chances(&self, room: usize, certain: usize) -> Vec<f64> {
        let count = self.proposal.len().min(room);
        let chance = |i| if i < certain { 1.0 } else { self.chances[class(self.matched + i)].get() };
        let chances = (0..count).map(|i| f64::from(chance(i)));
        chances
            .scan(1.0, |all, chance| {
                *all *= chance;
                Some(*all)
            })
            .collect()
    }
}

impl Drafting {
    pub(crate) fn new(model: Option<DraftModel>, fixed: Option<usize>) -> Self {
        Self { costs: Costs::new(), model, fixed }
    }

    /// Gives sequences their drafts for a pass that has `rows` rows without any.
    ///
    /// # Errors
    /// `Model` if the draft model failed; its drafts are then left out.
    pub(crate) fn propose(
        &mut self,
        mut sequences: Vec<Speculating<'_>>,
        rows: usize,
        now: Instant,
    ) -> Result<(), Error> {
        let sourced: Vec<(Source, Vec<f64>)> =
            sequences.iter_mut().map(|sequence| self.source(sequence, now)).collect();
        let candidates: Vec<Candidate> = sourced
            .iter()
            .map(|(source, chances)| Candidate { chances: chances.clone(), costs: *source == Source::Draft })
            .collect();
        let counts = match (self.fixed, &self.model) {
            (Some(fixed), _) => {
                let mut left = MOST_ROWS;
                let take = |candidate: &Candidate| {
                    let count = candidate.chances.len().min(fixed).min(left);
                    left -= count;
                    count
                };
                candidates.iter().map(take).collect()
            }
            (None, Some(model)) => control::plan(&candidates, rows, &self.costs, &model.costs),
            (None, None) => control::plan(&candidates, rows, &self.costs, &Costs::new()),
        };
        let mut asking = Vec::new();
        for ((sequence, (source, _)), count) in sequences.into_iter().zip(sourced).zip(counts) {
            match source {
                _ if count == 0 => {}
                Source::Lookup => {
                    if let Some(lookup) = &sequence.speculator.lookup {
                        sequence.drafts.extend_from_slice(&lookup.proposal[..count]);
                    }
                }
                Source::Forced => sequence.drafts.extend_from_slice(&sequence.speculator.forced[..count]),
                Source::Draft => asking.push((sequence, count)),
            }
        }
        let Some(model) = self.model.as_mut().filter(|_| !asking.is_empty()) else { return Ok(()) };
        let wishes: Vec<Wish<'_>> =
            asking.iter().map(|(s, count)| Wish { id: s.id, tokens: s.tokens, count: *count }).collect();
        let drafts = model.propose(&wishes)?;
        for ((sequence, _), drafts) in asking.into_iter().zip(drafts) {
            if let Some(state) = &mut sequence.speculator.draft {
                state.used = Some(now);
                (state.asked, state.reads) = (!drafts.is_empty(), drafts.is_empty());
            }
            *sequence.drafts = drafts;
        }
        Ok(())
    }

    /// Drops the draft model's state of a sequence that no longer runs.
    pub(crate) fn forget(&mut self, id: u64) {
        if let Some(model) = &mut self.model {
            model.forget(id);
        }
    }

    /// Returns the source of a sequence's drafts, and their probabilities.
    fn source(&self, sequence: &mut Speculating<'_>, now: Instant) -> (Source, Vec<f64>) {
        let (forced, lookup) = (&sequence.speculator.forced, &sequence.speculator.lookup);
        if !forced.is_empty() {
            // A look-up may continue beyond the forced tokens.
            return match lookup.as_ref().filter(|lookup| lookup.proposal.starts_with(forced)) {
                Some(lookup) => (Source::Lookup, lookup.chances(sequence.room, forced.len())),
                None => (Source::Forced, vec![1.0; forced.len().min(sequence.room)]),
            };
        }
        let looked_up = lookup.as_ref().map(|lookup| lookup.chances(sequence.room, 0)).unwrap_or_default();
        let drafted = self.draft_chances(sequence, now);
        if drafted.first() > looked_up.first() {
            (Source::Draft, drafted)
        } else {
            (Source::Lookup, looked_up)
        }
    }

    /// Returns the probabilities of the draft model's tokens; none while it should not be asked.
    fn draft_chances(&self, sequence: &mut Speculating<'_>, now: Instant) -> Vec<f64> {
        let (Some(model), Some(state)) = (&self.model, &mut sequence.speculator.draft) else {
            return Vec::new();
        };
        let room = sequence.room.min(model.context().saturating_sub(sequence.tokens.len()));
        if self.fixed.is_none()
            && !state.reads
            && let Some(used) = state.used
        {
            // The draft model may have been asked in vain, and the text went on without it.
            let lag = model.lag(sequence.id, sequence.tokens.len());
            let cost = if lag > LAGS { model.row_seconds * lag as f64 } else { 0.0 };
            let idle = now.saturating_duration_since(used);
            let may = |cost: f64| idle >= Duration::from_secs_f64(cost * RETRY);
            if may(cost + model.costs.seconds(1).unwrap_or(0.0)) {
                state.chance.reset();
            } else if cost > 0.0 {
                return Vec::new();
            }
        }
        let chance = f64::from(state.chance.get());
        (1..=room as i32).map(|n| chance.powi(n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_computed_along_is_observed_all_the_same() {
        let mut speculator = Speculator::new(Speculation::Lookup, false).unwrap();
        let text: Vec<u32> = (0..40).chain(0..40).chain(0..40).collect();
        let chance =
            |speculator: &Speculator| speculator.lookup.as_ref().unwrap().chances(4, 0).first().copied();
        speculator.look_up(&text[..43]);
        let first = chance(&speculator);
        for end in 43..100 {
            speculator.look_up(&text[..end]);
            speculator.observe(&[], &text[end..=end]);
        }
        speculator.look_up(&text[..100]);
        assert!(first < Some(0.3) && chance(&speculator) > Some(0.95), "{first:?} {:?}", chance(&speculator));
    }

    #[test]
    fn kinds_that_there_is_nothing_for_are_none() {
        assert!(Speculator::new(Speculation::Off, true).is_none());
        assert!(Speculator::new(Speculation::Draft, false).is_none());
        assert!(Speculator::new(Speculation::Auto, false).is_some());
    }
}
