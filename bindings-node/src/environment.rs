//! Futures that end with one of Node's environments, the main thread's or a worker's: a promise that can no
//! longer be kept drops its future, and with it the model that the future holds.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use napi::bindgen_prelude::*;
use realm_handover::Wakers;

#[derive(Default)]
struct Environment {
    ended: AtomicBool,
    waiting: Wakers,
}

thread_local! {
    /// The environments of this thread, by their addresses.
    static ENVIRONMENTS: RefCell<Vec<(usize, Arc<Environment>)>> = const { RefCell::new(Vec::new()) };
}

impl Environment {
    fn of(env: &Env) -> Result<Arc<Self>> {
        let address = env.raw() as usize;
        let known = ENVIRONMENTS.with_borrow(|all| {
            all.iter().find(|(other, _)| *other == address).map(|(_, known)| Arc::clone(known))
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let new = Arc::<Self>::default();
        env.add_env_cleanup_hook((address, Arc::clone(&new)), |(address, environment)| {
            ENVIRONMENTS.with_borrow_mut(|all| all.retain(|(other, _)| *other != address));
            environment.ended.store(true, Ordering::Release);
            environment.waiting.wake_all();
        })?;
        ENVIRONMENTS.with_borrow_mut(|all| all.push((address, Arc::clone(&new))));
        Ok(new)
    }

    async fn end(&self) {
        let ended = || if self.ended.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending };
        self.waiting.until(ended).await;
    }
}

/// Returns a promise for a future's result; the future is dropped when the environment ends.
pub(crate) fn promise<'env, T: ToNapiValue + Send + 'static>(
    env: &'env Env,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<PromiseRaw<'env, T>> {
    let environment = Environment::of(env)?;
    env.spawn_future(async move {
        let (mut work, mut end) = (pin!(work), pin!(environment.end()));
        std::future::poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Pending => end.as_mut().poll(context).map(|()| Err(Error::from_status(Status::Cancelled))),
            ready => ready,
        })
        .await
    })
}
