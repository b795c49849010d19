//! The answer.

use crate::bindings::realm::tenant::output as wit;
use crate::error::HostError;
use crate::state::State;

impl wit::Host for State {
    async fn emit(&mut self, text: String, tokens: Vec<u32>) -> Result<(), HostError> {
        self.send(text, &tokens).await
    }
}
