//! The places of a tenant's requests: in queues, and among those that run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use super::Tenant;
use crate::Error;
use crate::queue::Queue;

impl Tenant {
    /// Takes a place in the tenant's queue, and in that of an engine.
    pub(crate) fn enqueue(self: &Arc<Self>, engine: Option<&Arc<Queue>>) -> Result<Place, Error> {
        let (queue, own_most) = {
            let limits = self.read();
            // Requests that can run at once wait only for the engine to notice them, so they need no place of
            // the queue.
            let places = limits.max_concurrent.map_or(1, |most| most.saturating_sub(self.running()));
            (limits.max_queued, limits.max_queued.saturating_add(places))
        };
        add_below(&self.waiting, own_most).map_err(|waiting| {
            Error::LimitExceeded(format!(
                "tenant `{}` has {} requests running and {waiting} waiting, as many as its limits allow; wait for some to end, or raise `max_queued` ({queue}) or `max_concurrent`",
                self.name,
                self.running(),
            ))
        })?;
        if !engine.is_none_or(|queue| queue.enter(self.id)) {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            let why = "as many requests wait for the model as may; try again later";
            return Err(Error::Overloaded(why.into()));
        }
        Ok(Place { tenant: Arc::clone(self), engine: engine.cloned(), running: false })
    }

    /// Takes a place in the tenant's queue for a request that a program answers, under the same limits as all
    /// requests.
    ///
    /// # Errors
    /// `LimitExceeded` if the tenant's queue is full.
    pub fn enter(self: &Arc<Self>) -> Result<Place, Error> {
        self.enqueue(None)
    }
}

/// Adds one unless the count has reached `most`; the error then holds the count.
fn add_below(count: &AtomicUsize, most: usize) -> Result<(), usize> {
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1)).map(drop)
}

/// A request's place in its tenant's queue or among the running requests. Dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    tenant: Arc<Tenant>,
    /// The queue of the engine, shared with other tenants.
    engine: Option<Arc<Queue>>,
    running: bool,
}

impl Place {
    /// Moves the request from the queue to the running ones; returns `false` if `max_concurrent` of the
    /// tenant's requests run.
    pub(crate) fn start(&mut self) -> bool {
        if !self.running {
            let most = self.tenant.read().max_concurrent.unwrap_or(usize::MAX);
            self.running = add_below(&self.tenant.running, most).is_ok();
            if self.running {
                self.leave_queue();
            }
        }
        self.running
    }

    /// Waits until the tenant has room for one more running request, and takes it.
    pub async fn started(&mut self) {
        let tenant = Arc::clone(&self.tenant);
        tenant.wakers.until(|| if self.start() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Moves the request back to the waiting ones.
    pub fn wait(&mut self) {
        if std::mem::take(&mut self.running) {
            self.tenant.waiting.fetch_add(1, Ordering::AcqRel);
            if let Some(queue) = &self.engine {
                queue.enter_again(self.tenant.id);
            }
            self.leave_running();
        }
    }

    /// Lets another request run, which [`started`](Self::started) may be waiting for.
    fn leave_running(&self) {
        self.tenant.running.fetch_sub(1, Ordering::AcqRel);
        self.tenant.wakers.wake_all();
    }

    fn leave_queue(&self) {
        self.tenant.waiting.fetch_sub(1, Ordering::AcqRel);
        if let Some(queue) = &self.engine {
            queue.leave(self.tenant.id);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.running {
            self.leave_running();
        } else {
            self.leave_queue();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn the_queue_is_bounded_and_its_error_says_what_to_do() {
        let limits = Limits { max_concurrent: Some(1), max_queued: 2, ..Limits::default() };
        let tenant = Arc::new(Tenant::new("acme", limits).unwrap());
        let queue = |most| Some(Arc::new(Queue::new(most, Arc::default())));
        let many = queue(9);
        let mut places: Vec<Place> = (0..3).map(|_| tenant.enqueue(many.as_ref()).unwrap()).collect();
        assert!(tenant.enqueue(many.as_ref()).is_err() && places[0].start() && !places[1].start());
        let error = tenant.enqueue(many.as_ref()).unwrap_err().to_string();
        assert!(error.contains("acme") && error.contains("max_queued"), "{error}");
        drop(places.remove(0));
        assert!(places[0].start());
        let (none, one) = (queue(0), queue(1));
        assert!(matches!(tenant.enqueue(none.as_ref()), Err(Error::Overloaded(_))));
        for _ in 0..2 {
            // Dropping the place frees it.
            tenant.enqueue(one.as_ref()).unwrap();
        }
        places.clear();
        assert_eq!((tenant.running(), tenant.waiting()), (0, 0));
    }
}
