//! The things that the tenants of one runtime have in common.

use std::path::Path;

use realm_engine::LoadedModel;

use crate::identity::Identity;
use crate::program::LazySandbox;
use crate::registry::Registry;

/// Models, tenants and the sandbox of a runtime.
#[derive(Debug)]
pub(crate) struct Commons {
    /// The models that are loaded now.
    pub(crate) models: Registry<LoadedModel>,
    pub(crate) tenants: Registry<Identity>,
    #[cfg_attr(not(feature = "sandbox"), expect(dead_code, reason = "only programs need it"))]
    pub(crate) sandbox: LazySandbox,
}

impl Commons {
    /// Starts without models; compiled programs are kept in the `cache` folder.
    pub(crate) fn new(cache: &Path) -> Self {
        let models = Registry::default();
        Self { sandbox: LazySandbox::new(cache, &models), models, tenants: Registry::default() }
    }
}
