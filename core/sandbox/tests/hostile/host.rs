//! The environment of programs in these tests: a sandbox, a model, and tenants.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use realm_compute::cpu::CpuBackend;
use realm_engine::{
    Engine, EngineConfig, FinishReason, Limits, LoadedModel, ProgramLimits, Prompt, Sampling, Tenant,
};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::Transformer;
use realm_sandbox::{Error, Grants, Job, Program, Programs, Reply, Request, Sandbox, SandboxConfig};
use realm_tokenizer::{ChatTemplate, SpecialTexts, Tokenizer};

#[path = "../../../../tests/hostile/src/status.rs"]
mod status;
#[allow(unused_imports, reason = "examples use some of this file")]
pub use status::{peak, resident};

/// The longest time for anything here, however busy the machine.
pub const FOREVER: Duration = Duration::from_secs(600);

/// The parts that tenants share.
pub struct Host {
    pub sandbox: Sandbox,
    pub model: Arc<LoadedModel>,
}

impl Host {
    /// A small random model of the repository with SmolLM2's tokenizer, most of whose tokens it does not
    /// have.
    pub fn tiny() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny");
        Self::new(&folder.join("llama-f32.gguf"), Some(16 << 10))
    }

    /// A real model.
    pub fn smollm2() -> Self {
        Self::new(&smollm2(), Some(16 << 10))
    }

    fn new(path: &std::path::Path, kv_tokens: Option<usize>) -> Self {
        let sandbox = Sandbox::new(&SandboxConfig::default()).expect("a sandbox");
        let (gguf, texts) = (Gguf::open(path).expect("a model"), Gguf::open(smollm2()).expect("a model"));
        let tokenizer = Arc::new(Tokenizer::from_metadata(texts.metadata()).expect("a tokenizer"));
        let special = SpecialTexts::of(texts.metadata(), &tokenizer);
        let template = ChatTemplate::from_metadata(texts.metadata(), special);
        let backend = Arc::new(CpuBackend::new(2).expect("a backend"));
        let weights = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).expect("weights"));
        let config = EngineConfig { kv_tokens, ..EngineConfig::default() };
        let engine = Engine::new(&weights, Arc::clone(&tokenizer), &config).expect("an engine");
        let weights = Box::new(weights);
        let model = Arc::new(LoadedModel::new("model", engine, weights, tokenizer, template));
        Self { sandbox, model }
    }

    pub fn compile(&self, wasm: &[u8]) -> Program {
        self.sandbox.compile(wasm).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Compiles and runs a program as a tenant of its own.
    pub fn run(&self, wasm: &[u8], who: &Who) -> Result<Said, Error> {
        finish(self.start(&self.compile(wasm), who)?)
    }

    pub fn start(&self, program: &Program, who: &Who) -> Result<Reply, Error> {
        self.ask(program, who, request())
    }

    /// Starts a program with the given request.
    pub fn ask(&self, program: &Program, who: &Who, request: Request) -> Result<Reply, Error> {
        self.sandbox.run(self.job(program, who, request))
    }

    /// Waits until every run has given back its memory and pages.
    pub fn settle(&self) {
        let began = Instant::now();
        let pages = || self.model.engine.metrics().kv;
        while pages().used > 0 {
            assert!(began.elapsed() < FOREVER, "pages are held by nobody: {:?}", pages());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn job(&self, program: &Program, who: &Who, request: Request) -> Job {
        let model = Arc::clone(&self.model);
        Job {
            program: program.clone(),
            request,
            model: Arc::clone(&self.model),
            models: Arc::new(move |name| (name == "model").then(|| Arc::clone(&model))),
            tenant: Arc::clone(&who.tenant),
            grants: Arc::clone(&who.grants),
            programs: Arc::clone(&who.programs),
        }
    }
}

fn smollm2() -> PathBuf {
    let reference = Reference::parse("smollm2-135m").expect("a name");
    Hub::new().and_then(|hub| hub.resolve(&reference, &mut ())).expect("the model's file")
}

/// A request for a few tokens.
pub fn request() -> Request {
    Request {
        prompt: Prompt::Tokens(vec![1, 2, 3]),
        sampling: Sampling::greedy(),
        max_tokens: Some(8),
        stop: Vec::new(),
        grammar: None,
        ignore_eos: true,
        input: serde_json::Value::Null,
        adapter: None,
        shared_prefix: 0,
    }
}

/// A tenant.
pub struct Who {
    pub tenant: Arc<Tenant>,
    pub grants: Arc<Grants>,
    pub programs: Arc<Programs>,
}

/// A tenant with the default limits, except that a program may compute for one second.
pub fn anybody() -> Who {
    with(|_| {})
}

/// A tenant with other limits.
pub fn with(change: impl FnOnce(&mut Limits)) -> Who {
    let mut limits = Limits {
        program: ProgramLimits { cpu_time: Duration::from_secs(1), ..ProgramLimits::default() },
        ..Limits::default()
    };
    change(&mut limits);
    let tenant = Arc::new(Tenant::new("somebody", limits).expect("limits that mean something"));
    Who { tenant, grants: Arc::default(), programs: Arc::default() }
}

impl Who {
    pub fn granted(self, grants: Grants) -> Self {
        Self { grants: Arc::new(grants), ..self }
    }
}

/// A finished answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub text: String,
    pub tokens: Vec<u32>,
    pub reason: FinishReason,
}

/// Reads an answer to its end, which must come.
pub fn finish(reply: Reply) -> Result<Said, Error> {
    let (began, mut text, mut tokens) = (Instant::now(), String::new(), Vec::new());
    loop {
        match reply.chunks.try_recv() {
            Ok(chunk) => {
                let chunk = chunk?;
                text += &chunk.text;
                tokens.extend(chunk.tokens.iter().map(|token| token.id));
                if let Some(finish) = chunk.finish {
                    return Ok(Said { text, tokens, reason: finish.reason });
                }
            }
            Err(error) => {
                assert_eq!(
                    error,
                    realm_handover::TryRecvError::Empty,
                    "the run stopped without an end: the host panicked"
                );
                assert!(began.elapsed() < FOREVER, "the program never ended");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}
