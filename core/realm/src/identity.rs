//! Identities: the part of a tenant that models use.

use std::sync::Arc;

use crate::background::Turn;
use crate::program::TenantPrograms;
use crate::{Error, Limits};

/// The identity that requests belong to.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) inner: Arc<realm_engine::Tenant>,
    /// The tenant's programs, and what they may do.
    pub(crate) programs: TenantPrograms,
    /// The tenant's turn to prepare a long prompt.
    pub(crate) preparing: Turn,
}

impl Identity {
    pub(crate) fn new(name: &str, limits: Limits) -> Result<Self, Error> {
        let inner = Arc::new(realm_engine::Tenant::new(name, limits)?);
        Ok(Self { inner, programs: TenantPrograms::default(), preparing: Turn::default() })
    }
}
