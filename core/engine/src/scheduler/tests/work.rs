//! Work is charged by its cost in rows, not by time, whichever call a tenant makes, and the work of one step
//! is bounded.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use realm_model::{ActivationId, Layerwise, Slice};

use super::beside::{MOST, SLICE};
use super::*;
use crate::LayerwiseSession;
use crate::answer::Answer;
use crate::command::{Command, SessionCommand};
use crate::prices::Pace;
use crate::task::session::{Forwarded, Output, Results};
use crate::tenant::Sent;

/// One token in each step, so that they can be counted.
fn config() -> EngineConfig {
    EngineConfig { speculation: Speculation::Off, ..EngineConfig::default() }
}

const ALONE: f64 = Pace::HOST.alone;

/// A program's session, and the commands that it sends.
struct Program {
    session: LayerwiseSession,
    commands: std::sync::mpsc::Receiver<Command>,
}

type Computed = Result<(), realm_model::Error>;

impl Program {
    fn open(bench: &mut Bench, model: &Model, owner: &Arc<Tenant>) -> Self {
        let (send, commands) = std::sync::mpsc::channel();
        let layerwise = model.layerwise(CacheType::F32).expect("a runner");
        let session = LayerwiseSession::open(bench.next_id(), send, owner, layerwise).expect("a session");
        let this = Self { session, commands };
        this.pass_on(bench);
        this
    }

    /// Brings the session's commands to the scheduler, as the engine does.
    fn pass_on(&self, bench: &mut Bench) {
        while let Ok(Command::Layerwise(command)) = self.commands.try_recv() {
            bench.scheduler.layerwise(command);
        }
    }

    fn make(
        &self,
        bench: &mut Bench,
        compute: impl FnMut(&mut dyn Layerwise, &mut Slice<'_>, ActivationId) -> Computed + Send + 'static,
    ) -> ActivationId {
        let made = self.session.make(compute).expect("a tensor");
        self.pass_on(bench);
        made
    }

    fn embed(&self, bench: &mut Bench, tokens: Vec<u32>) -> ActivationId {
        self.make(bench, move |layerwise, slice, to| layerwise.embed(slice, &tokens, to))
    }

    fn add(&self, bench: &mut Bench, x: ActivationId, scale: f32) {
        self.session.start(move |layerwise, slice| layerwise.add(slice, x, x, scale)).expect("an operation");
        self.pass_on(bench);
    }

    fn gather(&self, bench: &mut Bench, x: ActivationId, rows: impl Iterator<Item = u32>) -> ActivationId {
        let rows: Vec<u32> = rows.collect();
        self.make(bench, move |layerwise, slice, to| layerwise.gather(slice, x, &rows, to))
    }

    fn left(&self) -> usize {
        self.session.queued()
    }

    /// Multiplies rows of the model's hidden states with the output matrix, `times` times.
    fn multiply(&self, bench: &mut Bench, rows: usize, times: usize) {
        let x = self.embed(bench, text(3, 0, rows));
        for _ in 0..times {
            self.product(bench, x, rows);
        }
    }

    fn product(&self, bench: &mut Bench, x: ActivationId, rows: usize) -> ActivationId {
        self.make(bench, move |layerwise, slice, to| {
            layerwise.matmul(slice, "token_embd.weight", x, rows, to)
        })
    }

    fn read(&self, bench: &mut Bench, x: ActivationId) -> Answer<Vec<f32>> {
        let answer = self.session.read(move |layerwise, slice, out| layerwise.read(slice, x, out));
        self.pass_on(bench);
        answer.expect("an answer")
    }
}

/// The price of logits of one row.
fn one_row(bench: &Bench) -> f64 {
    let prices = &bench.scheduler.prices;
    prices.of(prices.work.logits(1))
}

/// Starts a victim that generates one token in each step.
fn victim(bench: &mut Bench, tokens: usize) -> (Arc<Tenant>, Chunks) {
    let victim = tenant(Limits::default());
    let chunks = bench.generate(&victim, &text(1, 0, 4), tokens);
    bench.step();
    assert_eq!(super::tokens(&chunks).0.len(), 1);
    (victim, chunks)
}

/// Steps until a program has nothing left to do; returns the work that each step did beside its pass.
fn steps_beside(bench: &mut Bench, chunks: &Chunks, program: &Program) -> Vec<f64> {
    let mut done = Vec::new();
    while program.left() > 0 {
        assert_eq!(bench.step(), Next::Go);
        assert_eq!(tokens(chunks).0.len(), 1, "every step serves the one who generates");
        done.push(bench.scheduler.beside.done);
    }
    done
}

#[test]
fn a_tenants_pieces_get_as_much_of_a_step_as_a_row_in_its_batch_takes() {
    let model = tiny("llama-f32");
    let mut bench = Bench::new(&model, 100, config());
    let (_victim, chunks) = victim(&mut bench, 1500);
    let mallory = tenant(Limits::default());
    let program = Program::open(&mut bench, &model, &mallory);
    program.multiply(&mut bench, 100, 3);
    let done = steps_beside(&mut bench, &chunks, &program);
    // One slice in a step, and then as many steps without one as pay for it.
    let one_row = one_row(&bench);
    let most = SLICE.max(one_row) + 1.0 / ALONE;
    assert!(done.iter().all(|&rows| rows <= most), "{done:?}");
    let all: f64 = done.iter().sum();
    let prices = &bench.scheduler.prices;
    let work = 3.0 * prices.of(prices.work.matmul(100, [model.config().vocab, model.config().hidden]));
    assert!(all >= work, "{all} rows were charged for {work}");
    // The program has the victim's weight and so the same share: a row a pass, of which those beside a batch
    // count for several.
    assert!(all <= done.len() as f64 / ALONE + most, "{all} rows in {} steps", done.len());
    assert!(done.len() as f64 <= ALONE * all + 8.0, "it waits no longer than that: {} steps", done.len());
}

#[test]
fn a_tenant_with_many_sequences_does_not_raise_the_shares_beside_the_pass() {
    let model = tiny("llama-f32");
    let mut bench = Bench::new(&model, 100, config());
    let (_victim, chunks) = victim(&mut bench, 1500);
    let busy = tenant(Limits::default());
    let streams: Vec<Chunks> = (0..8).map(|i| bench.generate(&busy, &text(10 + i, 0, 4), 1500)).collect();
    for _ in 0..8 {
        bench.step();
    }
    let _ = tokens(&chunks);
    let mallory = tenant(Limits::default());
    let program = Program::open(&mut bench, &model, &mallory);
    program.multiply(&mut bench, 100, 3);
    let done = steps_beside(&mut bench, &chunks, &program);
    assert!(streams.iter().all(|stream| !tokens(stream).0.is_empty()));
    let most = SLICE.max(one_row(&bench)) + 1.0 / ALONE;
    let all: f64 = done.iter().sum();
    assert!(all <= done.len() as f64 / ALONE + most, "{all} rows in {} steps", done.len());
}

#[test]
fn additions_reads_and_copies_are_charged_by_what_they_move() {
    let model = tiny("llama-f32");
    let mut bench = Bench::new(&model, 100, config());
    let (_victim, chunks) = victim(&mut bench, 1500);
    let mallory = tenant(Limits::default());
    let program = Program::open(&mut bench, &model, &mallory);
    let (rows, width) = (20, 256);
    let ones = vec![1.0; rows * width];
    let x = program.make(&mut bench, move |layerwise, slice, to| layerwise.upload(slice, width, &ones, to));
    for _ in 0..3 {
        program.add(&mut bench, x, 1.0);
    }
    let copy = program.gather(&mut bench, x, (0..20).rev());
    let values = program.read(&mut bench, copy);
    let done = steps_beside(&mut bench, &chunks, &program);
    assert!(values.wait().unwrap().iter().all(|&value| value == 8.0));
    let all: f64 = done.iter().sum();
    let numbers = bench.scheduler.prices.numbers(rows * width);
    assert!(all >= 19.0 * numbers, "{all} rows for 19 times {numbers}");
    assert!(done.len() as f64 >= ALONE * (all - 2.0 * done.iter().copied().fold(0.0, f64::max)));
}

#[test]
fn slices_change_no_bit_of_a_result() {
    let model = tiny("llama-f32");
    let compute = |beside: bool| {
        let mut bench = Bench::new(&model, 100, config());
        let _chunks = beside.then(|| victim(&mut bench, 1500));
        let mallory = tenant(Limits::default());
        let program = Program::open(&mut bench, &model, &mallory);
        let x = program.embed(&mut bench, text(7, 0, 60));
        let cache = program.make(&mut bench, |layerwise, slice, to| layerwise.open_cache(slice, 64, to));
        let x = program
            .make(&mut bench, move |layerwise, slice, to| layerwise.attention(slice, 0, x, 60, cache, to));
        let x =
            program.make(&mut bench, move |layerwise, slice, to| layerwise.feed_forward(slice, 0, x, 60, to));
        program.add(&mut bench, x, 0.5);
        let x = program.gather(&mut bench, x, (0..60).rev());
        let product = program.product(&mut bench, x, 60);
        let values = program.read(&mut bench, product);
        let logits = program.session.read(move |layerwise, slice, out| layerwise.logits(slice, x, 60, out));
        let logits = logits.expect("an answer");
        program.pass_on(&mut bench);
        let mut steps = 0;
        while program.left() > 0 {
            assert_eq!(bench.step(), Next::Go);
            steps += 1;
        }
        let bits = |values: Answer<Vec<f32>>| -> Vec<u32> {
            values.wait().unwrap().iter().map(|value| value.to_bits()).collect()
        };
        (bits(values), bits(logits), steps)
    };
    let (alone, beside) = (compute(false), compute(true));
    assert!(alone.0 == beside.0 && alone.1 == beside.1);
    assert!(beside.2 > 20 * alone.2, "{} steps beside, {} alone", beside.2, alone.2);
}

#[test]
fn many_tenants_pieces_together_are_bounded_and_weights_count() {
    let model = tiny("llama-f32");
    let mut bench = Bench::new(&model, 100, config());
    let (_victim, chunks) = victim(&mut bench, 1500);
    let all: Vec<(Arc<Tenant>, Program)> = (0..40)
        .map(|i| {
            let owner = tenant(Limits { weight: if i % 2 == 0 { 1.0 } else { 3.0 }, ..Limits::default() });
            let program = Program::open(&mut bench, &model, &owner);
            program.multiply(&mut bench, 100, 1000);
            (owner, program)
        })
        .collect();
    let before: Vec<f64> =
        all.iter().map(|(owner, _)| bench.scheduler.accounts.counter(owner.id())).collect();
    let mut most: f64 = 0.0;
    let (mut total, steps) = (0.0, 400);
    for _ in 0..steps {
        bench.step();
        assert_eq!(tokens(&chunks).0.len(), 1);
        most = most.max(bench.scheduler.beside.done);
        total += bench.scheduler.beside.done;
    }
    let one = one_row(&bench).max(SLICE);
    assert!(most <= MOST / ALONE + one, "{most} rows in one step");
    assert!(total <= f64::from(steps) * MOST / ALONE + one, "{total} rows in {steps} steps");
    let got: Vec<f64> = all
        .iter()
        .zip(before)
        .map(|((owner, _), before)| {
            (bench.scheduler.accounts.counter(owner.id()) - before) * f64::from(owner.limits().weight)
        })
        .collect();
    let sum = |odd: usize| got.iter().skip(odd).step_by(2).sum::<f64>();
    let ratio = sum(1) / sum(0);
    assert!((2.4..3.6).contains(&ratio), "those of weight 3 got {ratio} times as much");
}

/// Sends a command as a program's handle does.
fn send(bench: &mut Bench, owner: &Arc<Tenant>, command: SessionCommand) {
    bench.scheduler.command(Sent::new(owner), command);
}

fn open(bench: &mut Bench, owner: &Arc<Tenant>) -> u64 {
    let (id, limit) = (bench.next_id(), bench.context);
    let tenant = Arc::clone(owner);
    send(bench, owner, SessionCommand::Open { id, tenant, adapter: None, limit, shared_prefix: 0 });
    id
}

fn forward(
    bench: &mut Bench,
    owner: &Arc<Tenant>,
    id: u64,
    tokens: Vec<u32>,
) -> Receiver<Result<Forwarded, Error>> {
    let (reply, answer) = realm_handover::channel(1);
    let results = Results::Values(Forwarded::default(), reply);
    send(bench, owner, SessionCommand::Forward { id, tokens, output: Output::LastLogits, results });
    answer
}

/// Returns whether a tenant may send another command now.
fn is_ready(owner: &Tenant) -> bool {
    pin!(owner.ready()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

#[test]
fn endless_commands_and_their_sender_wait_for_their_turn() {
    let model = tiny("llama-f32");
    let mut bench = Bench::new(&model, 200, config());
    let (_victim, chunks) = victim(&mut bench, 1000);
    let (mallory, honest) = (tenant(Limits::default()), tenant(Limits::default()));
    let (long, short) = (open(&mut bench, &mallory), open(&mut bench, &honest));
    let answer = forward(&mut bench, &mallory, long, text(5, 0, 1000));
    while answer.try_recv().is_err() {
        bench.step();
    }
    // One without rows of the prompt: what is done beside a pass depends on the pass.
    bench.step();
    tokens(&chunks);
    assert!(is_ready(&mallory));
    let forks = 60;
    for _ in 0..forks {
        let to = bench.next_id();
        send(&mut bench, &mallory, SessionCommand::Fork { id: long, to });
        send(&mut bench, &mallory, SessionCommand::Close { id: to });
    }
    assert!(!is_ready(&mallory) && is_ready(&honest));
    let commands = |bench: &Bench| -> usize {
        bench.scheduler.accounts.iter().map(|account| account.commands.len()).sum()
    };
    let mut steps = 0;
    while commands(&bench) > 0 {
        let answer = forward(&mut bench, &honest, short, vec![steps % 90]);
        let before = commands(&bench);
        bench.step();
        assert!(answer.try_recv().is_ok(), "another program's forward is in the next step");
        assert_eq!(tokens(&chunks).0.len(), 1);
        // One fork is not cut. The model is so small that copying its tokens and pages costs several rows.
        let one = bench.scheduler.prices.command(1000 + 16 * 64);
        assert!(bench.scheduler.beside.done <= 2.0 / ALONE + SLICE + one);
        assert!(before - commands(&bench) < forks, "not all of them in one step");
        steps += 1;
    }
    assert!(steps > 50, "{steps} steps");
    assert!(is_ready(&mallory));
}

#[test]
fn senders_do_not_wait_for_an_engine_that_has_ended() {
    let model = tiny("llama-f32");
    let owner = tenant(Limits::default());
    let mut bench = Bench::new(&model, 100, config());
    for _ in 0..100 {
        open(&mut bench, &owner);
    }
    assert!(!is_ready(&owner));
    drop(bench);
    assert!(is_ready(&owner));
}

#[test]
fn saving_and_restoring_are_cut_into_slices_and_charged_by_their_bytes() {
    let model = tiny("llama-f32");
    let mut bench = Bench::new(&model, 400, config());
    let owner = tenant(Limits::default());
    let id = open(&mut bench, &owner);
    let answer = forward(&mut bench, &owner, id, text(5, 0, 200));
    bench.finish();
    answer.try_recv().unwrap().unwrap();
    let (_victim, chunks) = victim(&mut bench, 3000);
    // From here on the victim shares the passes.
    bench.step();
    tokens(&chunks);
    let (reply, saved) = realm_handover::channel(1);
    send(&mut bench, &owner, SessionCommand::Save { id, reply, begun: None });
    let mut snapshot = None;
    let (all, most) = until(&mut bench, &chunks, |_| {
        snapshot = saved.try_recv().ok();
        snapshot.is_some()
    });
    let snapshot = snapshot.unwrap().unwrap();
    let numbers: usize = snapshot.pages.iter().flatten().map(|page| page.len() / 4).sum();
    let page = bench.scheduler.prices.numbers(2 * numbers / snapshot.pages.len());
    assert!(all >= 2.0 * bench.scheduler.prices.numbers(numbers), "{all} rows");
    assert!(most <= SLICE + page + bench.scheduler.prices.command(200), "{most} rows in one step");

    // The same holds for a restored sequence, which continues like the saved one.
    let other = open(&mut bench, &owner);
    send(&mut bench, &owner, SessionCommand::Restore { id: other, snapshot, foreign: false, done: 0 });
    let (restored, most) = until(&mut bench, &chunks, |bench| {
        bench.scheduler.accounts.get_mut(owner.id()).is_none_or(|account| account.commands.is_empty())
    });
    assert!(restored >= 2.0 * bench.scheduler.prices.numbers(numbers), "{restored} rows");
    assert!(most <= SLICE + page + bench.scheduler.prices.command(200), "{most} rows in one step");
    let answers = [id, other].map(|id| forward(&mut bench, &owner, id, vec![7]));
    bench.finish();
    let [one, same] = answers.map(|answer| answer.try_recv().unwrap().unwrap());
    assert_eq!(one.values, same.values);
}

/// Steps until `done` returns true; returns the work beside the passes, the total and the most in one step.
fn until(bench: &mut Bench, victim: &Chunks, mut done: impl FnMut(&mut Bench) -> bool) -> (f64, f64) {
    let (mut all, mut most) = (0.0, 0.0f64);
    while !done(bench) {
        bench.step();
        assert_eq!(tokens(victim).0.len(), 1, "every step serves the one who generates");
        all += bench.scheduler.beside.done;
        most = most.max(bench.scheduler.beside.done);
    }
    (all, most)
}

#[test]
fn who_has_many_sequences_leaves_others_their_step() {
    let model = tiny("llama-f32");
    let config = EngineConfig { decode_rows: 32, ..config() };
    let mut bench = Bench::new(&model, 600, config);
    let mallory = tenant(Limits::default());
    let all: Vec<Chunks> = (0..30).map(|i| bench.generate(&mallory, &text(i, 0, 8), 400)).collect();
    let (_victim, chunks) = victim(&mut bench, 400);
    let mut most = Vec::new();
    for _ in 0..200 {
        bench.step();
        assert_eq!(tokens(&chunks).0.len(), 1);
        most.push(bench.scheduler.batch.rows());
    }
    assert!(most.iter().all(|&rows| rows == 9), "{most:?}");
    let got: Vec<usize> = all.iter().map(|chunks| tokens(chunks).0.len()).collect();
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(4 * most <= 5 * least, "they take turns: {got:?}");
}

#[test]
fn tokens_that_take_long_to_choose_hold_others_up_in_one_pass_of_some() {
    let model = tiny("llama-f32");
    let mut bench = Bench::new(&model, 600, EngineConfig { speculation: Speculation::Off, ..config() });
    bench.scheduler.host_threads = 1;
    let (_victim, chunks) = victim(&mut bench, 200);
    let mallory = tenant(Limits::default());
    let wide = Sampling { temperature: 1.0, top_k: 0, typical_p: 0.5, ..Sampling::default() };
    let prompt = |i| text(i, 0, 8);
    let all: Vec<Chunks> = (0..6).map(|i| bench.sample(&mallory, &prompt(i), 200, 0, wide.clone())).collect();
    let cost = bench.scheduler.prices.numbers(18 * bench.scheduler.prices.vocab());
    let together = ((0.5 / cost) as usize).clamp(1, 6);
    assert!(6.0 * cost > 0.5 && together < 6, "the test is of tokens that take long: {cost} rows each");
    let mut rows = Vec::new();
    for _ in 0..90 {
        bench.step();
        assert_eq!(tokens(&chunks).0.len(), 1);
        rows.push(bench.scheduler.batch.rows());
    }
    assert!(
        rows[10..].chunks(3).all(|three| three.iter().filter(|&&rows| rows > 1).count() <= 1),
        "{rows:?}"
    );
    assert!(rows[10..].iter().all(|&rows| rows <= 1 + together), "{rows:?}");
    let got: Vec<usize> = all.iter().map(|chunks| tokens(chunks).0.len()).collect();
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(*least > 0 && most - least <= 2, "they take turns: {got:?}");
    // Alone they have every pass.
    drop(chunks);
    for _ in 0..10 {
        bench.step();
    }
    assert!(bench.scheduler.batch.rows() == 6);
}

#[test]
fn requests_that_are_given_up_as_fast_as_they_come_end_a_few_in_a_step_and_are_charged() {
    let mut bench = Bench::new(&tiny("llama-f32"), 100, config());
    let (_victim, chunks) = victim(&mut bench, 100);
    let mallory = tenant(Limits::default());
    (0..500).for_each(|i| drop(bench.generate(&mallory, &text(i, 0, 50), 4)));
    let mut steps = 0;
    while mallory.waiting() + mallory.running() > 0 {
        let before = mallory.waiting();
        let counter = bench.scheduler.accounts.counter(mallory.id());
        bench.step();
        assert_eq!(tokens(&chunks).0.len(), 1);
        assert_eq!(bench.scheduler.batch.rows(), 1, "none of them has rows");
        assert!(before - mallory.waiting() <= MOST_ENDED);
        assert!(bench.scheduler.accounts.counter(mallory.id()) > counter);
        steps += 1;
    }
    assert!(steps >= 500 / MOST_ENDED, "{steps} steps");
}

#[test]
fn who_sends_prompt_after_prompt_computes_them_with_patience_beside_others() {
    let model = tiny("llama-f32");
    let config = EngineConfig { prefix_cache: false, ..config() };
    let mut bench = Bench::new(&model, 400, config);
    let (_victim, chunks) = victim(&mut bench, 400);
    let mallory = tenant(Limits::default());
    let (mut rows, mut held_up) = (0, 0);
    for i in 0..300 {
        // Cancelled at once, or in the middle.
        let prompt = bench.generate(&mallory, &text(i, 0, 200), 4);
        bench.step();
        assert_eq!(tokens(&chunks).0.len(), 1);
        let beside = bench.scheduler.batch.rows() - 1;
        rows += beside;
        if i >= 30 {
            held_up += usize::from(beside > 0);
        }
        drop(prompt);
    }
    assert!(held_up <= 270 * 2 / 5 + 1, "{held_up} of 270 steps had rows of theirs");
    assert!(rows > 270 * 30, "and they get on: {rows} rows");
}
