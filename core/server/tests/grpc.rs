//! gRPC: each call over a socket, keys and limits, and clients that leave.

mod common;
#[path = "common/rpc.rs"]
mod rpc;

use common::{ANSWER, MODEL, Memory, any_port, eventually, metric, model, start, start_with};
use realm::{EmbedOptions, Message, Request};
use realm_rpc::v1;
use realm_server::keys::{Key, Scope, Secret};
use realm_server::{Config, Rates, TenantConfig};
use rpc::{at_work, client, key, metadata, question, runtime, send, soon, story, with_keys};
use tonic::Code;
use v1::generate_request::Prompt;

#[test]
fn an_answer_comes_chunk_by_chunk_with_its_numbers() {
    let server = start(any_port());
    runtime().block_on(async {
        let mut client = client(server.address, "").await;
        let asked = v1::GenerateRequest { logprobs: Some(2), ..question(MODEL) };
        let answer = client.generate(asked).await.unwrap();
        assert!(answer.metadata().get("x-request-id").unwrap().to_str().unwrap().starts_with("req_"));
        let mut chunks = answer.into_inner();
        let (mut text, mut tokens, mut ends) = (String::new(), Vec::new(), Vec::new());
        while let Some(chunk) = chunks.message().await.unwrap() {
            text += &chunk.text;
            tokens.extend(chunk.tokens);
            ends.extend(chunk.finish);
        }
        assert_eq!(text, ANSWER);
        assert!(tokens.iter().all(|token| token.top.len() == 2 && token.logprob.is_some()), "{tokens:?}");
        let [end] = &ends[..] else { panic!("{ends:?}") };
        assert_eq!(end.reason(), v1::FinishReason::Stop);
        let usage = end.usage.unwrap();
        assert_eq!(usage.generated_tokens, tokens.len() as u64);
        assert!(usage.prompt_tokens > 10 && end.timings.unwrap().decode > 0);
    });
}

#[test]
fn calls_give_what_the_library_gives() {
    let server = start(any_port());
    let model = model();
    runtime().block_on(async {
        let mut client = client(server.address, "").await;
        let tenant = client.get_tenant(v1::GetTenantRequest {}).await.unwrap().into_inner();
        assert_eq!((&*tenant.name, tenant.limits.unwrap().max_queued), ("default", 1024));
        let models = client.list_models(v1::ListModelsRequest {}).await.unwrap().into_inner().models;
        assert_eq!(models.iter().map(|model| &*model.name).collect::<Vec<_>>(), [MODEL]);
        let named = || v1::GetModelRequest { model: MODEL.to_owned() };
        let facts = client.get_model(named()).await.unwrap().into_inner();
        assert_eq!(facts.vocabulary as usize, model.info().vocabulary);
        assert_eq!(facts.context_length as usize, model.info().context_length);
        let text = "The sky is <|im_start|>blue";
        let asked =
            v1::TokenizeRequest { model: MODEL.into(), text: text.into(), special: false, boundaries: None };
        let tokens = client.tokenize(asked.clone()).await.unwrap().into_inner().tokens;
        assert_eq!(tokens, model.encode(text));
        let special = v1::TokenizeRequest { special: true, boundaries: Some(false), ..asked };
        let special = client.tokenize(special).await.unwrap().into_inner().tokens;
        assert_eq!(special, model.encode_special(text, true, false));
        let asked = v1::DetokenizeRequest { model: MODEL.into(), tokens: tokens.clone() };
        assert_eq!(client.detokenize(asked).await.unwrap().into_inner().text, text);
        let chat = Request::chat([Message::user("What is the capital of France? Answer in one sentence.")]);
        let rendered = client.render(question(MODEL)).await.unwrap().into_inner();
        assert_eq!(rendered.text, model.render(&chat).unwrap());
        assert_eq!(rendered.tokens, model.render_tokens(&chat).unwrap());
        let counted = client.count(question(MODEL)).await.unwrap().into_inner();
        assert_eq!((counted.prompt_tokens, counted.max_tokens), (rendered.tokens.len() as u64, 16));
        let input = |text: &str| v1::Input { input: Some(v1::input::Input::Text(text.to_owned())) };
        let asked = v1::EmbedRequest {
            model: MODEL.into(),
            inputs: vec![input("The sky"), input("is blue")],
            pooling: v1::Pooling::Last.into(),
            normalize: Some(false),
            adapter: None,
        };
        let embedded = client.embed(asked).await.unwrap().into_inner();
        let options = EmbedOptions { pooling: Some(realm::Pooling::Last), normalize: false };
        let texts = model.encode_many(&["The sky", "is blue"], false, true);
        let vectors: Vec<_> = embedded.vectors.into_iter().map(|vector| vector.values).collect();
        assert_eq!(vectors, model.embed_many(texts, &options).unwrap());
        let asked =
            v1::ScoreRequest { model: MODEL.into(), input: Some(input(text)), top: 3, ..Default::default() };
        let scores = client.score(asked.clone()).await.unwrap().into_inner().scores;
        let expected = model.score(&tokens, 3).unwrap();
        assert_eq!(scores.len(), expected.len());
        for (score, expected) in scores.iter().zip(&expected) {
            assert_eq!((score.next, score.top[0].id), (expected.next, expected.top[0].id));
        }
        let asked = v1::ScoreRequest { top: 0, continuation: Some(input(" blue")), ..asked };
        let scores = client.score(asked).await.unwrap().into_inner().scores;
        let expected = model.log_likelihood(&tokens, &model.encode(" blue")).unwrap();
        assert_eq!(scores.iter().map(|score| score.next.unwrap()).collect::<Vec<_>>(), expected);
        // A tokenizer that anyone can read.
        let mut parts = client.get_tokenizer(named()).await.unwrap().into_inner();
        let mut file = Vec::new();
        while let Some(part) = parts.message().await.unwrap() {
            file.extend(part.data);
        }
        assert_eq!(file, model.tokenizer_file().unwrap());
    });
}

#[test]
fn failures_have_a_status_a_code_and_the_requests_id() {
    let config = Config { http: realm_server::Http { max_body: 4096, ..Default::default() }, ..any_port() };
    let server = start(config);
    runtime().block_on(async {
        let mut client = client(server.address, "").await;
        let empty = v1::GenerateRequest { prompt: None, ..question(MODEL) };
        let tools = v1::GenerateRequest { tools: vec!["{".into()], ..question(MODEL) };
        let list = v1::GenerateRequest { tools: vec!["[]".into()], ..question(MODEL) };
        let long = v1::GenerateRequest {
            prompt: Some(Prompt::Tokens(v1::Tokens { ids: vec![1; 9_000] })),
            ..question(MODEL)
        };
        let hot = v1::Sampling { temperature: Some(-1.0), ..Default::default() };
        let adapter = v1::AdapterUse { name: "none".into(), scale: None };
        for (asked, code, own, word) in [
            (empty, Code::InvalidArgument, "invalid-argument", "no prompt"),
            (tools, Code::InvalidArgument, "invalid-argument", "tools is no JSON"),
            (list, Code::InvalidArgument, "invalid-argument", "tools is no JSON object"),
            (
                v1::GenerateRequest { input: Some("1".into()), ..question(MODEL) },
                Code::InvalidArgument,
                "invalid-argument",
                "`input`",
            ),
            (
                v1::GenerateRequest { speculation: 77, ..question(MODEL) },
                Code::InvalidArgument,
                "unsupported",
                "speculation",
            ),
            (
                v1::GenerateRequest { sampling: Some(hot), ..question(MODEL) },
                Code::InvalidArgument,
                "invalid-argument",
                "temperature is -1",
            ),
            (
                v1::GenerateRequest { adapter: Some(adapter), ..question(MODEL) },
                Code::NotFound,
                "not-found",
                "adapter `none`",
            ),
            (
                v1::GenerateRequest { program: Some("none".into()), ..question(MODEL) },
                Code::NotFound,
                "not-found",
                "program `none`",
            ),
            (question("none"), Code::NotFound, "not-found", "no model `none`"),
            (long, Code::ResourceExhausted, "limit-exceeded", "4096 bytes"),
        ] {
            let status = client.generate(asked).await.unwrap_err();
            assert_eq!(
                (status.code(), metadata(&status, "realm-error-code")),
                (code, Some(own)),
                "{status:?}"
            );
            assert!(status.message().contains(word), "{status:?}");
            assert!(metadata(&status, "x-request-id").unwrap().starts_with("req_"), "{status:?}");
        }
        let headers = send(server.address, "/realm.v1.Realm/NoSuchCall", &[], &[]).await;
        assert_eq!(headers["grpc-status"], "12");
        let headers = send(server.address, "/realm.v1.Realm/Generate", &[], &[0xff; 3]).await;
        assert_ne!(headers["grpc-status"], "0");
    });
    // Counted by the statuses that they stand for.
    assert_eq!(
        metric(&server, r#"realm_http_requests_total{route="/realm.v1.Realm/Generate",status="404"}"#),
        3.0
    );
    let by_1 = "POST /realm.v1.Realm/Generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    let refused = common::Wire::open(server.address).send(by_1).reply();
    assert!(refused.header("grpc-message").unwrap().contains("HTTP/2"), "{refused:?}");
}

/// The calls of the protocol, read from its file, and those of health and reflection.
fn paths() -> Vec<String> {
    let file = format!("{}/../rpc/proto/realm/v1/realm.proto", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    let calls = text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split_once('('));
    let mut all: Vec<_> = calls.map(|(name, _)| format!("/realm.v1.Realm/{name}")).collect();
    assert_eq!(all.len(), 13);
    all.extend(
        ["v1", "v1alpha"].map(|v| format!("/grpc.reflection.{v}.ServerReflection/ServerReflectionInfo")),
    );
    all.push("/realm.v1.Realm/NoSuchCall".to_owned());
    all
}

/// A message whose first field is a model's name, as that of all calls that name a model.
fn naming(model: &str) -> Vec<u8> {
    let mut message = vec![0x0a, model.len() as u8];
    message.extend_from_slice(model.as_bytes());
    message
}

#[test]
fn callers_without_a_right_get_nothing_from_any_call() {
    let store = Memory::default();
    let metrics = key(&store, "watch", &[Scope::Metrics], Rates::default());
    let nothing = key(&store, "acme", &[], Rates::default());
    let right = key(&store, "acme", &[Scope::Inference], Rates::default());
    let unknown = Key::create("acme").unwrap().1;
    let server = with_keys(any_port(), &store);
    runtime().block_on(async {
        for path in paths() {
            let bearer = |secret: &Secret| format!("Bearer {}", secret.as_str());
            for (authorization, code) in [
                (String::new(), "16"),
                ("Bearer nonsense".to_owned(), "16"),
                (bearer(&unknown), "16"),
                (bearer(&metrics), "7"),
                (bearer(&nothing), "7"),
            ] {
                let given = [("authorization", &*authorization)];
                let given = if authorization.is_empty() { &[][..] } else { &given };
                let mut refusals = Vec::new();
                for name in [MODEL, "no-such-model"] {
                    let headers = send(server.address, &path, given, &naming(name)).await;
                    assert_eq!(headers["grpc-status"], code, "{path} {authorization}: {headers:?}");
                    let message = headers["grpc-message"].to_str().unwrap().to_owned();
                    assert!(!message.contains("model"), "{path}: {message}");
                    refusals.push(message);
                }
                assert_eq!(refusals[0], refusals[1], "{path}");
            }
            let headers =
                send(server.address, &path, &[("authorization", &bearer(&right))], &naming(MODEL)).await;
            let status = headers["grpc-status"].to_str().unwrap();
            assert!(!matches!(status, "16" | "7"), "{path}: {headers:?}");
            assert_eq!(status == "12", path.ends_with("NoSuchCall"), "{path}: {headers:?}");
        }
        // Health needs no key.
        let headers = send(server.address, "/grpc.health.v1.Health/Check", &[], &[]).await;
        assert_eq!(headers["grpc-status"], "0");
    });
}

#[test]
fn a_forbidden_model_is_one_that_does_not_exist() {
    let store = Memory::default();
    let secret = key(&store, "small", &[Scope::Inference], Rates::default());
    let small = TenantConfig { models: Some(vec!["open".to_owned()]), ..TenantConfig::default() };
    let config = Config { tenants: [("small".to_owned(), small)].into(), ..any_port() };
    let models = vec![("open".to_owned(), model()), ("closed".to_owned(), model())];
    let server = start_with(config, models, Some(Box::new(store)));
    let bearer = format!("Bearer {}", secret.as_str());
    runtime().block_on(async {
        let names = ["GetModel", "GetAdapter", "GetTokenizer", "Embed", "Score", "Tokenize", "Detokenize"];
        for call in names {
            let path = format!("/realm.v1.Realm/{call}");
            let mut answers = Vec::new();
            for name in ["closed", "absent"] {
                let headers = send(server.address, &path, &[("authorization", &bearer)], &naming(name)).await;
                assert_eq!(headers["grpc-status"], "5", "{path}: {headers:?}");
                answers.push(headers["grpc-message"].to_str().unwrap().replace(name, "NAME"));
            }
            assert_eq!(answers[0], answers[1], "{path}");
        }
        let mut client = client(server.address, secret.as_str()).await;
        for name in ["closed", "absent"] {
            assert_eq!(client.generate(story(name, 1)).await.unwrap_err().code(), Code::NotFound);
            assert_eq!(client.count(story(name, 1)).await.unwrap_err().code(), Code::NotFound);
        }
        client.generate(story("open", 1)).await.unwrap();
        let models = client.list_models(v1::ListModelsRequest {}).await.unwrap().into_inner().models;
        assert_eq!(models.iter().map(|model| &*model.name).collect::<Vec<_>>(), ["open"]);
    });
}

#[test]
fn limits_of_a_key_hold_and_say_when_to_come_back() {
    let store = Memory::default();
    let one = Rates { concurrent_requests: Some(1), ..Rates::default() };
    let few = Rates { tokens_per_minute: Some(100), ..Rates::default() };
    let (one, few) = (key(&store, "a", &[Scope::Inference], one), key(&store, "b", &[Scope::Inference], few));
    let server = with_keys(any_port(), &store);
    runtime().block_on(async {
        let mut first = client(server.address, one.as_str()).await;
        let running = first.generate(story(MODEL, 4_000)).await.unwrap();
        let refused = first.generate(story(MODEL, 1)).await.unwrap_err();
        assert_eq!((refused.code(), metadata(&refused, "retry-after")), (Code::ResourceExhausted, Some("1")));
        // Lists cost no place.
        first.list_models(v1::ListModelsRequest {}).await.unwrap();
        drop(running);
        soon("the place is free", || at_work() == 0).await;
        let mut limited = client(server.address, few.as_str()).await;
        let ever = limited.generate(story(MODEL, 200)).await.unwrap_err();
        assert_eq!(ever.code(), Code::InvalidArgument, "{ever:?}");
        let mut chunks = limited.generate(story(MODEL, 80)).await.unwrap().into_inner();
        while chunks.message().await.unwrap().is_some() {}
        let later = limited.generate(story(MODEL, 80)).await.unwrap_err();
        assert_eq!(later.code(), Code::ResourceExhausted, "{later:?}");
        assert!(metadata(&later, "retry-after").unwrap().parse::<u32>().unwrap() > 1);
    });
}

#[test]
fn a_client_that_leaves_ends_its_work_and_one_that_reads_nothing_stops_no_other() {
    let server = start(any_port());
    runtime().block_on(async {
        let mut client = client(server.address, "").await;
        let mut read = client.generate(story(MODEL, 8_000)).await.unwrap().into_inner();
        read.message().await.unwrap().unwrap();
        let unread = client.generate(story(MODEL, 8_000)).await.unwrap();
        // A client whose connection breaks.
        let mut other = rpc::client(server.address, "").await;
        let gone = other.generate(story(MODEL, 8_000)).await.unwrap();
        soon("three are at work", || at_work() == 3).await;
        let mut chunks = client.generate(question(MODEL)).await.unwrap().into_inner();
        let mut text = String::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            text += &chunk.text;
        }
        assert_eq!(text, ANSWER);
        drop((read, unread, gone, other));
        soon("none is at work", || at_work() == 0).await;
    });
    eventually("no request is open", || metric(&server, "realm_http_active_requests") == 1.0);
}

#[test]
fn health_is_told_and_watched_until_the_server_ends() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let server = start(any_port());
    runtime().block_on(async {
        let (wire, origin) = rpc::wire(server.address, "").await;
        let mut client = HealthClient::with_origin(wire, origin);
        for service in ["", "realm.v1.Realm"] {
            let asked = HealthCheckRequest { service: service.to_owned() };
            assert_eq!(client.check(asked).await.unwrap().into_inner().status(), ServingStatus::Serving);
        }
        let unknown = HealthCheckRequest { service: "other".to_owned() };
        assert_eq!(client.check(unknown).await.unwrap_err().code(), Code::NotFound);
        let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        server.stopper.stop();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        assert_eq!(watch.message().await.unwrap(), None);
    });
}

#[test]
fn reflection_describes_the_protocol_to_tools_new_and_old() {
    macro_rules! services {
        ($version:ident, $address:expr) => {{
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let (wire, origin) = rpc::wire($address, "").await;
            let mut client = ServerReflectionClient::with_origin(wire, origin);
            let ask =
                |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            let asked = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("realm.v1.Realm.Generate".to_owned())),
            ];
            let mut answers =
                client.server_reflection_info(futures_util::stream::iter(asked)).await.unwrap().into_inner();
            let listed = answers.message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
            let file = answers.message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::FileDescriptorResponse(file)) = file else { panic!("{file:?}") };
            assert!(file.file_descriptor_proto[0].windows(8).any(|part| part == b"realm.v1"));
            listed.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
        }};
    }
    let server = start(any_port());
    runtime().block_on(async {
        for services in [services!(v1, server.address), services!(v1alpha, server.address)] {
            for name in ["realm.v1.Realm", "grpc.health.v1.Health"] {
                assert!(services.iter().any(|service| service == name), "{services:?}");
            }
        }
    });
}
