//! Attacks of tenants on each other and on the host, and what a victim notices of them.
//!
//! [`ATTACKS`] is the table. `cargo run -p realm-hostile` measures: an attack and an honest neighbour take turns beside a
//! victim's generation, and the ratio of the victim's latencies is printed. `tests/attacks.rs` runs each for a moment and
//! asserts what does not depend on time: the victim's text is the same to the bit, and nothing of the victim's is refused.

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
