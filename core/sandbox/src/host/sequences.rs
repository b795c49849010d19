//! Token sequences with their KV caches.

use std::sync::Arc;

use realm_engine::{Answer, Computed, Output};
use wasmtime::component::Resource;

use crate::bindings::realm::tenant::sequences::{self as wit, Adapter};
use crate::budget::Charge;
use crate::error::HostError;
use crate::handles::{Logits, Model, Sequence};
use crate::state::State;
use crate::{Error, ErrorKind};

/// The bytes of a sequence's handle: an entry of a table. The sequence itself counts in the engine, and its
/// pages of the KV cache have a limit of their own.
const SEQUENCE_BYTES: usize = 160;

impl State {
    /// Waits until the engine has done most of what the tenant's programs asked of their sequences.
    fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let tenant = Arc::clone(&self.context.tenant);
        async move { tenant.ready().await }
    }

    async fn open_sequence(
        &mut self,
        model: &Resource<Model>,
        adapter: Option<(realm_engine::Adapter, f32)>,
    ) -> Result<Resource<Sequence>, HostError> {
        let model = Arc::clone(self.model(model)?);
        let charge = self.context.budget.charge(SEQUENCE_BYTES)?;
        self.ready().await;
        let shared =
            if Arc::ptr_eq(&model, &self.context.model) { self.context.request.shared_prefix } else { 0 };
        let inner = model.engine.sequence(&self.context.tenant, adapter, shared)?;
        Ok(self.table.push(Sequence { inner, computed: 0, model, _charge: charge })?)
    }

    fn sequence(&mut self, this: &Resource<Sequence>) -> wasmtime::Result<&mut Sequence> {
        Ok(self.table.get_mut(this)?)
    }

    /// Makes a sequence compute its new tokens, in the way of `start`; returns their number.
    fn start<T>(
        &mut self,
        this: &Resource<Sequence>,
        start: impl FnOnce(&mut realm_engine::Sequence) -> Result<Answer<T>, realm_engine::Error>,
    ) -> Result<(Answer<T>, usize), HostError> {
        let spare = self.spare.pop();
        let sequence = self.sequence(this)?;
        if let Some((spare, _charge)) = spare {
            sequence.inner.recycle(spare);
        }
        let answer = start(&mut sequence.inner)?;
        let len = sequence.inner.len();
        let due = len - std::mem::replace(&mut sequence.computed, len);
        Ok((answer, due))
    }

    /// Waits for the results of a sequence's forward.
    async fn answer<T>(&mut self, this: &Resource<Sequence>, answer: Answer<T>) -> Result<T, HostError> {
        let model = Arc::clone(&self.sequence(this)?.model);
        Ok(self.context.budget.turn.answer(model.engine.step_hooks(), answer).await?)
    }

    /// Returns the logits after the last token or, with `every`, after each new one.
    async fn compute(
        &mut self,
        this: &Resource<Sequence>,
        every: bool,
    ) -> Result<Vec<Resource<Logits>>, HostError> {
        // Charged before they are computed, so that only logits with a charge exist; those of a cancelled
        // call count until they are dropped.
        let sequence = self.sequence(this)?;
        let rows = if every { (sequence.inner.len() - sequence.computed).max(1) } else { 1 };
        let logits = rows.saturating_mul(sequence.model.vocabulary());
        let charge = self.charge_logits(logits)?;
        let (answer, due) = self.start(this, |sequence| sequence.start_logits(every))?;
        let computed = self.answer(this, answer).await?;
        self.computed(due, computed, charge)
    }

    /// Creates handles of computed logits.
    fn computed(
        &mut self,
        due: usize,
        computed: Computed,
        charge: Charge,
    ) -> Result<Vec<Resource<Logits>>, HostError> {
        self.count_forward(due, computed.cached);
        self.new_logits_rows(computed.rows, charge)
    }
}

/// Returns the output of a forward pass for the last token: its logits, or their handle.
pub(crate) fn last<T>(rows: Vec<T>) -> Result<T, Error> {
    rows.into_iter().next_back().ok_or_else(|| Error::new(ErrorKind::Internal, "a forward without logits"))
}

impl wit::HostSequence for State {
    async fn open(&mut self, model: Resource<Model>) -> Result<Resource<Sequence>, HostError> {
        // An adapter belongs to one model.
        let own = Arc::ptr_eq(self.model(&model)?, &self.context.model);
        let adapter = self.context.request.adapter.clone().filter(|_| own);
        self.open_sequence(&model, adapter).await
    }

    async fn open_with(
        &mut self,
        model: Resource<Model>,
        adapter: Option<Adapter>,
    ) -> Result<Resource<Sequence>, HostError> {
        let adapter = match adapter {
            None => None,
            Some(Adapter { name, scale }) => {
                let tenant = &self.context.tenant;
                // An adapter that the tenant may not use looks like one that does not exist.
                let allowed = tenant.limits().adapters.is_none_or(|names| names.contains(&name));
                let adapter = self.model(&model)?.engine.adapter(&name).filter(|_| allowed);
                let none = || Error::new(ErrorKind::NotFound, format!("there is no adapter `{name}`"));
                Some((adapter.ok_or_else(none)?, scale))
            }
        };
        self.open_sequence(&model, adapter).await
    }

    fn append(&mut self, this: Resource<Sequence>, tokens: Vec<u32>) -> Result<(), HostError> {
        Ok(self.sequence(&this)?.inner.append(&tokens)?)
    }

    fn context_length(&mut self, this: Resource<Sequence>) -> wasmtime::Result<u32> {
        Ok(self.sequence(&this)?.inner.context_length() as u32)
    }

    fn len(&mut self, this: Resource<Sequence>) -> wasmtime::Result<u32> {
        Ok(self.sequence(&this)?.inner.len() as u32)
    }

    fn tokens(&mut self, this: Resource<Sequence>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.sequence(&this)?.inner.tokens().to_vec())
    }

    async fn truncate(&mut self, this: Resource<Sequence>, len: u32) -> Result<(), HostError> {
        self.ready().await;
        let sequence = self.sequence(&this)?;
        sequence.inner.truncate(len as usize)?;
        sequence.computed = sequence.computed.min(len as usize);
        Ok(())
    }

    async fn fork(&mut self, this: Resource<Sequence>) -> Result<Resource<Sequence>, HostError> {
        self.ready().await;
        let charge = self.context.budget.charge(SEQUENCE_BYTES)?;
        let sequence = self.sequence(&this)?;
        let fork = Sequence {
            inner: sequence.inner.fork()?,
            computed: sequence.computed,
            model: Arc::clone(&sequence.model),
            _charge: charge,
        };
        Ok(self.table.push(fork)?)
    }

    async fn forward(&mut self, this: Resource<Sequence>) -> Result<Resource<Logits>, HostError> {
        Ok(last(self.compute(&this, false).await?)?)
    }

    async fn forward_all(&mut self, this: Resource<Sequence>) -> Result<Vec<Resource<Logits>>, HostError> {
        self.compute(&this, true).await
    }

    async fn forward_hidden(&mut self, this: Resource<Sequence>) -> Result<Vec<f32>, HostError> {
        let sequence = self.sequence(&this)?;
        let rows = (sequence.inner.len() - sequence.computed).max(1);
        let hidden = sequence.model.weights.config().hidden;
        let _values = self.context.budget.charge_transfer(rows.saturating_mul(hidden * size_of::<f32>()))?;
        let (answer, due) = self.start(&this, |sequence| sequence.start_forward(Output::Hidden))?;
        let forwarded = self.answer(&this, answer).await?;
        self.count_forward(due, forwarded.cached);
        Ok(forwarded.values)
    }

    fn drop(&mut self, this: Resource<Sequence>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit::Host for State {
    async fn forward_each(
        &mut self,
        sequences: Vec<Resource<Sequence>>,
    ) -> Result<Vec<Resource<Logits>>, HostError> {
        let mut handles: Vec<u32> = sequences.iter().map(Resource::rep).collect();
        handles.sort_unstable();
        if handles.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid("the same sequence twice").into());
        }
        let mut answers = Vec::with_capacity(sequences.len());
        for sequence in &sequences {
            let vocabulary = self.sequence(sequence)?.model.vocabulary();
            let charge = self.charge_logits(vocabulary)?;
            let (answer, due) = self.start(sequence, |sequence| sequence.start_logits(false))?;
            answers.push((answer, due, charge));
        }
        let mut all = Vec::with_capacity(answers.len());
        for (sequence, (answer, due, charge)) in sequences.iter().zip(answers) {
            let computed = self.answer(sequence, answer).await?;
            all.push(last(self.computed(due, computed, charge)?)?);
        }
        Ok(all)
    }
}
