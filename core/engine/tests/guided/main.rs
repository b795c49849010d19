//! Guided decoding with a real model: the text follows the grammar.

#[path = "../common/mod.rs"]
mod common;

use std::collections::HashSet;
use std::sync::Arc;

use common::Read;
use realm_compute::cpu::CpuBackend;
use realm_engine::{
    Chunk, Engine, EngineConfig, Error, FinishReason, Generation, Grammar, Limits, Request, Sampling, Tenant,
};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;
use serde_json::Value;

/// A model and a tenant that uses it.
struct Setup {
    engine: Engine,
    tenant: Arc<Tenant>,
    tokenizer: Arc<Tokenizer>,
}

fn load() -> Setup {
    let path = Hub::new().unwrap().resolve(&Reference::parse("smollm2-135m").unwrap(), &mut ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let backend = Arc::new(CpuBackend::new(2).unwrap());
    let model = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).unwrap());
    // The channel is large enough that no request waits for its reader.
    let config = EngineConfig { channel: 1024, ..EngineConfig::default() };
    let engine = Engine::new(&model, Arc::clone(&tokenizer), &config).unwrap();
    Setup { engine, tenant: Arc::new(Tenant::new("anybody", Limits::default()).unwrap()), tokenizer }
}

impl Setup {
    fn start(&self, request: Request) -> Result<Generation, Error> {
        self.engine.generate(&self.tenant, request)
    }

    fn request(&self, text: &str, grammar: Grammar) -> Request {
        Request {
            prompt: self.tokenizer.encode(text, true, true),
            sampling: Sampling::greedy(),
            max_tokens: Some(400),
            grammar: Some(grammar),
            ..Request::default()
        }
    }
}

fn collect(generation: impl Iterator<Item = Result<Chunk, Error>>) -> (String, FinishReason) {
    let read = Read::all(generation);
    (read.text, read.finish.reason)
}

/// Texts of 25 schemas, 500 with REALM_LONG. Every text must end by itself and satisfy a validator that is
/// independent of llguidance.
#[test]
fn every_text_of_25_schemas_validates() {
    let setup = load();
    let schemas: Vec<Value> = serde_json::from_str(include_str!("schemas.json")).unwrap();
    let seeds = if std::env::var_os("REALM_LONG").is_some() { 20 } else { 6 };
    let mut running = Vec::new();
    for schema in &schemas {
        let title = schema["title"].as_str().unwrap();
        for seed in 0..seeds {
            let prompt = format!("Here is {title} as JSON:\n");
            let mut request = setup.request(&prompt, Grammar::JsonSchema(schema.clone()));
            request.sampling = Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
                min_p: 0.0,
                // A model this small would nest forever. This makes each level less likely than the last.
                frequency_penalty: if title.contains("recursive") { 1.0 } else { 0.0 },
                seed: Some(seed),
                ..Sampling::default()
            };
            running.push((schema, setup.start(request).unwrap()));
        }
    }
    assert_eq!(running.len(), 25 * seeds as usize);
    let mut texts = HashSet::new();
    for (schema, generation) in running {
        let title = &schema["title"];
        let (text, reason) = collect(generation);
        assert_eq!(reason, FinishReason::Stop, "{title}: {text}");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{title}: {e}: {text}"));
        let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{title}: {error}: {text}");
        }
        texts.insert(text);
    }
    // The texts differ from each other.
    assert!(texts.len() > 15 * seeds as usize, "{} different texts", texts.len());
}

#[test]
fn regular_expressions_and_lark_grammars_are_followed() {
    let setup = load();
    let run = |prompt: &str, grammar| collect(setup.start(setup.request(prompt, grammar)).unwrap());
    let (text, reason) =
        run("My date of birth is ", Grammar::Regex("(19|20)[0-9]{2}-(0[1-9]|1[0-2])".into()));
    assert_eq!((text.len(), reason), (7, FinishReason::Stop), "{text}");
    assert!(text.starts_with("19") || text.starts_with("20"), "{text}");

    let choice = Grammar::Regex(" (Rome|Paris|London)".into());
    assert_eq!(run("The capital of France is", choice).0, " Paris");

    let sum = r#"
        start: sum "=" NUMBER
        sum: NUMBER | sum "+" NUMBER
        NUMBER: /[1-9][0-9]?/
    "#;
    let (text, reason) = run("1+2+3=6\n4+1=5\n2+2+2+2=8\n", Grammar::Lark(sum.into()));
    assert_eq!(reason, FinishReason::Stop);
    let (left, right) = text.split_once('=').unwrap();
    assert!(left.split('+').chain([right]).all(|n| n.parse::<u8>().is_ok()), "{text}");
}

#[test]
fn guided_greedy_text_is_the_same_alone_and_among_others() {
    let setup = load();
    let schemas: Vec<Value> = serde_json::from_str(include_str!("schemas.json")).unwrap();
    let run = |schema: Option<&Value>| {
        let grammar = schema.map(|schema| Grammar::JsonSchema(schema.clone()));
        let request = Request {
            max_tokens: Some(40),
            grammar,
            ..setup.request("Once upon a time", Grammar::JsonObject)
        };
        setup.start(request).unwrap()
    };
    let wanted: Vec<_> = schemas.iter().map(Some).chain([None]).step_by(5).collect();
    let alone: Vec<_> = wanted.iter().map(|schema| collect(run(*schema))).collect();
    let together: Vec<_> = wanted.iter().map(|schema| run(*schema)).collect();
    let together: Vec<_> = together.into_iter().map(collect).collect();
    assert_eq!(alone, together);
    assert!(wanted.len() == 6 && alone[5].0.starts_with(","), "{alone:?}");
}

#[test]
fn banned_tokens_stay_out_with_a_grammar_and_without() {
    let setup = load();
    let paris = setup.tokenizer.encode_after(" Paris");
    assert_eq!(paris.len(), 1);
    let run = |grammar: Option<&str>| {
        let mut request = setup.request("The capital of France is", Grammar::JsonObject);
        request.grammar = grammar.map(|expression| Grammar::Regex(expression.into()));
        request.sampling.banned_tokens = paris.clone();
        request.max_tokens = Some(8);
        setup.start(request).unwrap()
    };
    for grammar in [None, Some(" (Paris|Rome|London)")] {
        let tokens: Vec<_> = run(grammar).flat_map(|chunk| chunk.unwrap().tokens).collect();
        assert!(!tokens.is_empty() && tokens.iter().all(|token| token.id != paris[0]), "{tokens:?}");
    }
    // If the tokens that the grammar allows are banned, the request ends with an error that says so.
    let error = run(Some(" Paris")).find_map(Result::err).expect("an error");
    assert!(matches!(&error, Error::InvalidArgument(why) if why.contains("banned")), "{error}");
}

#[test]
fn a_grammar_that_grows_too_large_ends_its_own_request_alone() {
    let setup = load();
    let good = Grammar::Regex("[a-z]{30}".into());
    let alone = collect(setup.start(setup.request("abc", good.clone())).unwrap());
    let other = setup.start(setup.request("abc", good)).unwrap();
    let hostile = Grammar::Regex("[xy]a{4000000000}".into());
    let error = setup.start(setup.request("abc", hostile)).unwrap().find_map(Result::err);
    assert!(matches!(error, Some(Error::LimitExceeded(_))), "{error:?}");
    assert_eq!(collect(other), alone);
    let refused = setup.start(setup.request("abc", Grammar::Regex("(".into()))).err();
    assert!(matches!(refused, Some(Error::InvalidArgument(_))), "{refused:?}");
}

#[test]
fn an_end_token_ends_a_guided_text_where_the_grammar_may_end_and_nowhere_else() {
    let setup = load();
    let prompt = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n";
    let mut free = setup.request(prompt, Grammar::Regex("(?s:.*)".into()));
    free.ignore_eos = true;
    let (text, reason) = collect(setup.start(free).unwrap());
    assert!(reason == FinishReason::Stop && !text.is_empty() && !text.contains("<|im_end|>"), "{text}");
    let long = setup.request(prompt, Grammar::Regex("(?s:.{150})".into()));
    let (text, reason) = collect(setup.start(long).unwrap());
    assert_eq!((text.chars().count(), reason), (150, FinishReason::Stop), "{text}");
}
