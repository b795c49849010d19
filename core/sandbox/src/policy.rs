//! Generates under a policy: the built-in loop, with a program that is called at each token.

use std::sync::Arc;

use realm_engine::{FinishReason, MemoryKind, Sampler, TextStream};
use wasmtime::Store;
use wasmtime::component::Resource;

use crate::Error;
use crate::bindings::policy::TenantPolicy;
use crate::bindings::policy::exports::realm::tenant::policy::Guest;
use crate::bindings::realm::tenant::types as wit;
use crate::error::HostError;
use crate::handles::Logits;
use crate::host::logits::mask;
use crate::host::sequences::last;
use crate::passed::Passed;
use crate::state::State;

/// Runs a request to its end.
pub(crate) async fn run(
    mut store: Store<State>,
    instance: &TenantPolicy,
    request: wit::Request,
) -> Result<(FinishReason, State), Error> {
    match generate(&mut store, instance.realm_tenant_policy(), request).await {
        Ok(reason) => Ok((reason, store.into_data())),
        Err(HostError::Seen(error)) => Err(error),
        Err(HostError::Fatal(error)) => Err(store.data().failure(&error)),
    }
}

async fn generate(
    store: &mut Store<State>,
    policy: &Guest,
    wanted: wit::Request,
) -> Result<FinishReason, HostError> {
    let context = Arc::clone(&store.data().context);
    let (model, request) = (&context.model, &context.request);
    let tokenizer = &model.tokenizer;
    request.sampling.check(model.vocabulary())?;
    let prompt = model.tokenize(&request.prompt)?;
    policy.call_begin(&mut *store, &wanted).await?.map_err(Error::from)?;
    let mut sequence =
        model.engine.sequence(&context.tenant, request.adapter.clone(), request.shared_prefix)?;
    sequence.append(&prompt)?;
    let room = sequence.context_length().saturating_sub(prompt.len());
    if room == 0 {
        return Err(Error::limit(format!(
            "the prompt's {} tokens leave no room in the context",
            prompt.len()
        ))
        .into());
    }
    let room = request.max_tokens.map_or(room, |most| most.min(room));
    let mut sampler = Sampler::new(request.sampling.clone(), &prompt);
    let mut writing = context.budget.ledger.open(MemoryKind::Requests);
    let mut guide =
        request.grammar.as_ref().map(|grammar| model.engine.guide(&context.tenant, grammar)).transpose()?;
    let mut text = TextStream::new(&request.stop);
    let heeds_end = !request.ignore_eos || guide.is_some();
    let mut passed = Passed::default();
    let mut computed = 0;
    for generated in 1.. {
        if let Some(guide) = &mut guide {
            guide.start_mask();
        }
        let answer = sequence.start_logits(false)?;
        let forwarded = context.budget.turn.answer(model.engine.step_hooks(), answer).await?;
        let due = sequence.len() - std::mem::replace(&mut computed, sequence.len());
        store.data_mut().count_forward(due, forwarded.cached);
        let mut logits = last(forwarded.rows)?;
        if let Some(guide) = &mut guide {
            // The policy, too, chooses among the tokens that the grammar allows.
            mask(logits.values()?, guide.mask()?, false);
        }
        let (chosen, mut logits) = choose(store, policy, logits).await?;
        let token = match chosen {
            Some(token) => {
                let allowed = logits.get(token)?.is_some_and(|logit| logit > f32::NEG_INFINITY);
                if !allowed {
                    let why =
                        format!("the policy chose token {token}, which is banned or not in the vocabulary");
                    return Err(Error::invalid(why).into());
                }
                sampler.observe(token);
                token
            }
            None => match logits.sample(&mut sampler, None)? {
                Some(token) => token,
                None => logits.argmax()?,
            },
        };
        let bytes = sampler.memory() + text.memory() + guide.as_ref().map_or(0, realm_engine::Guide::memory);
        if writing.bytes() != bytes {
            writing.set(bytes);
        }
        if let Some(memory) = logits.into_memory() {
            sequence.recycle(memory);
        }
        if let Some(guide) = &mut guide {
            guide.accept(token)?;
        }
        let end = heeds_end && tokenizer.end_tokens().contains(&token);
        let complete = guide.as_ref().is_some_and(realm_engine::Guide::is_finished);
        let (piece, reason) = text.answer(token, tokenizer, false, end, complete, generated >= room);
        let observed = policy.call_observe(&mut *store, token, &piece).await?.map_err(Error::from)?;
        let reason = reason.or(observed.stop.then_some(FinishReason::Stop));
        let shown = passed.observe(token, &piece, &observed.text);
        store.data_mut().send_part(observed.text, &shown, 1).await?;
        if let Some(reason) = reason {
            let held = policy.call_end(&mut *store, reason.into()).await?.map_err(Error::from)?;
            let shown = passed.end(&held);
            store.data_mut().send_part(held, &shown, 0).await?;
            return Ok(reason);
        }
        sequence.append(&[token])?;
    }
    unreachable!("a generation has no more tokens than there is room for")
}

/// Lets the policy choose a token; returns the logits as it left them.
async fn choose(
    store: &mut Store<State>,
    policy: &Guest,
    logits: realm_engine::Logits,
) -> Result<(Option<u32>, realm_engine::Logits), HostError> {
    let handle = store.data_mut().new_logits(logits)?;
    let lent = Resource::new_borrow(handle.rep());
    let chosen = policy.call_sample(&mut *store, lent).await;
    let Logits { inner, .. } = store.data_mut().table.delete(handle)?;
    Ok((chosen?.map_err(Error::from)?, inner))
}
