//! Readers that leave at any moment: the engine outlives them, frees their pages, and answers the next
//! request.
//!
//! `REALM_STRESS_SECONDS` is the length of the random part, in seconds; without it, the part lasts only a
//! moment.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use realm::{LoadOptions, Model, Output, Realm, SharedGeneration};

use common::story;

fn load() -> (Realm, Model) {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
    let realm = Realm::builder().threads(2).device("cpu").build().unwrap();
    let options = LoadOptions { kv_tokens: Some(8192), ..LoadOptions::default() };
    let model = realm.load_model_with(tiny, &options, &mut ()).unwrap();
    (realm, model)
}

/// Waits until no request runs and no page is in use; then the model must answer.
fn is_well(model: &Model) {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let metrics = model.metrics();
        if metrics.served.running == 0 && metrics.served.waiting == 0 && metrics.kv.used == 0 {
            break;
        }
        assert!(Instant::now() < patience, "something is left: {metrics:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    // On another thread, since a dead engine never answers.
    let (answered, answer) = std::sync::mpsc::channel();
    let model = model.clone();
    std::thread::spawn(move || answered.send(model.generate(story(2)).map(|answer| answer.tokens.len())));
    assert_eq!(answer.recv_timeout(Duration::from_secs(60)).expect("the engine is stuck").unwrap(), 2);
}

struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

/// Reads until a read has to wait, and drops that read.
fn wait(shared: &SharedGeneration, waker: &Waker) {
    while let Poll::Ready(chunk) = pin!(shared.next_async()).poll(&mut Context::from_waker(waker)) {
        chunk.expect("a long story").unwrap();
    }
}

/// Reads until a read has to wait, without a future that could be dropped.
fn wait_on(shared: &SharedGeneration, waker: &Waker) {
    while let Poll::Ready(chunk) = shared.poll_next(&mut Context::from_waker(waker)) {
        chunk.expect("a long story").unwrap();
    }
}

#[test]
fn a_generation_dropped_while_a_read_is_pending_is_cancelled_at_once() {
    let (_realm, model) = load();
    for _ in 0..20 {
        let shared = SharedGeneration::from(model.stream(story(8000)).unwrap());
        wait(&shared, &Waker::from(Arc::new(Nothing)));
        drop(shared);
        is_well(&model);
    }
}

#[test]
fn a_poll_without_a_future_keeps_no_generation_alive() {
    let (_realm, model) = load();
    let shared = SharedGeneration::from(model.stream(story(8000)).unwrap());
    let waker = Waker::from(Arc::new(Nothing));
    wait_on(&shared, &waker);
    drop(shared);
    is_well(&model);
}

/// Owns the generation and a handle of the model, as wakers of executors do that own their tasks.
struct Owner(Mutex<Option<(SharedGeneration, Model, Realm)>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        let everything = self.0.lock().unwrap().take();
        drop(everything);
        panic!("expected by this test: this waker's executor is gone");
    }
}

/// Makes the engine's thread drop a generation and handles of its model, through a waker.
fn drop_by_waker(realm: Realm, model: Model) {
    let shared = SharedGeneration::from(model.stream(story(8000)).unwrap());
    let owner = Arc::new(Owner(Mutex::new(Some((shared.clone(), model, realm)))));
    let waker = Waker::from(Arc::clone(&owner));
    // No future keeps it: from now on the waker alone owns the generation.
    wait_on(&shared, &waker);
    drop(shared);
    let patience = Instant::now() + Duration::from_secs(60);
    while owner.0.lock().unwrap().is_some() {
        assert!(Instant::now() < patience, "the engine did not wake its reader");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_waker_that_drops_everything_and_panics_does_not_stop_the_engine() {
    let (realm, model) = load();
    for _ in 0..5 {
        drop_by_waker(realm.clone(), model.clone());
        is_well(&model);
    }
    // If it dropped the last handle of the model, the engine's thread would wait for itself.
    drop_by_waker(realm, model);
}

/// Random numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

async fn leave_somewhere(model: &Model, random: &mut Random) {
    let tokens = 1 + random.below(200) as usize;
    match random.below(6) {
        // A timeout at any await point.
        0 => {
            let shared = SharedGeneration::from(model.stream(story(tokens)).unwrap());
            let time = Duration::from_micros(random.below(4000));
            let _ = tokio::time::timeout(time, shared.finish_async()).await;
        }
        // Another task cancels.
        1 => {
            let shared = SharedGeneration::from(model.stream(story(tokens)).unwrap());
            let other = shared.clone();
            let time = Duration::from_micros(random.below(4000));
            let reader = tokio::spawn(async move { other.finish_async().await });
            tokio::time::sleep(time).await;
            shared.cancel();
            let _ = reader.await;
        }
        // A task is aborted.
        2 => {
            let mut generation = model.stream(story(tokens)).unwrap();
            let reader = tokio::spawn(async move { while generation.next_async().await.is_some() {} });
            tokio::time::sleep(Duration::from_micros(random.below(4000))).await;
            reader.abort();
            let _ = reader.await;
        }
        // A slow reader that leaves in the middle.
        3 => {
            let mut generation = model.stream(story(tokens)).unwrap();
            for _ in 0..random.below(20) {
                let _ = generation.next_async().await;
                tokio::time::sleep(Duration::from_micros(random.below(500))).await;
            }
        }
        // Several readers, some of which leave.
        4 => {
            let shared = SharedGeneration::from(model.stream(story(tokens)).unwrap());
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    let shared = shared.clone();
                    tokio::spawn(async move { while shared.next_async().await.is_some() {} })
                })
                .collect();
            readers[0].abort();
            tokio::time::sleep(Duration::from_micros(random.below(2000))).await;
            readers[1].abort();
            // The reader that stays sees the end.
            drop(shared);
            for reader in readers {
                let _ = reader.await;
            }
        }
        // Requests other than text.
        _ => {
            let time = Duration::from_micros(random.below(1000));
            let prompt = model.encode("Once upon a time there was a king");
            let _ = tokio::time::timeout(time, model.score_async(&prompt, 2)).await;
            let mut sequence = model.sequence().unwrap();
            sequence.append(&prompt).unwrap();
            let _ = tokio::time::timeout(time, sequence.forward_async(Output::LastLogits)).await;
        }
    }
}

#[test]
fn whatever_readers_do_the_model_answers_and_all_pages_are_free() {
    let (_realm, model) = load();
    let seconds =
        std::env::var("REALM_STRESS_SECONDS").map_or(1.0, |s| s.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let mut seed = 1;
    while Instant::now() < end {
        runtime.block_on(async {
            let tasks = (0..8).map(|_| {
                seed += 1;
                let (model, mut random) = (model.clone(), Random(0x9E37_79B9_7F4A_7C15 ^ seed));
                tokio::spawn(async move {
                    for _ in 0..8 {
                        leave_somewhere(&model, &mut random).await;
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
        is_well(&model);
    }
}
