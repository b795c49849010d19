//! Provides a stack that is large enough, whatever thread calls.
//!
//! A template is untrusted, and is parsed and rendered on any thread of an application, some of which have a
//! hundred kilobytes of stack. So a rendering uses little of its caller's stack. Parsing, and renderings that
//! need more, run on a thread with a stack of its own.

/// Bytes of the caller's stack that a rendering may use.
pub(crate) const BORROWED: usize = 40 << 10;

/// Bytes of its own stack that a rendering may use.
pub(crate) const OWN: usize = 3 << 20;

/// Size of an own stack in bytes; the system provides memory only for the pages that are touched. The part
/// beyond [`OWN`] is for functions that do not check the depth.
const SIZE: usize = 4 << 20;

/// Runs a function on a thread with a stack of its own; `None` if no thread can be started.
pub(crate) fn own<T: Send>(run: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("realm-template".into()).stack_size(SIZE);
        let thread = thread.spawn_scoped(scope, run).ok()?;
        match thread.join() {
            Ok(result) => Some(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Returns an address on the stack, to measure how much of the stack is used.
#[inline(never)]
pub(crate) fn address() -> usize {
    let here = 0u8;
    &raw const here as usize
}
