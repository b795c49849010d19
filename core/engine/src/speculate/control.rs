//! The number of drafts that pay, by how often drafts were right and by the cost of a forward pass with that
//! many rows.
//!
//! Useless drafts cost time of all sequences in the batch. The drafts of a pass are therefore chosen for the
//! largest product of all sequences' tokens per second (proportional fairness): for a sequence alone that is
//! its own speed, and in a batch no sequence is slowed down for a smaller gain of another. On a processor
//! that is busy with the rows that have to be computed anyway, the best number is soon 0.

/// The most drafts of one sequence in one pass.
pub(crate) const MOST_DRAFTS: usize = 15;

/// The most drafts of all sequences in one pass: each row has a whole vocabulary of logits.
pub(super) const MOST_ROWS: usize = 32;

/// The least relative gain of drafts, so that measurement errors do not switch them on.
const MARGIN: f64 = 0.02;

/// The observed probability that a draft is right, over the latest 20 or so, beginning with a prior.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chance {
    prior: f32,
    right: f32,
    tries: f32,
}

impl Chance {
    /// The number of observations that the prior is worth.
    const PRIOR_TRIES: f32 = 2.0;
    const DECAY: f32 = 0.95;

    pub(super) const fn new(prior: f32) -> Self {
        Self { prior, right: prior * Self::PRIOR_TRIES, tries: Self::PRIOR_TRIES }
    }

    pub(super) fn get(&self) -> f32 {
        self.right / self.tries
    }

    pub(super) fn observe(&mut self, right: bool) {
        self.right = self.right * Self::DECAY + f32::from(u8::from(right));
        self.tries = self.tries * Self::DECAY + 1.0;
    }

    /// Forgets all observations.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.prior);
    }
}

/// Seconds of a forward pass by its number of rows, learned while it runs.
///
/// Each number of rows has a factor on a curve that is about right for two cores. The factors are learned
/// from passes with that many rows. Between measurements the factors are interpolated, and beyond them the
/// nearest one holds.
pub(crate) struct Costs {
    /// `[rows]`: the factor, and its number of observations.
    factors: Vec<(f64, f64)>,
}

impl Costs {
    /// The most rows that have a factor of their own.
    const ROWS: usize = 64;
    /// The most observations that an average covers, and the number from which a measurement counts as
    /// settled.
    const OBSERVATIONS: f64 = 12.0;
    const SETTLED: f64 = 3.0;
    /// The factor by which the weight of a measurement falls with each pass of another number of rows, so
    /// that a wrong one is not kept.
    const AGING: f64 = 0.9995;

    pub(super) fn new() -> Self {
        Self { factors: vec![(0.0, 0.0); Self::ROWS + 1] }
    }

    fn curve(rows: usize) -> f64 {
        1.0 + 0.12 * (rows.saturating_sub(1)) as f64
    }

    /// Records that a pass of `rows` rows took `seconds`.
    pub(crate) fn observe(&mut self, rows: usize, seconds: f64) {
        if !(1..=Self::ROWS).contains(&rows) {
            return;
        }
        let factor = seconds / Self::curve(rows);
        let (old, count) = self.factors[rows];
        let settled = count >= Self::SETTLED;
        // A value that is far off was probably interrupted by another program.
        let factor = if settled { factor.clamp(old / 2.0, old * 2.0) } else { factor };
        if settled {
            // Longer contexts and other programs slow all passes down alike, and only their ratios matter.
            let drift = (factor / old).sqrt();
            self.factors.iter_mut().for_each(|f| f.0 *= drift);
        }
        self.factors.iter_mut().for_each(|f| f.1 *= Self::AGING);
        let count = (count + 1.0).min(Self::OBSERVATIONS);
        let (old, _) = self.factors[rows];
        self.factors[rows] = (old + (factor - old) / count, count);
    }

    /// Seconds that a pass of `rows` rows takes; `None` before the first one.
    pub(super) fn seconds(&self, rows: usize) -> Option<f64> {
        let measured = |&at: &usize| self.factors[at].1 > 0.5;
        let at = rows.min(Self::ROWS);
        let below = (1..=at).rev().find(measured);
        let above = (at..=Self::ROWS).find(measured);
        let factor = match (below, above) {
            (Some(below), Some(above)) if below < above => {
                let share = (at - below) as f64 / (above - below) as f64;
                self.factors[below].0 * (1.0 - share) + self.factors[above].0 * share
            }
            (Some(one), _) | (None, Some(one)) => self.factors[one].0,
            (None, None) => return None,
        };
        Some(factor * Self::curve(rows))
    }
}

/// A sequence that has drafts, or could have some.
pub(super) struct Candidate {
    /// For each draft, the probability that it and all before it are right.
    pub(super) chances: Vec<f64>,
    /// True if a draft model would have to compute the drafts first.
    pub(super) costs: bool,
}

/// Returns how many drafts each candidate should have in a pass that computes `rows` rows anyway.
pub(super) fn plan(candidates: &[Candidate], rows: usize, costs: &Costs, draft: &Costs) -> Vec<usize> {
    let mut chosen = vec![0; candidates.len()];
    let mut tokens = vec![1.0f64; candidates.len()];
    let (mut best, mut best_value) = (chosen.clone(), MARGIN);
    let Some(alone) = costs.seconds(rows) else { return chosen };
    let mut gained = 0.0;
    for drafts in 1..=MOST_ROWS {
        // The next draft is the one with the largest relative gain for its own sequence.
        let gain = |i: usize| {
            let chance = candidates[i].chances.get(chosen[i])?;
            Some((1.0 + chance / tokens[i]).ln())
        };
        let next = (0..candidates.len())
            .filter_map(|i| Some((i, gain(i)?)))
            .reduce(|best, other| if other.1 > best.1 { other } else { best });
        let Some((next, gain)) = next else { break };
        tokens[next] += candidates[next].chances[chosen[next]];
        chosen[next] += 1;
        gained += gain;
        let with_model = || chosen.iter().zip(candidates).filter(|(n, c)| **n > 0 && c.costs);
        let passes = with_model().map(|(&n, _)| n).max().unwrap_or(0);
        let mut seconds = costs.seconds(rows + drafts).unwrap_or(f64::INFINITY);
        if passes > 0 {
            seconds += passes as f64 * draft.seconds(with_model().count()).unwrap_or(f64::INFINITY);
        }
        let value = gained - rows as f64 * (seconds / alone).ln();
        if value > best_value {
            (best_value, best) = (value, chosen.clone());
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(seconds: impl Fn(usize) -> f64) -> Costs {
        let mut costs = Costs::new();
        for _ in 0..20 {
            (1..=64).for_each(|rows| costs.observe(rows, seconds(rows)));
        }
        costs
    }

    fn candidate(chance: f64) -> Candidate {
        Candidate { chances: (1..=MOST_DRAFTS as i32).map(|n| chance.powi(n)).collect(), costs: false }
    }

    /// Seconds of a pass on two cores: the fixed part outweighs a few rows.
    fn processor(rows: usize) -> f64 {
        0.004 + 0.0006 * rows as f64
    }

    #[test]
    fn drafts_are_as_many_as_pay() {
        let (costs, none) = (costs(processor), Costs::new());
        let drafts = |chance| plan(&[candidate(chance)], 1, &costs, &none)[0];
        assert_eq!(drafts(0.05), 0);
        assert!((1..6).contains(&drafts(0.5)), "{}", drafts(0.5));
        assert!(drafts(0.97) > 7, "{}", drafts(0.97));
    }

    #[test]
    fn a_busy_processor_has_no_time_for_drafts() {
        // 24 sequences, half of which have drafts that are nearly always right.
        let candidates: Vec<Candidate> = (0..12).map(|_| candidate(0.9)).collect();
        let linear = costs(|rows| 0.001 * rows as f64);
        assert_eq!(plan(&candidates, 24, &linear, &Costs::new()), [0; 12]);
        // A sequence that gains little is not worth the others' time.
        assert_eq!(plan(&[candidate(0.6)], 12, &costs(processor), &Costs::new()), [0]);
    }

    #[test]
    fn a_draft_model_that_costs_too_much_is_not_asked() {
        let costs = costs(processor);
        let with_model = || [Candidate { costs: true, ..candidate(0.8) }];
        let draft = |seconds: f64| self::costs(|_| seconds);
        assert_eq!(plan(&with_model(), 1, &costs, &draft(0.004)), [0]);
        assert!(plan(&with_model(), 1, &costs, &draft(0.0004))[0] > 1);
    }

    #[test]
    fn costs_follow_the_machine_and_fill_gaps() {
        let mut costs = Costs::new();
        assert_eq!(costs.seconds(1), None);
        for _ in 0..20 {
            costs.observe(1, 0.010);
            costs.observe(9, 0.030);
        }
        let five = costs.seconds(5).unwrap();
        assert!((0.010..0.030).contains(&five), "{five}");
        // All passes take twice as long, but only one row is measured.
        (0..100).for_each(|_| costs.observe(1, 0.020));
        assert!(costs.seconds(9).unwrap() > 0.045);
        // A single interruption changes little about their ratio.
        let ratio = |costs: &Costs| costs.seconds(9).unwrap() / costs.seconds(1).unwrap();
        let before = ratio(&costs);
        costs.observe(1, 1.0);
        assert!((0.9..1.1).contains(&(ratio(&costs) / before)));
    }
}
