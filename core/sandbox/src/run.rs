//! Runs a program on a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use realm_engine::{Chunk, Finish, FinishReason, LoadedModel, MemoryKind, RunEnd, RunMeter};
use wasmtime::{Store, UpdateDeadline};

use crate::budget::Budget;
use crate::clock::TICK;
use crate::context::{Context, FindModel, RunProgram};
use crate::convert::request_to_wit;
use crate::executor::Running;
use crate::grants::Grants;
use crate::program::{Kind, Program, Programs};
use crate::reader::{Chunks, Reader};
use crate::request::{Request, json_memory};
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::slots::Slot;
use crate::state::{Sink, State};
use crate::{Error, ErrorKind};
use crate::{policy, raw};

/// A request to a program, with everything that the run needs.
pub struct Job {
    /// The program that answers.
    pub program: Program,
    /// The request.
    pub request: Request,
    /// The model that answers the program's calls.
    pub model: Arc<LoadedModel>,
    /// Other models that the application has loaded, by name.
    pub models: FindModel,
    /// The tenant that the run belongs to.
    pub tenant: Arc<realm_engine::Tenant>,
    /// The things that its programs may do besides asking models.
    pub grants: Arc<Grants>,
    /// The tenant's other programs.
    pub programs: Arc<Programs>,
}

/// A running program. Dropping it ends the run at once.
pub struct Reply {
    /// The chunks of the answer; the last one says how it ended. An error ends it.
    pub chunks: Chunks,
    _running: Running,
}

/// The bytes of memory of a run that waits for its turn, besides its request; and of an instance besides its
/// memories and tables: its state, the pages of the pool that it touches, and those of a shallow stack.
/// Measured as the growth of a process with 1,000 waiting runs, and with 1,000 instances that had written to
/// all of their memory (`ledger` of the tests): 29 to 32 KiB each.
const RUN_BYTES: usize = 4 << 10;
const INSTANCE_BYTES: usize = 30 << 10;

/// The most chunks that a reader may be behind before the program waits for it.
const CHANNEL: usize = 64;

/// The time limit of a run whose tenant has none.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);

impl Sandbox {
    /// Starts a program and returns its stream at once.
    ///
    /// # Errors
    /// `LimitExceeded` if the tenant's queue is full.
    pub fn run(&self, job: Job) -> Result<Reply, Error> {
        let submitted = Instant::now();
        let limits = job.tenant.limits();
        let ledger = job.tenant.memory().clone();
        let charge = ledger.charge(MemoryKind::Requests, RUN_BYTES + job.request.memory())?;
        let mut place = job.tenant.enter()?;
        self.reserve(&job.tenant);
        let (send, chunks) = realm_handover::channel(CHANNEL);
        let budget = Budget::new(limits.program, Arc::clone(&job.programs.pace), ledger.clone());
        // Dropped with the run if the run is cancelled.
        let meter = Arc::new(Mutex::new(job.model.engine.run_meter(&job.tenant)));
        let ticking = self.0.clock.run();
        let runtime = Arc::clone(&self.0);
        let (account, reader) = (Arc::clone(&budget), Reader::new(send, ledger));
        let timeout = limits.request_timeout.unwrap_or(FOREVER);
        let work = async move {
            let (_ticking, _charge) = (ticking, charge);
            let counts = meter;
            let tenant = Arc::clone(&job.tenant);
            let answered = tokio::time::timeout(timeout, async {
                place.started().await;
                let (id, needs) = (job.tenant.id(), job.program.0.needs);
                let slot = match runtime.slots.try_take(id, needs) {
                    Some(slot) => slot,
                    None if runtime.slots.could_hold(needs) => {
                        if job.tenant.limits().max_concurrent.is_none() {
                            // Without a limit on running requests this run counts as waiting, so that
                            // `max_queued` bounds it.
                            place.wait();
                        }
                        let slot = runtime.slots.take(id, needs).await.ok_or_else(no_room)?;
                        place.started().await;
                        slot
                    }
                    None => return Err(no_room()),
                };
                lock(&counts).started();
                let context = Arc::new(Context {
                    model: job.model,
                    models: job.models,
                    tenant: job.tenant,
                    grants: job.grants,
                    connections: Arc::clone(&job.programs.connections),
                    log: job.programs.log.clone(),
                    run_program: run_program(&runtime, job.programs),
                    request: job.request,
                    budget: account,
                    meter: Arc::clone(&counts),
                    submitted,
                    started: Instant::now(),
                });
                answer(&runtime, context, &job.program, Sink::Reader(reader.clone()), slot).await
            })
            .await;
            let end = match &answered {
                Ok(Ok(_)) => RunEnd::Finished,
                Ok(Err(_)) => RunEnd::Failed,
                Err(_) => RunEnd::TimedOut,
            };
            let last = match answered {
                Ok(Ok((reason, state))) => {
                    let finish = Finish { reason, usage: state.usage, timings: state.timings() };
                    Ok(Chunk { text: String::new(), tokens: Vec::new(), finish: Some(finish) })
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(Error::limit(format!(
                    "the request took longer than tenant `{}` may (`request_timeout`)",
                    tenant.name()
                ))),
            };
            // The reader of the last chunk may read the counters at once, or need this run's place.
            lock(&counts).ended(end);
            drop(place);
            reader.end(last).await;
        };
        Ok(Reply { chunks: Chunks::new(chunks), _running: self.0.executor.spawn(budget, work) })
    }
}

fn lock(meter: &Mutex<RunMeter>) -> MutexGuard<'_, RunMeter> {
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the function that runs one of a tenant's programs for another.
fn run_program(runtime: &Arc<Runtime>, programs: Arc<Programs>) -> RunProgram {
    let runtime = Arc::clone(runtime);
    Arc::new(move |context, name, input, depth| {
        let (runtime, programs) = (Arc::clone(&runtime), Arc::clone(&programs));
        Box::pin(async move {
            let none = || Error::new(ErrorKind::NotFound, format!("the tenant has no program `{name}`"));
            let program = programs.get(&name).ok_or_else(none)?;
            nested(&runtime, &context, &program, input, depth).await
        })
    })
}

/// Runs a program to its end, for another program; returns its output.
async fn nested(
    runtime: &Runtime,
    context: &Context,
    program: &Program,
    input: serde_json::Value,
    depth: usize,
) -> Result<String, Error> {
    let carried = context.budget.charge_transfer(context.request.memory() + json_memory(&input))?;
    let mut context = Context::clone(context);
    context.request.input = input;
    let sink = Sink::Caller { text: String::new(), depth, charge: carried };
    // It cannot wait for slots: its caller may hold all there are.
    let slot = runtime.slots.try_take_more(context.tenant.id(), program.0.needs);
    let slot = slot.ok_or_else(|| {
        Error::limit("as many of the tenant's programs run as there is room for; one more was to be called")
    })?;
    let (_, mut state) = answer(runtime, Arc::new(context), program, sink, slot).await?;
    match &mut state.sink {
        Sink::Caller { text, .. } => Ok(std::mem::take(text)),
        Sink::Reader(_) => Err(Error::new(ErrorKind::Internal, "a nested program's text went elsewhere")),
    }
}

/// Returns the error for a program that needs more than the whole pool.
fn no_room() -> Error {
    Error::limit("the program has more core modules, memories or tables than there is room for")
}

/// Runs one instance for one request. The instance is dropped before its slot is free.
async fn answer(
    runtime: &Runtime,
    context: Arc<Context>,
    program: &Program,
    sink: Sink,
    _slot: Slot,
) -> Result<(FinishReason, State), Error> {
    let held = context.budget.ledger.charge(MemoryKind::Programs, INSTANCE_BYTES)?;
    let mut store = Store::new(&runtime.engine, State::new(Arc::clone(&context), sink, held));
    store.limiter(|state| state);
    store.set_hostcall_fuel(context.budget.limits().memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        let budget = &store.data().context.budget;
        budget.check_time()?;
        // The clock also ticks while the program waits; only its computing time counts.
        Ok(if budget.time.poll() < TICK { UpdateDeadline::Continue(1) } else { UpdateDeadline::Yield(1) })
    });
    let request = request_to_wit(&context.request)?;
    let ended = match &program.0.kind {
        Kind::Run(pre) => match pre.instantiate_async(&mut store).await {
            Ok(instance) => instance.realm_tenant_program().call_run(&mut store, &request).await,
            Err(error) => return Err(store.data().start_failure(&error)),
        },
        Kind::Raw(pre) => {
            return match raw::run(&mut store, pre).await {
                Ok(reason) => Ok((reason, store.into_data())),
                Err(error) => Err(store.data().start_failure(&error)),
            };
        }
        Kind::Policy(pre) => match pre.instantiate_async(&mut store).await {
            Ok(instance) => return policy::run(store, &instance, request).await,
            Err(error) => return Err(store.data().start_failure(&error)),
        },
    };
    match ended {
        Ok(Ok(reason)) => Ok((reason.into(), store.into_data())),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(store.data().failure(&error)),
    }
}
