//! LoRA adapters.

/// A LoRA adapter of a model. Unloaded when its last reference and the last request that uses it are gone.
#[derive(uniffi::Object)]
pub struct Adapter(pub(crate) realm::Adapter);

#[uniffi::export]
impl Adapter {
    /// Returns the name that it was loaded by; tenants' limits use this name.
    pub fn name(&self) -> String {
        self.0.name().to_owned()
    }

    /// Returns the largest rank of its matrices.
    pub fn rank(&self) -> u64 {
        self.0.rank() as u64
    }

    /// Returns the size of its matrices, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes() as u64
    }
}
