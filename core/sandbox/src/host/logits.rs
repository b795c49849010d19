//! From logits to tokens.

use std::sync::Arc;

use realm_engine::{Guide, TokenMask, log_sum_exp, top};
use wasmtime::component::Resource;

use crate::Error;
use crate::bindings::realm::tenant::logits::{self as wit, Candidate};
use crate::bindings::realm::tenant::types;
use crate::budget::Charge;
use crate::convert::{grammar_from_wit, sampling_from_wit};
use crate::error::HostError;
use crate::handles::{Logits, Matcher, Model, Sampler, TokenSet};
use crate::host::models::unknown_token;
use crate::request::json_bound;
use crate::state::State;

/// The most bytes of a regular expression.
const MAX_EXPRESSION: usize = 64 << 10;

/// The number of dropped logits whose memory is kept.
const SPARE: usize = 2;

/// The most tokens that `top` returns.
const MAX_TOP: usize = 1 << 16;

impl State {
    /// Creates a handle of logits.
    pub(crate) fn new_logits(&mut self, logits: realm_engine::Logits) -> Result<Resource<Logits>, HostError> {
        // Charged in full, even if most of the logits are still on the device: they are copied when the
        // program asks for them.
        let charge = self.charge_logits(logits.vocabulary())?;
        Ok(self.table.push(Logits { inner: logits, charge })?)
    }

    /// Creates handles of logits that were charged for before they were computed.
    pub(crate) fn new_logits_rows(
        &mut self,
        rows: impl IntoIterator<Item = realm_engine::Logits>,
        mut charge: Charge,
    ) -> Result<Vec<Resource<Logits>>, HostError> {
        let create = |inner: realm_engine::Logits| {
            let charge = charge.split(inner.vocabulary() * size_of::<f32>());
            Ok(self.table.push(Logits { inner, charge })?)
        };
        rows.into_iter().map(create).collect()
    }

    /// Charges for `logits` logits; gives up memory that is kept for later if it is needed.
    pub(crate) fn charge_logits(&mut self, logits: usize) -> Result<Charge, Error> {
        let bytes = logits.saturating_mul(size_of::<f32>());
        self.context.budget.charge(bytes).or_else(|error| {
            if self.spare.is_empty() {
                return Err(error);
            }
            self.spare.clear();
            self.context.budget.charge(bytes)
        })
    }

    fn logits(&mut self, this: &Resource<Logits>) -> Result<&mut realm_engine::Logits, HostError> {
        Ok(&mut self.table.get_mut(this)?.inner)
    }

    /// Returns all logits, on the host.
    fn values(&mut self, this: &Resource<Logits>) -> Result<&mut Vec<f32>, HostError> {
        Ok(self.logits(this)?.values()?)
    }

    /// Calls `act` with a handle's logits and the rest of the state.
    fn with_logits<T>(
        &mut self,
        this: &Resource<Logits>,
        act: impl FnOnce(&mut Self, &mut realm_engine::Logits) -> T,
    ) -> Result<T, HostError> {
        let empty = realm_engine::Logits::new(Vec::new());
        let mut logits = std::mem::replace(self.logits(this)?, empty);
        let result = act(self, &mut logits);
        *self.logits(this)? = logits;
        Ok(result)
    }

    /// Calls [`mask`] with the set behind a handle.
    fn mask_logits(
        &mut self,
        this: &Resource<Logits>,
        set: &Resource<TokenSet>,
        banned: bool,
    ) -> Result<(), HostError> {
        self.with_logits(this, |state, logits| {
            let tokens = &state.table.get(set)?.tokens;
            same_vocabulary(tokens.len(), logits.vocabulary())?;
            mask(logits.values()?, tokens, banned);
            Ok(())
        })?
    }
}

/// Sets the logits of the tokens in the set, or with `banned` false of all others, to -infinity.
pub(crate) fn mask(values: &mut [f32], tokens: &TokenMask, banned: bool) {
    for (token, value) in values.iter_mut().enumerate() {
        if tokens.allows(token as u32) == banned {
            *value = f32::NEG_INFINITY;
        }
    }
}

fn same_vocabulary(one: usize, other: usize) -> Result<(), Error> {
    if one == other {
        return Ok(());
    }
    Err(Error::invalid(format!("vocabularies of {one} and {other} tokens: these are of different models")))
}

fn same_length(given: usize, vocabulary: usize) -> Result<(), Error> {
    if given == vocabulary {
        return Ok(());
    }
    Err(Error::invalid(format!("{given} logits for a vocabulary of {vocabulary}")))
}

/// For calls that have no error in the contract: an error ends the run.
fn or_trap<T>(result: Result<T, HostError>) -> wasmtime::Result<T> {
    result.map_err(HostError::fatal)
}

fn log_normalizer(values: &[f32]) -> f32 {
    log_sum_exp(values) as f32
}

impl wit::Host for State {}

impl wit::HostLogits for State {
    fn vocabulary(&mut self, this: Resource<Logits>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&this)?.inner.vocabulary() as u32)
    }

    fn get(&mut self, this: Resource<Logits>, token: u32) -> Result<f32, HostError> {
        let logits = self.logits(&this)?;
        Ok(logits.get(token)?.ok_or_else(|| unknown_token(token, logits.vocabulary()))?)
    }

    fn top(&mut self, this: Resource<Logits>, k: u32) -> wasmtime::Result<Vec<Candidate>> {
        let logits = or_trap(self.logits(&this))?;
        let k = (k as usize).min(logits.vocabulary()).min(MAX_TOP);
        let top_k = match logits.top_k(k) {
            Some(few) => few,
            None => top(or_trap(self.values(&this))?, k),
        };
        Ok(top_k.into_iter().map(|(token, logit)| Candidate { token, logit }).collect())
    }

    fn argmax(&mut self, this: Resource<Logits>) -> wasmtime::Result<u32> {
        or_trap(or_trap(self.logits(&this))?.argmax().map_err(HostError::from))
    }

    fn log_normalizer(&mut self, this: Resource<Logits>) -> wasmtime::Result<f32> {
        Ok(log_normalizer(or_trap(self.values(&this))?))
    }

    fn logprob(&mut self, this: Resource<Logits>, token: u32) -> Result<f32, HostError> {
        let values = self.values(&this)?;
        let logit = values.get(token as usize).ok_or_else(|| unknown_token(token, values.len()))?;
        Ok(logit - log_normalizer(values))
    }

    fn entropy(&mut self, this: Resource<Logits>) -> wasmtime::Result<f32> {
        let values = or_trap(self.values(&this))?;
        let normalizer = log_normalizer(values);
        let terms = values.iter().map(|&value| {
            let logprob = f64::from(value - normalizer);
            if logprob > f64::from(f32::MIN) { -logprob.exp() * logprob } else { 0.0 }
        });
        Ok(terms.sum::<f64>() as f32)
    }

    fn read(&mut self, this: Resource<Logits>) -> wasmtime::Result<Vec<f32>> {
        Ok(or_trap(self.values(&this))?.to_vec())
    }

    fn write(&mut self, this: Resource<Logits>, values: Vec<f32>) -> Result<(), HostError> {
        let old = self.logits(&this)?;
        same_length(values.len(), old.vocabulary())?;
        *old = realm_engine::Logits::new(values);
        Ok(())
    }

    fn bias(&mut self, this: Resource<Logits>, biases: Vec<(u32, f32)>) -> Result<(), HostError> {
        let values = self.values(&this)?;
        if let Some(&(token, _)) = biases.iter().find(|&&(token, _)| token as usize >= values.len()) {
            return Err(unknown_token(token, values.len()).into());
        }
        if let Some((token, bias)) = biases.iter().find(|(_, bias)| !bias.is_finite()) {
            return Err(Error::invalid(format!("the bias of token {token} is {bias}")).into());
        }
        for (token, bias) in biases {
            values[token as usize] += bias;
        }
        Ok(())
    }

    fn ban(&mut self, this: Resource<Logits>, tokens: Resource<TokenSet>) -> Result<(), HostError> {
        self.mask_logits(&this, &tokens, true)
    }

    fn keep(&mut self, this: Resource<Logits>, tokens: Resource<TokenSet>) -> Result<(), HostError> {
        self.mask_logits(&this, &tokens, false)
    }

    fn scale(&mut self, this: Resource<Logits>, scale: f32) -> wasmtime::Result<()> {
        or_trap(self.values(&this))?.iter_mut().for_each(|value| *value *= scale);
        Ok(())
    }

    fn add(&mut self, this: Resource<Logits>, other: Resource<Logits>, scale: f32) -> Result<(), HostError> {
        if this.rep() == other.rep() {
            self.values(&this)?.iter_mut().for_each(|value| *value += *value * scale);
            return Ok(());
        }
        self.with_logits(&this, |state, logits| {
            let added = state.logits(&other)?;
            same_vocabulary(logits.vocabulary(), added.vocabulary())?;
            let (values, added) = (logits.values()?, added.values()?);
            values.iter_mut().zip(added).for_each(|(value, added)| *value += *added * scale);
            Ok(())
        })?
    }

    fn copy(&mut self, this: Resource<Logits>) -> Result<Resource<Logits>, HostError> {
        // Charged first, so that only sets with a charge are created.
        let vocabulary = self.logits(&this)?.vocabulary();
        let charge = self.charge_logits(vocabulary)?;
        let inner = realm_engine::Logits::new(self.values(&this)?.to_vec());
        Ok(self.table.push(Logits { inner, charge })?)
    }

    fn drop(&mut self, this: Resource<Logits>) -> wasmtime::Result<()> {
        let Logits { inner, charge } = self.table.delete(this)?;
        if self.spare.len() < SPARE
            && let Some(values) = inner.into_memory()
        {
            self.spare.push((values, charge));
        }
        Ok(())
    }
}

impl wit::HostTokenSet for State {
    fn of(&mut self, model: Resource<Model>, tokens: Vec<u32>) -> Result<Resource<TokenSet>, HostError> {
        let vocabulary = self.model(&model)?.vocabulary();
        let charge = self.context.budget.charge(vocabulary / 8)?;
        let mut set = TokenMask::none(vocabulary);
        for token in tokens {
            if token as usize >= vocabulary {
                return Err(unknown_token(token, vocabulary).into());
            }
            set.allow(token);
        }
        Ok(self.table.push(TokenSet { tokens: set, _charge: charge })?)
    }

    async fn matching(
        &mut self,
        model: Resource<Model>,
        expression: String,
    ) -> Result<Resource<TokenSet>, HostError> {
        let model = Arc::clone(self.model(&model)?);
        let vocabulary = model.vocabulary();
        let charge = self.context.budget.charge(vocabulary / 8)?;
        self.context.budget.turn.step_aside(usize::MAX).await;
        if expression.len() > MAX_EXPRESSION {
            let why = format!("an expression of {} bytes; at most {MAX_EXPRESSION}", expression.len());
            return Err(Error::limit(why).into());
        }
        let regex = regex::bytes::RegexBuilder::new(&expression)
            .size_limit(1 << 20)
            .dfa_size_limit(1 << 20)
            .build()
            .map_err(|error| Error::invalid(format!("the expression: {error}")))?;
        let mut set = TokenMask::none(vocabulary);
        let mut bytes = Vec::new();
        for token in 0..model.tokenizer.vocabulary_len().min(vocabulary) as u32 {
            bytes.clear();
            model.tokenizer.push_bytes(token, false, &mut bytes)?;
            if regex.is_match(&bytes) {
                set.allow(token);
            }
            if token % 64 == 0 {
                self.yield_if_due().await?;
            }
        }
        Ok(self.table.push(TokenSet { tokens: set, _charge: charge })?)
    }

    fn contains(&mut self, this: Resource<TokenSet>, token: u32) -> wasmtime::Result<bool> {
        Ok(self.table.get(&this)?.tokens.allows(token))
    }

    fn len(&mut self, this: Resource<TokenSet>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&this)?.tokens.count() as u32)
    }

    fn drop(&mut self, this: Resource<TokenSet>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit::HostSampler for State {
    fn open(
        &mut self,
        model: Resource<Model>,
        sampling: types::Sampling,
        prompt: Vec<u32>,
    ) -> Result<Resource<Sampler>, HostError> {
        let vocabulary = self.model(&model)?.vocabulary();
        let sampling = sampling_from_wit(sampling);
        sampling.check(vocabulary)?;
        if let Some(&token) = prompt.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(unknown_token(token, vocabulary).into());
        }
        let given = sampling.memory() + size_of::<Sampler>();
        // A history of the prompt has a table of its tokens, too.
        drop(self.context.budget.charge(given + 32 * prompt.len())?);
        let charge = self.context.budget.charge(given)?;
        let inner = realm_engine::Sampler::new(sampling, &prompt);
        let mut sampler = Sampler { inner, vocabulary, given, charge };
        sampler.settle()?;
        Ok(self.table.push(sampler)?)
    }

    fn sample(&mut self, this: Resource<Sampler>, logits: Resource<Logits>) -> Result<u32, HostError> {
        let token = self.with_logits(&logits, |state, logits| {
            let sampler = state.table.get_mut(&this)?;
            Ok::<_, HostError>(sampler.act(|sampler| logits.sample(sampler, None))??)
        })??;
        Ok(token.ok_or_else(|| Error::invalid("no token is left to choose"))?)
    }

    fn sample_matching(
        &mut self,
        this: Resource<Sampler>,
        logits: Resource<Logits>,
        matcher: Resource<Matcher>,
    ) -> Result<u32, HostError> {
        let token = self.with_logits(&logits, |state, logits| {
            let mask = state.table.get_mut(&matcher)?.guide()?.mask()?.clone();
            let sampler = state.table.get_mut(&this)?;
            Ok::<_, HostError>(sampler.act(|sampler| logits.sample(sampler, Some(&mask)))??)
        })??;
        let none = || Error::invalid("every token that the grammar allows here is banned");
        let token = token.ok_or_else(none)?;
        let guide = self.table.get_mut(&matcher)?.guide()?;
        guide.accept(token)?;
        // The mask is computed during the next forward pass.
        guide.start_mask();
        Ok(token)
    }

    fn observe(&mut self, this: Resource<Sampler>, token: u32) -> wasmtime::Result<()> {
        let sampler = self.table.get_mut(&this)?;
        if token as usize >= sampler.vocabulary {
            return or_trap(Err(unknown_token(token, sampler.vocabulary).into()));
        }
        or_trap(sampler.act(|sampler| sampler.observe(token)).map_err(HostError::from))
    }

    fn drop(&mut self, this: Resource<Sampler>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit::HostMatcher for State {
    async fn open(
        &mut self,
        model: Resource<Model>,
        grammar: types::Grammar,
    ) -> Result<Resource<Matcher>, HostError> {
        // Even a short grammar may take long to compile.
        self.context.budget.turn.step_aside(usize::MAX).await;
        let model = Arc::clone(self.model(&model)?);
        let least = size_of::<Matcher>() + Guide::least(model.tokenizer.vocabulary_len());
        let charge = self.context.budget.charge(least)?;
        let _parsed = match &grammar {
            types::Grammar::JsonSchema(schema) => Some(self.context.budget.charge(json_bound(schema))?),
            _ => None,
        };
        let grammar = grammar_from_wit(grammar)?;
        let mut guide = model.engine.guide(&self.context.tenant, &grammar)?;
        guide.start_mask();
        Ok(self.table.push(Matcher { guide, vocabulary: model.vocabulary(), charge })?)
    }

    fn mask(&mut self, this: Resource<Matcher>, logits: Resource<Logits>) -> Result<(), HostError> {
        self.with_logits(&logits, |state, logits| {
            let matcher = state.table.get_mut(&this)?;
            same_vocabulary(matcher.vocabulary, logits.vocabulary())?;
            mask(logits.values()?, matcher.guide()?.mask()?, false);
            Ok(())
        })?
    }

    fn accept(&mut self, this: Resource<Matcher>, token: u32) -> Result<(), HostError> {
        let guide = self.table.get_mut(&this)?.guide()?;
        guide.accept(token)?;
        guide.start_mask();
        Ok(())
    }

    fn is_finished(&mut self, this: Resource<Matcher>) -> wasmtime::Result<bool> {
        Ok(self.table.get(&this)?.guide.is_finished())
    }

    fn forced(&mut self, this: Resource<Matcher>) -> Result<Vec<u32>, HostError> {
        Ok(self.table.get_mut(&this)?.guide()?.forced_tokens()?)
    }

    fn drop(&mut self, this: Resource<Matcher>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
