//! Runs a program on a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use realm_engine::{Chunk, Finish, FinishReason, LoadedModel, MemoryKind, RunEnd, RunMeter};
use wasmtime::{Store, UpdateDeadline};

use crate::bindings::realm::tenant::types as wit;
use crate::budget::Budget;
use crate::clock::TICK;
use crate::executor::Running;
use crate::grants::Grants;
use crate::host::logits::{grammar_to_wit, sampling_to_wit};
use crate::host::models::to_wit;
use crate::program::{Kind, Program, Programs};
use crate::reader::{Chunks, Reader};
use crate::request::{Request, json_memory};
use crate::sandbox::{FOREVER, Sandbox};
use crate::seats::Seat;
use crate::state::{Context, Sink, State};
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

/// Finds a loaded model by its name.
pub type FindModel = Arc<dyn Fn(&str) -> Option<Arc<LoadedModel>> + Send + Sync>;

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
        self.expect(&job.tenant);
        let (send, chunks) = realm_handover::channel(CHANNEL);
        let budget = Budget::new(limits.program, Arc::clone(&job.programs.pace), ledger.clone());
        // Dropped with the run if the run is cancelled.
        let meter = Arc::new(Mutex::new(job.model.engine.run_meter(&job.tenant)));
        let ticking = self.0.clock.run();
        let core = Arc::clone(&self.0);
        let (account, reader) = (Arc::clone(&budget), Reader::new(send, ledger));
        let timeout = limits.request_timeout.unwrap_or(FOREVER);
        let work = async move {
            let (_ticking, _charge) = (ticking, charge);
            let counts = meter;
            let tenant = Arc::clone(&job.tenant);
            let answered = tokio::time::timeout(timeout, async {
                place.started().await;
                let (id, needs) = (job.tenant.id(), job.program.0.needs);
                let seat = match core.seats.try_take(id, needs) {
                    Some(seat) => seat,
                    None if core.seats.could_hold(needs) => {
                        if job.tenant.limits().max_concurrent.is_none() {
                            // Without a limit on running requests this run counts as waiting, so that
                            // `max_queued` bounds it.
                            place.wait();
                        }
                        let seat = core.seats.take(id, needs).await.ok_or_else(no_room)?;
                        place.started().await;
                        seat
                    }
                    None => return Err(no_room()),
                };
                lock(&counts).started();
                let context = Arc::new(Context {
                    core,
                    model: job.model,
                    models: job.models,
                    tenant: job.tenant,
                    grants: job.grants,
                    programs: job.programs,
                    request: job.request,
                    budget: account,
                    meter: Arc::clone(&counts),
                    submitted,
                    started: Instant::now(),
                });
                answer(context, &job.program, Sink::Reader(reader.clone()), seat).await
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

/// Runs a program to its end, for another program; returns its output.
pub(crate) async fn nested(
    context: &Context,
    program: &Program,
    input: serde_json::Value,
    depth: usize,
) -> Result<String, Error> {
    let carried = context.budget.carry(context.request.memory() + json_memory(&input))?;
    let mut context = Context::clone(context);
    context.request.input = input;
    // Boxed, since the program may run itself.
    let sink = Sink::Caller { text: String::new(), depth, charge: carried };
    // It cannot wait for places: its caller may hold all there are.
    let seat = context.core.seats.try_take_more(context.tenant.id(), program.0.needs);
    let seat = seat.ok_or_else(|| {
        Error::limit("as many of the tenant's programs run as there is room for; one more was to be called")
    })?;
    let (_, mut state) = Box::pin(answer(Arc::new(context), program, sink, seat)).await?;
    match &mut state.sink {
        Sink::Caller { text, .. } => Ok(std::mem::take(text)),
        Sink::Reader(_) => Err(Error::new(ErrorKind::Internal, "a nested program's text went elsewhere")),
    }
}

/// Returns the error for a program that needs more than the whole pool.
fn no_room() -> Error {
    Error::limit("the program has more core modules, memories or tables than there is room for")
}

/// Runs one instance for one request. The instance is dropped before its seat is free.
async fn answer(
    context: Arc<Context>,
    program: &Program,
    sink: Sink,
    _seat: Seat,
) -> Result<(FinishReason, State), Error> {
    let engine = &context.core.engine;
    let held = context.budget.ledger.charge(MemoryKind::Programs, INSTANCE_BYTES)?;
    let mut store = Store::new(engine, State::new(Arc::clone(&context), sink, held));
    store.limiter(|state| state);
    store.set_hostcall_fuel(context.budget.limits().memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        let budget = &store.data().context.budget;
        budget.check_time()?;
        // The clock also ticks while the program waits; only its computing time counts.
        Ok(if budget.time.poll() < TICK { UpdateDeadline::Continue(1) } else { UpdateDeadline::Yield(1) })
    });
    let request = request_to_wit(&context.request);
    let ended = match &program.0.kind {
        Kind::Run(pre) => match pre.instantiate_async(&mut store).await {
            Ok(instance) => instance.realm_tenant_program().call_run(&mut store, &request).await,
            Err(error) => return Err(not_started(&error, store.data())),
        },
        Kind::Raw(pre) => {
            return match raw::run(&mut store, pre).await {
                Ok(reason) => Ok((reason, store.into_data())),
                Err(error) => Err(not_started(&error, store.data())),
            };
        }
        Kind::Policy(pre) => match pre.instantiate_async(&mut store).await {
            Ok(instance) => return policy::run(store, &instance, request).await,
            Err(error) => return Err(not_started(&error, store.data())),
        },
    };
    match ended {
        Ok(Ok(reason)) => Ok((reason.into(), store.into_data())),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(ended_early(&error, store.data())),
    }
}

/// Returns the reason why an instance could not be created.
fn not_started(error: &wasmtime::Error, state: &State) -> Error {
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Error::new(
            ErrorKind::Overloaded,
            "as many programs run as there is room for; try again later",
        );
    }
    if let Some(short) = &state.short {
        return short.clone();
    }
    if state.refused {
        let limit = state.context.budget.limits().memory;
        return Error::limit(format!(
            "the program needs more memory than its limit `program.memory` of {limit} bytes: {error:#}"
        ));
    }
    if !error.is::<Error>() && !error.is::<wasmtime::Trap>() {
        // The types of its functions are compared when the instance is created.
        return Error::new(ErrorKind::InvalidProgram, format!("the program can't be started: {error:#}"));
    }
    ended_early(error, state)
}

/// Returns the reason why a call did not return.
pub(crate) fn ended_early(error: &wasmtime::Error, state: &State) -> Error {
    let error = Error::of_call(error);
    match state.complaint() {
        Some(complaint) if error.kind() == ErrorKind::Trap => {
            Error::new(ErrorKind::Trap, format!("{error}\nit wrote: {complaint}"))
        }
        _ => error,
    }
}

/// Converts a request for the guest.
fn request_to_wit(request: &Request) -> wit::Request {
    wit::Request {
        prompt: to_wit(&request.prompt),
        sampling: sampling_to_wit(&request.sampling),
        max_tokens: request.max_tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)),
        stop: request.stop.clone(),
        grammar: request.grammar.as_ref().map(grammar_to_wit),
        ignore_eos: request.ignore_eos,
        input: request.input.to_string(),
    }
}

impl From<wit::FinishReason> for FinishReason {
    fn from(reason: wit::FinishReason) -> Self {
        match reason {
            wit::FinishReason::Stop => Self::Stop,
            wit::FinishReason::Length => Self::Length,
        }
    }
}
