//! What the calls of `realm.v1` share: the caller, and what it may name.

use std::sync::Arc;

use realm::{MemoryCharge, MemoryKind, Model};
use realm_protocol::{ApiError, Extras, Gate, Models};
use realm_rpc::v1;
use tokio::sync::watch;
use tonic::{Response, Status};

use super::{convert, status};
use crate::call::{Call, Caller};
use crate::visible::Visible;

/// Answers one call.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) call: Arc<Call>,
    pub(super) caller: Caller,
    pub(super) gate: Arc<dyn Gate>,
    pub(super) models: Arc<Visible>,
    /// The most bytes of a body.
    pub(super) max_body: usize,
    /// Becomes true when the server takes no more requests.
    pub(super) draining: watch::Receiver<bool>,
}

/// Bytes that wait here, on the account of the caller's tenant.
pub(super) struct Bytes {
    pub(super) bytes: Vec<u8>,
    pub(super) charge: MemoryCharge,
}

/// The answer of a call.
pub(super) type Answer<T> = Result<Response<T>, Status>;

impl Calls {
    /// Returns an answer, or a failure as the caller may see it.
    pub(super) fn answer<T>(&self, answer: Result<T, ApiError>) -> Answer<T> {
        answer.map(Response::new).map_err(|error| status::of(&self.gate.shown(error), &self.call.id))
    }

    /// Takes memory on the account of the caller's tenant.
    ///
    /// # Errors
    /// Status 400 if the tenant would hold more than its limit.
    pub(super) fn charge(&self, kind: MemoryKind, bytes: usize) -> Result<MemoryCharge, ApiError> {
        Ok(self.caller.tenant.tenant().charge(kind, bytes)?)
    }

    /// Puts the bytes of a saved sequence on the account.
    ///
    /// # Errors
    /// Same as [`charge`](Self::charge).
    pub(super) fn bytes(&self, bytes: Vec<u8>) -> Result<Bytes, ApiError> {
        let charge = self.charge(MemoryKind::Sequences, bytes.len())?;
        Ok(Bytes { bytes, charge })
    }

    /// Returns a model with the adapter that a call uses.
    pub(super) async fn model(&self, name: &str, adapter: Option<v1::AdapterUse>) -> Result<Model, ApiError> {
        let model = self.models.model(name).await?;
        match adapter.map(convert::adapter).transpose()? {
            None => Ok(model),
            adapter => self.models.equipped(model, &Extras { adapter, program: None }).await,
        }
    }
}
