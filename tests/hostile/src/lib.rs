//! Attacks of tenants on each other and on the host, and their effects on a victim.
//!
//! [`ATTACKS`] is the table. `cargo run -p realm-hostile` measures: an attack and an honest neighbor take
//! turns beside a victim's generation, and it prints the ratio of the victim's latencies. `tests/attacks.rs`
//! runs each attack for a short time and asserts the properties that do not depend on time: the victim's text
//! is the same to the bit, and no request of the victim is refused.

mod attacks;
mod ground;
pub mod guest;
mod measure;
mod running;
pub mod status;

pub use attacks::{ATTACKS, Attack};
pub use ground::Ground;
pub use measure::{Gaps, Measured, measure};
pub use running::Running;
