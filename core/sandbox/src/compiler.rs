//! Compiles programs: on at most two threads of low priority, in fair turns.
//!
//! Compiling is work of the tenant whose program it is, and a running compiler cannot be stopped: its input
//! is bounded beforehand ([`bounds`](crate::bounds)). This module keeps compiling from slowing the rest of
//! the process. At most [`AT_ONCE`] programs are compiled at once, on threads that get a thirtieth of a core
//! that others want. The other programs wait, and each tenant's turn comes by the steps that its programs
//! have taken so far, divided by its weight: a hundred programs of one tenant do not delay one program of
//! another tenant, and a small program does not wait for a large one that came just before it. The
//! application's own programs are due by their own steps alone. A caller that stops waiting leaves the queue.
//!
//! A helper process would protect better, but only where there is a program to start. A library has none: the
//! process that runs it is Python, Node or an application, and a copy of that is not a compiler. The `realm`
//! command could start itself, but it compiles for the user who runs it. So the bounds protect all alike.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use realm_compute::priority;
use realm_engine::Tenant;
use realm_handover::Receiver;

use crate::{Error, ErrorKind};

/// The most programs that are compiled at once: each takes memory of its own.
const AT_ONCE: usize = 2;

/// The most programs that wait, plus one for each tenant that has no other waiting: each is held in memory.
const WAITING: usize = 256;

/// The bytes of stack of a compiling thread.
const STACK: usize = 8 << 20;

/// Compiles programs in turns.
#[derive(Clone, Default)]
pub(crate) struct Compiler(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The threads for functions of one program; `None` if the system gives none.
    pool: OnceLock<Option<rayon::ThreadPool>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Job>,
    /// The time at which each tenant's last program is due, in steps of a tenant of weight 1.
    due: HashMap<u64, u64>,
    /// The time at which the last started program was due.
    now: u64,
    running: usize,
}

struct Job {
    /// The tenant's id; `None` for the application's own programs.
    owner: Option<u64>,
    due: u64,
    work: Box<dyn FnOnce() + Send>,
}

impl Queue {
    /// Returns whether one more program may wait: there is a free place, or its owner has none waiting.
    fn has_place(&self, owner: Option<u64>) -> bool {
        self.waiting.len() < WAITING || !self.waiting.iter().any(|job| job.owner == owner)
    }

    /// Adds work of this many steps.
    fn push(&mut self, owner: Option<&Tenant>, steps: u64, work: Box<dyn FnOnce() + Send>) {
        let (owner, weight) = (owner.map(Tenant::id), owner.map_or(1.0, |owner| owner.limits().weight));
        let steps = (steps as f64 / f64::from(weight)) as u64;
        let last = owner.and_then(|owner| self.due.get(&owner)).copied().unwrap_or_default();
        let due = last.max(self.now).saturating_add(steps.max(1));
        if let Some(owner) = owner {
            self.due.insert(owner, due);
        }
        self.waiting.push(Job { owner, due, work });
    }

    /// Takes the job that is due first; of several, the one that came first.
    fn pop(&mut self) -> Option<Job> {
        let (first, _) = self.waiting.iter().enumerate().min_by_key(|(_, job)| job.due)?;
        let job = self.waiting.remove(first);
        self.now = self.now.max(job.due);
        let now = self.now;
        self.due.retain(|_, due| *due > now);
        Some(job)
    }
}

impl Compiler {
    /// Runs `work` of about `steps` steps when it is its owner's turn. Dropping the receiver before that
    /// cancels it. The receiver gets nothing if `work` panics.
    ///
    /// # Errors
    /// `Overloaded` if the queue is full and the owner has a program in it; `Internal` if the system gives no
    /// threads.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        owner: Option<&Tenant>,
        steps: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Receiver<T>, Error> {
        let (send, receive) = realm_handover::channel(1);
        let work = move || {
            if !send.is_closed() {
                // If the receiver was dropped, the result is not needed.
                let _ = send.try_send(work());
            }
        };
        {
            let mut queue = self.0.queue();
            if !queue.has_place(owner.map(Tenant::id)) {
                let why = format!("{WAITING} programs wait to be compiled, as many as may; try again later");
                return Err(Error::new(ErrorKind::Overloaded, why));
            }
            queue.push(owner, steps, Box::new(work));
            if queue.running >= AT_ONCE {
                return Ok(receive);
            }
            queue.running += 1;
        }
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("realm-compile".into()).stack_size(STACK);
        if let Err(error) = thread.spawn(move || shared.work()) {
            let mut queue = self.0.queue();
            queue.running -= 1;
            if queue.running == 0 {
                // Without a thread, nothing else would run the waiting work.
                queue.waiting.clear();
                return Err(Error::new(ErrorKind::Internal, format!("the compiler's thread: {error}")));
            }
        }
        Ok(receive)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the waiting work until there is none.
    fn work(&self) {
        priority::lower();
        loop {
            let job = {
                let mut queue = self.queue();
                let Some(job) = queue.pop() else {
                    queue.running -= 1;
                    return;
                };
                job
            };
            // A compiler's panic is on stderr already, and its caller sees a channel without a result.
            realm_handover::call_out(|| match self.pool.get_or_init(pool) {
                Some(pool) => pool.install(job.work),
                None => (job.work)(),
            });
        }
    }
}

/// Creates threads of low priority, one for each core.
fn pool() -> Option<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("realm-compile-{index}"))
        .stack_size(STACK)
        .start_handler(|_| priority::lower());
    match pool.build() {
        Ok(pool) => Some(pool),
        Err(error) => {
            tracing::warn!(%error, "programs are compiled on one thread each");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use realm_engine::Limits;

    use super::*;

    fn tenant(weight: f32) -> Tenant {
        Tenant::new("t", Limits { weight, ..Limits::default() }).unwrap()
    }

    /// Keeps all threads busy until the returned value is dropped.
    fn busy(compiler: &Compiler) -> Vec<mpsc::Sender<()>> {
        let start = |_| {
            let (go, wait) = mpsc::channel::<()>();
            let (began, begins) = mpsc::channel();
            let done = compiler.start(None, 1, move || {
                began.send(()).unwrap();
                let _ = wait.recv();
            });
            begins.recv().unwrap();
            std::mem::forget(done);
            go
        };
        (0..AT_ONCE).map(start).collect()
    }

    #[test]
    fn a_tenant_with_many_programs_does_not_hold_up_another() {
        let mut queue = Queue::default();
        let order = Arc::new(Mutex::new(Vec::new()));
        let tenants = ["many", "one", "small", "large"].map(|name| (name, tenant(1.0)));
        let add = |queue: &mut Queue, name: &'static str, steps| {
            let order = Arc::clone(&order);
            let (_, owner) = tenants.iter().find(|(its, _)| *its == name).unwrap();
            queue.push(Some(owner), steps, Box::new(move || order.lock().unwrap().push(name)));
        };
        for _ in 0..100 {
            add(&mut queue, "many", 1000);
        }
        // Some are done when the other tenant's program comes.
        (0..10).for_each(|_| (queue.pop().unwrap().work)());
        add(&mut queue, "one", 1000);
        // A small program of a third tenant does not wait for the other tenant's either.
        add(&mut queue, "small", 10);
        (0..3).for_each(|_| (queue.pop().unwrap().work)());
        assert_eq!(order.lock().unwrap()[10..], ["small", "many", "one"]);
        // A large program gets its turn, however many small ones come.
        add(&mut queue, "large", 5000);
        for _ in 0..100 {
            add(&mut queue, "small", 100);
        }
        while let Some(job) = queue.pop() {
            (job.work)();
        }
        let order = order.lock().unwrap();
        let place = order.iter().position(|&who| who == "large").unwrap();
        let before = order[..place].iter().filter(|&&who| who == "small").count();
        assert!((45..=51).contains(&before), "{before} small ones came first");
        assert!(queue.due.is_empty(), "no tenant is remembered forever");
    }

    #[test]
    fn a_tenant_of_thrice_the_weight_has_thrice_as_many_steps_compiled() {
        let (mut queue, light, heavy) = (Queue::default(), tenant(1.0), tenant(3.0));
        for _ in 0..40 {
            queue.push(Some(&light), 1000, Box::new(|| ()));
            queue.push(Some(&heavy), 1000, Box::new(|| ()));
        }
        let first: Vec<_> = (0..40).map(|_| queue.pop().unwrap().owner).collect();
        assert_eq!(first.iter().filter(|&&owner| owner == Some(heavy.id())).count(), 30);
    }

    #[test]
    fn a_caller_that_gives_up_leaves_the_queue_and_waiting_is_bounded() {
        let compiler = Compiler::default();
        let threads = busy(&compiler);
        let (said, heard) = mpsc::channel();
        let given_up = {
            let said = said.clone();
            compiler.start(None, 1, move || said.send("given up").unwrap()).unwrap()
        };
        let wanted = compiler.start(None, 1, move || said.send("wanted").unwrap()).unwrap();
        drop(given_up);
        let mut others: Vec<_> = (2..WAITING).map(|_| compiler.start(None, 1, || ()).unwrap()).collect();
        // A tenant with nothing in the queue may still add one program.
        let late = tenant(1.0);
        others.push(compiler.start(Some(&late), 1, || ()).unwrap());
        for owner in [None, Some(&late)] {
            let error = compiler.start(owner, 1, || ()).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Overloaded);
        }
        drop(threads);
        assert_eq!(wanted.recv_blocking(), Some(()));
        assert!(others.iter().all(|other| other.recv_blocking() == Some(())));
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["wanted"]);
        // A panic ends the work, and the thread continues.
        let panics = compiler.start(None, 1, || panic!("on purpose")).unwrap();
        assert_eq!(panics.recv_blocking(), None::<()>);
        assert_eq!(compiler.start(None, 1, || 7).unwrap().recv_blocking(), Some(7));
    }
}
