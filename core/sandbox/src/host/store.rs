//! The tenant's key-value store.

use std::sync::Arc;

use crate::Error;
use crate::bindings::realm::tenant::store as wit;
use crate::error::HostError;
use crate::host::capabilities::denied;
use crate::state::State;
use crate::store::Store;

impl State {
    fn store(&self) -> Result<&Arc<Store>, Error> {
        self.context.grants.store.as_ref().ok_or_else(|| denied("a key-value store"))
    }
}

impl wit::Host for State {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.store()?.get(&key))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), HostError> {
        Ok(self.store()?.set(key, value)?)
    }

    fn delete(&mut self, key: String) -> Result<bool, HostError> {
        Ok(self.store()?.delete(&key)?)
    }

    fn keys(&mut self, prefix: String) -> Result<Vec<String>, HostError> {
        Ok(self.store()?.keys(&prefix))
    }
}
