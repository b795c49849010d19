//! The programs that one tenant has.

use std::sync::{Arc, PoisonError, RwLock};

use realm_engine::MemoryCharge;
use realm_sandbox::Programs;

use super::Program;
use crate::Grants;

/// A tenant's programs, and what they may do.
#[derive(Debug, Default)]
pub(crate) struct TenantPrograms {
    /// The program that answers the tenant's requests; `None` for the built-in generation.
    answering: RwLock<Option<(Program, Option<MemoryCharge>)>>,
    /// The programs that the tenant's programs may run.
    pub(super) others: Arc<Programs>,
    grants: RwLock<Arc<Grants>>,
}

impl TenantPrograms {
    /// Returns whether a program answers the tenant's requests.
    pub(crate) fn answer(&self) -> bool {
        self.answering.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Returns the program that answers the tenant's requests.
    pub(crate) fn answering(&self) -> Option<Program> {
        let answering = self.answering.read().unwrap_or_else(PoisonError::into_inner);
        answering.as_ref().map(|(program, _)| program.clone())
    }

    /// Sets the program that answers, and the charge for its code.
    pub(super) fn set_answering(&self, program: Option<(Program, Option<MemoryCharge>)>) {
        *self.answering.write().unwrap_or_else(PoisonError::into_inner) = program;
    }

    pub(super) fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.grants.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_grants(&self, grants: Grants) {
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grants);
    }
}
