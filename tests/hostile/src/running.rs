//! Running attackers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use realm::{Error, Generation, SharedGeneration, Tenant};

/// Threads that attack until this is dropped.
#[derive(Default)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Attacks that run beside this one and end with it.
    others: Vec<Running>,
    /// The attackers; together they may hold the sum of their limits.
    pub tenants: Vec<Tenant>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    rounds: AtomicUsize,
    last: Mutex<String>,
    /// Generations that are being read, to be cancelled at the end: a waiting program sends nothing.
    read: Mutex<Vec<Weak<SharedGeneration>>>,
}

/// Connects an attacking thread to the others.
#[derive(Clone)]
pub struct Signal(Arc<Shared>);

impl Signal {
    /// Returns whether the attack has ended.
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    /// Waits for the attack's end.
    pub fn wait(&self) {
        while !self.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads a generation to its end, or to the attack's end.
    pub fn read(&self, generation: Result<Generation, Error>) -> Result<(), Error> {
        let generation = Arc::new(SharedGeneration::from(generation?));
        {
            let mut read = self.0.read.lock().expect("not poisoned");
            read.retain(|other| other.strong_count() > 0);
            read.push(Arc::downgrade(&generation));
        }
        while !self.is_over() {
            match generation.next_blocking() {
                Some(Ok(chunk)) if chunk.finish.is_none() => {}
                Some(Err(error)) => return Err(error),
                _ => break,
            }
        }
        Ok(())
    }
}

impl Running {
    /// Adds a thread that repeats `round`.
    pub fn repeat(&mut self, mut round: impl FnMut(&Signal) -> Result<(), Error> + Send + 'static) {
        let signal = Signal(Arc::clone(&self.shared));
        self.threads.push(std::thread::spawn(move || {
            while !signal.is_over() {
                if let Err(error) = round(&signal) {
                    *signal.0.last.lock().expect("not poisoned") = error.to_string();
                    // Without a pause, a thread that is refused at once would compete for this machine's
                    // cores.
                    std::thread::sleep(Duration::from_millis(2));
                }
                signal.0.rounds.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// Adds a thread that starts `count` generations, and holds those that start without reading them.
    pub fn hold(
        &mut self,
        count: u32,
        mut start: impl FnMut(u32) -> Result<Generation, Error> + Send + 'static,
    ) {
        self.repeat(move |signal| {
            let (mut held, mut last) = (Vec::new(), Ok(()));
            for i in 0..count {
                match start(i) {
                    Ok(generation) => held.push(generation),
                    Err(error) => last = Err(error),
                }
            }
            signal.wait();
            last
        });
    }

    /// Lets another attack run beside this one and end with it. Its tenants are this one's from here on.
    pub fn join(&mut self, mut other: Running) {
        self.tenants.append(&mut other.tenants);
        self.others.push(other);
    }

    /// Number of rounds that the attackers' threads completed, and the text of the last error.
    pub fn said(&self) -> (usize, String) {
        let own = (
            self.shared.rounds.load(Ordering::Relaxed),
            self.shared.last.lock().expect("not poisoned").clone(),
        );
        self.others.iter().map(Running::said).fold(own, |(rounds, last), (more, other)| {
            (rounds + more, if other.is_empty() { last } else { other })
        })
    }

    /// Tells all threads to end.
    fn end(&self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.others.iter().for_each(Running::end);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        // A thread may be about to read a generation that it started before.
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            for generation in self.shared.read.lock().expect("not poisoned").iter().filter_map(Weak::upgrade)
            {
                generation.cancel();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
