//! The model that victims and attackers share.

use std::time::Instant;

use realm::{Error, Limits, LoadOptions, Model, Output, Realm, Request, Speculation, Tenant};

use crate::measure::Gaps;

/// A model with room for 8,192 tokens, on two threads.
pub struct Ground {
    /// The runtime.
    pub realm: Realm,
    /// The model, as the host itself uses it.
    pub model: Model,
}

impl Ground {
    /// Loads a model onto a device, `cpu` or `cuda`.
    pub fn new(model: &str, device: &str) -> Result<Self, Error> {
        let realm = Realm::builder().threads(2).device(device).build()?;
        let options = LoadOptions { kv_tokens: Some(8192), ..LoadOptions::default() };
        let model = realm.load_model_with(model, &options, &mut ())?;
        Ok(Self { realm, model })
    }

    /// Uses all pages of the cache once, so that their memory exists and does not count as an attacker's.
    ///
    /// # Errors
    /// The error of the forward pass.
    #[allow(clippy::cast_possible_truncation, reason = "below 20,300")]
    pub fn touch(&self) -> Result<(), Error> {
        let mut sequence = self.model.sequence()?;
        let tokens = self.model.info().context_length.min(8192) - 64;
        sequence.append(&(0..tokens).map(|i| 300 + (i * 7 % 20_000) as u32).collect::<Vec<_>>())?;
        sequence.forward(Output::Nothing).map(drop)
    }

    /// Creates a tenant with the default limits.
    ///
    /// # Panics
    /// If Realm refuses the tenant.
    pub fn tenant(&self, name: &str) -> Tenant {
        self.tenant_with(name, Limits::default())
    }

    /// Creates a tenant with the given limits.
    ///
    /// # Panics
    /// If Realm refuses the limits.
    pub fn tenant_with(&self, name: &str, limits: Limits) -> Tenant {
        self.realm.tenant(name, limits).expect("a tenant")
    }

    /// Returns the model as a tenant sees it.
    ///
    /// # Panics
    /// If the tenant may not use it.
    pub fn model_of(&self, tenant: &Tenant) -> Model {
        tenant.model(&self.model).expect("the model")
    }

    /// Generates a victim's greedy text of `tokens` tokens; also returns the wait for each token.
    pub fn victim(&self, model: &Model, tokens: usize) -> Result<(String, Gaps), Error> {
        let prompt = "The history of the lighthouse at the end of the world begins";
        let request = Request::text(prompt).temperature(0.0).max_tokens(tokens).speculation(Speculation::Off);
        let mut generation = model.stream(Request { ignore_eos: true, ..request })?;
        let (mut text, mut gaps, mut last) = (String::new(), Gaps::default(), Instant::now());
        while let Some(chunk) = generation.next_blocking() {
            let chunk = chunk?;
            text += &chunk.text;
            if !chunk.tokens.is_empty() {
                let now = Instant::now();
                gaps.push(now - last, chunk.tokens.len());
                last = now;
            }
            if chunk.finish.is_some() {
                break;
            }
        }
        Ok((text, gaps))
    }
}
