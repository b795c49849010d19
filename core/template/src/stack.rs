//! A stack that is deep enough, whoever calls.
//!
//! A template comes from a stranger and is parsed and rendered on whatever thread an application has: some have a hundred
//! kilobytes of stack. So a rendering takes little of its caller's, and what needs more, and all parsing, runs on a thread
//! with a stack of its own.

/// Bytes of its caller's stack that a rendering may use.
pub(crate) const BORROWED: usize = 40 << 10;

/// Bytes of its own stack that a rendering may use.
pub(crate) const OWN: usize = 3 << 20;

/// Bytes of an own stack: they are taken from the system only where they are touched. What [`OWN`] leaves is for what does not
/// ask how deep it is.
const SIZE: usize = 4 << 20;

/// Runs on a thread with a stack of its own; `None` if no thread can be started.
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

/// The address of something on the stack, for telling how much of it is used.
#[inline(never)]
pub(crate) fn address() -> usize {
    let here = 0u8;
    &raw const here as usize
}
