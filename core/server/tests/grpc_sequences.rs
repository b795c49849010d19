//! gRPC: sequences that a caller drives, and what bounds them.

mod common;
#[path = "common/rpc.rs"]
mod rpc;

use common::{MODEL, Memory, Running, any_port, held, model, start, start_with};
use realm::Output;
use realm_rpc::v1;
use realm_server::keys::{Scope, Store};
use realm_server::{Config, Http, LimitsConfig, Rates, TenantConfig};
use rpc::{at_work, key, metadata, runtime, soon, with_keys};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};
use v1::sequence_command::Command;
use v1::sequence_result::Result as Outcome;

/// A call that holds sequences.
struct Call {
    commands: mpsc::UnboundedSender<v1::SequenceCommand>,
    results: Streaming<v1::SequenceResult>,
    last: u64,
}

impl Call {
    async fn begin(server: &Running, key: &str) -> Result<Self, Status> {
        let (commands, mut receiver) = mpsc::unbounded_channel();
        let sent = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
        let results = rpc::client(server.address, key).await.sequences(sent).await?.into_inner();
        Ok(Self { commands, results, last: 0 })
    }

    fn send(&mut self, sequence: u64, command: Command) -> u64 {
        self.last += 1;
        let command = v1::SequenceCommand { id: self.last, sequence, command: Some(command) };
        self.commands.send(command).unwrap();
        self.last
    }

    async fn result(&mut self) -> Result<Outcome, Status> {
        let result = self.results.message().await?.expect("the call has ended");
        Ok(result.result.unwrap())
    }

    /// Sends a command and returns its result.
    async fn ask(&mut self, sequence: u64, command: Command) -> Outcome {
        self.send(sequence, command);
        self.result().await.unwrap()
    }

    /// Sends a command that fails; returns the failure's code and message.
    async fn fails(&mut self, sequence: u64, command: Command) -> (String, String) {
        match self.ask(sequence, command).await {
            Outcome::Failure(v1::Failure { code, message }) => (code, message),
            other => panic!("{other:?}"),
        }
    }

    /// Opens a sequence with tokens.
    async fn open(&mut self, sequence: u64, tokens: &[u32]) {
        let opened = self.ask(sequence, open(MODEL)).await;
        assert!(matches!(opened, Outcome::Opened(_)), "{opened:?}");
        let appended = self.ask(sequence, append(tokens)).await;
        assert_eq!(appended, Outcome::Done(v1::Done {}));
    }
}

fn open(model: &str) -> Command {
    Command::Open(v1::OpenSequence { model: model.to_owned(), ..v1::OpenSequence::default() })
}

fn part(bytes: usize, more: bool) -> v1::OpenSequence {
    v1::OpenSequence { model: MODEL.to_owned(), saved: Some(vec![0; bytes]), more, ..Default::default() }
}

fn append(tokens: &[u32]) -> Command {
    Command::Append(v1::AppendTokens { tokens: tokens.to_vec() })
}

fn forward(output: v1::Output) -> Command {
    Command::Forward(v1::ForwardSequence { output: output.into(), length: None })
}

fn fork(to: u64) -> Command {
    Command::Fork(v1::ForkSequence { fork: to })
}

fn truncate(length: u64) -> Command {
    Command::Truncate(v1::TruncateSequence { length })
}

/// The values of a forward pass, whose parts come one after the other.
async fn values(call: &mut Call) -> Vec<f32> {
    let mut values = Vec::new();
    loop {
        match call.result().await.unwrap() {
            Outcome::Forwarded(part) => {
                values.extend(part.values);
                if !part.more {
                    return values;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The bytes of a sequence, whose parts come one after the other.
async fn saved(call: &mut Call, sequence: u64) -> Vec<u8> {
    call.send(sequence, Command::Save(v1::SaveSequence {}));
    let mut saved = Vec::new();
    loop {
        match call.result().await.unwrap() {
            Outcome::Saved(part) => {
                saved.extend(part.data);
                if !part.more {
                    return saved;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_sequence_of_another_call_does_not_exist() {
    let store = Memory::default();
    let victim = key(&store, "victim", &[Scope::Inference], Rates::default());
    let other = key(&store, "other", &[Scope::Inference], Rates::default());
    let server = with_keys(any_port(), &store);
    runtime().block_on(async {
        let mut own = Call::begin(&server, victim.as_str()).await.unwrap();
        own.open(1, &[5, 6, 7]).await;
        // Another tenant's, and another one of the same key.
        for key in [&other, &victim] {
            let mut call = Call::begin(&server, key.as_str()).await.unwrap();
            for command in [
                append(&[1]),
                forward(v1::Output::LastLogits),
                fork(2),
                truncate(0),
                Command::Save(v1::SaveSequence {}),
            ] {
                let (code, message) = call.fails(1, command).await;
                assert_eq!(code, "invalid-argument");
                assert!(message.contains("no sequence 1 in this call"), "{message}");
            }
            call.send(1, Command::Close(v1::CloseSequence {}));
            // The same name is free there.
            call.open(1, &[9]).await;
        }
        own.send(1, forward(v1::Output::LastLogits));
        let mut expected = model().sequence().unwrap();
        expected.append(&[5, 6, 7]).unwrap();
        assert_eq!(values(&mut own).await, expected.forward(Output::LastLogits).unwrap().values);
    });
}

#[test]
fn a_sequence_is_of_a_model_that_its_caller_may_name() {
    let store = Memory::default();
    let secret = key(&store, "small", &[Scope::Inference], Rates::default());
    let small = TenantConfig { models: Some(vec!["open".into(), "second".into()]), ..Default::default() };
    let config = Config { tenants: [("small".to_owned(), small)].into(), ..any_port() };
    let models = ["open", "second", "closed"].map(|name| (name.to_owned(), model())).to_vec();
    let server = start_with(config, models, Some(Box::new(store)));
    runtime().block_on(async {
        let mut said = Vec::new();
        for name in ["closed", "absent"] {
            let mut call = Call::begin(&server, secret.as_str()).await.unwrap();
            let (code, message) = call.fails(1, open(name)).await;
            assert_eq!(code, "not-found");
            said.push(message.replace(name, "NAME"));
        }
        assert_eq!(said[0], said[1]);
        let mut call = Call::begin(&server, secret.as_str()).await.unwrap();
        call.ask(1, open("open")).await;
        let (_, message) = call.fails(2, open("second")).await;
        assert!(message.contains("all of one model"), "{message}");
        let adapter = v1::AdapterUse { name: "none".into(), scale: None };
        let adapted = v1::OpenSequence { model: "open".into(), adapter: Some(adapter), ..Default::default() };
        assert_eq!(call.fails(3, Command::Open(adapted)).await.0, "not-found");
    });
}

#[test]
fn a_call_is_one_request_and_its_passes_count_what_they_compute() {
    let store = Memory::default();
    let rates = Rates { concurrent_requests: Some(1), tokens_per_minute: Some(100), ..Rates::default() };
    let secret = key(&store, "acme", &[Scope::Inference], rates);
    let server = with_keys(any_port(), &store);
    runtime().block_on(async {
        let mut call = Call::begin(&server, secret.as_str()).await.unwrap();
        let refused = Call::begin(&server, secret.as_str()).await.err().unwrap();
        assert_eq!((refused.code(), metadata(&refused, "retry-after")), (Code::ResourceExhausted, Some("1")));
        call.open(1, &[5; 80]).await;
        call.send(1, forward(v1::Output::Nothing));
        assert!(values(&mut call).await.is_empty());
        // A fork shares what is computed, and so 80 tokens are not counted again.
        assert_eq!(call.ask(1, fork(2)).await, Outcome::Done(v1::Done {}));
        call.ask(2, append(&[6; 10])).await;
        call.send(2, forward(v1::Output::Nothing));
        values(&mut call).await;
        call.open(3, &[7; 80]).await;
        let (code, message) = call.fails(3, forward(v1::Output::Nothing)).await;
        assert_eq!(code, "limit-exceeded");
        assert!(message.contains("100 tokens a minute"), "{message}");
    });
}

#[test]
fn a_restored_sequence_counts_in_whole_at_its_first_pass() {
    let store = Memory::default();
    let rates = Rates { tokens_per_minute: Some(100), ..Rates::default() };
    let secret = key(&store, "acme", &[Scope::Inference], rates);
    let server = with_keys(any_port(), &store);
    runtime().block_on(async {
        let mut call = Call::begin(&server, secret.as_str()).await.unwrap();
        call.open(1, &[5; 90]).await;
        call.send(1, forward(v1::Output::Nothing));
        assert!(values(&mut call).await.is_empty());
        let bytes = saved(&mut call, 1).await;
        // Bytes from elsewhere may hold tokens alone, and then its pass computes all 90.
        let restored = v1::OpenSequence {
            model: MODEL.to_owned(),
            saved: Some(bytes),
            foreign: true,
            ..Default::default()
        };
        let opened = call.ask(2, Command::Open(restored)).await;
        assert!(matches!(opened, Outcome::Opened(_)), "{opened:?}");
        let (code, message) = call.fails(2, forward(v1::Output::Nothing)).await;
        assert_eq!(code, "limit-exceeded");
        assert!(message.contains("100 tokens a minute"), "{message}");
    });
}

#[test]
fn a_call_holds_so_many_sequences_and_no_more() {
    let server = start(any_port());
    runtime().block_on(async {
        let mut call = Call::begin(&server, "").await.unwrap();
        call.open(0, &[5]).await;
        for name in 1..4096 {
            call.send(0, fork(name));
        }
        for _ in 1..4096 {
            assert_eq!(call.result().await.unwrap(), Outcome::Done(v1::Done {}));
        }
        for more in [open(MODEL), fork(4096)] {
            let name = if matches!(more, Command::Open(_)) { 4096 } else { 0 };
            let (code, message) = call.fails(name, more).await;
            assert_eq!(code, "limit-exceeded");
            assert!(message.contains("at most 4096"), "{message}");
        }
        // A closed one makes room at once.
        call.send(7, Command::Close(v1::CloseSequence {}));
        call.open(4096, &[5]).await;
        // Saved ones of which parts are missing are as many at most.
        for _ in 0..4096 {
            call.send(5000, Command::Open(v1::OpenSequence { saved: None, ..part(0, true) }));
        }
        let (code, message) = call.fails(5000, Command::Open(part(0, true))).await;
        assert_eq!(code, "limit-exceeded");
        assert!(message.contains("4096 saved sequences"), "{message}");
    });
}

#[test]
fn saved_sequences_and_commands_are_bounded_in_bytes() {
    let config = Config { http: Http { max_body: 4096, ..Http::default() }, ..any_port() };
    let server = start(config);
    runtime().block_on(async {
        let mut call = Call::begin(&server, "").await.unwrap();
        let id = call.send(1, Command::Open(part(2_000, true)));
        let more = |bytes, more| v1::SequenceCommand {
            id,
            sequence: 1,
            command: Some(Command::Open(part(bytes, more))),
        };
        call.commands.send(more(2_000, true)).unwrap();
        // All parts of all sequences count.
        let (code, message) = call.fails(2, Command::Open(part(2_000, true))).await;
        assert_eq!(code, "limit-exceeded");
        assert!(message.contains("more than 4096 bytes"), "{message}");
        // The first one is as it was; it is no saved sequence.
        call.commands.send(more(96, false)).unwrap();
        let Outcome::Failure(failure) = call.result().await.unwrap() else { panic!() };
        assert_eq!(failure.code, "invalid-argument", "{failure:?}");
        // One command of more bytes ends the call.
        call.send(1, append(&[70_000; 2_000]));
        let ended = call.result().await.unwrap_err();
        assert_eq!(
            (ended.code(), metadata(&ended, "realm-error-code")),
            (Code::ResourceExhausted, Some("limit-exceeded"))
        );
        assert!(ended.message().contains("more than 4096 bytes"), "{ended:?}");
    });
}

#[test]
fn what_waits_for_either_side_is_on_the_tenants_account() {
    let store = Memory::default();
    let secret = key(&store, "acme", &[Scope::Inference], Rates::default());
    let limits = LimitsConfig { memory: Some(64 << 20), ..LimitsConfig::default() };
    let acme = TenantConfig { limits, ..TenantConfig::default() };
    let config = Config { tenants: [("acme".to_owned(), acme)].into(), ..any_port() };
    let server = with_keys(config, &store);
    runtime().block_on(async {
        let mut call = Call::begin(&server, secret.as_str()).await.unwrap();
        // Results that are not read: 128 rows of 192 KiB.
        call.open(1, &[5; 128]).await;
        call.send(1, forward(v1::Output::Logits));
        soon("the rows wait", move || held("acme", "results") > 20 << 20).await;
        assert_eq!(values(&mut call).await.len(), 128 * model().info().vocabulary);
        soon("no rows wait", move || held("acme", "results") == 0).await;
        // Parts that wait for others.
        let before = held("acme", "sequences");
        call.send(2, Command::Open(part(8 << 20, true)));
        soon("the part waits", move || held("acme", "sequences") >= before + (8 << 20)).await;
        // More than the tenant may hold.
        call.open(3, &[5; 400]).await;
        let (code, message) = call.fails(3, forward(v1::Output::Logits)).await;
        assert_eq!(code, "limit-exceeded");
        assert!(message.contains("`acme` holds"), "{message}");
        drop(call);
        soon("nothing is held", move || held("acme", "results") == 0).await;
    });
}

#[test]
fn a_key_that_is_revoked_ends_the_calls_that_it_began() {
    let mut store = Memory::default();
    let secret = key(&store, "acme", &[Scope::Inference], Rates::default());
    let server = with_keys(any_port(), &store);
    runtime().block_on(async {
        let mut call = Call::begin(&server, secret.as_str()).await.unwrap();
        call.open(1, &[5, 6]).await;
        store.revoke(secret.id()).unwrap();
        soon("the server knows", move || {
            let other = runtime().block_on(async {
                rpc::client(server.address, secret.as_str()).await.get_tenant(v1::GetTenantRequest {}).await
            });
            other.is_err()
        })
        .await;
        call.send(1, forward(v1::Output::Nothing));
        let ended = call.result().await.unwrap_err();
        assert_eq!(
            (ended.code(), metadata(&ended, "realm-error-code")),
            (Code::Unauthenticated, Some("denied"))
        );
    });
}

#[test]
fn a_server_that_ends_finishes_the_commands_that_it_has() {
    let server = start(any_port());
    runtime().block_on(async {
        let mut call = Call::begin(&server, "").await.unwrap();
        call.open(1, &[5; 600]).await;
        call.send(1, forward(v1::Output::LastLogits));
        call.send(1, truncate(3));
        soon("the pass runs", || at_work() == 1).await;
        server.stopper.stop();
        assert_eq!(values(&mut call).await.len(), model().info().vocabulary);
        // The second one may have come too late.
        let ended = match call.result().await {
            Ok(done) => {
                assert_eq!(done, Outcome::Done(v1::Done {}));
                call.result().await.unwrap_err()
            }
            Err(ended) => ended,
        };
        assert_eq!(ended.code(), Code::Unavailable);
        assert!(ended.message().contains("the server ends"), "{ended:?}");
    });
}

#[test]
fn results_that_are_not_read_stop_no_other_call_and_leaving_ends_all_work() {
    let server = start(any_port());
    runtime().block_on(async {
        let mut unread = Call::begin(&server, "").await.unwrap();
        for name in 0..4 {
            unread.send(name, open(MODEL));
            unread.send(name, append(&[5; 200]));
            unread.send(name, forward(v1::Output::Logits));
        }
        let mut call = Call::begin(&server, "").await.unwrap();
        call.open(1, &[5, 6]).await;
        call.send(1, forward(v1::Output::LastLogits));
        assert_eq!(values(&mut call).await.len(), model().info().vocabulary);
        // A pass whose client leaves.
        call.ask(1, append(&[7; 4_000])).await;
        soon("the other call's passes have ended", || at_work() == 0).await;
        let computed = || model().metrics().served.tokens.prompt;
        let before = computed();
        call.send(1, forward(v1::Output::Nothing));
        soon("the pass runs", || at_work() > 0).await;
        drop((call, unread));
        soon("none is at work", || at_work() == 0).await;
        assert!(computed() < before + 4_000, "the whole pass was computed");
    });
}
