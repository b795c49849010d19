//! Grammars and thoughts, with a real model: the grammar guides from the end of the thought.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::{Read, anybody, request};
use realm_compute::cpu::CpuBackend;
use realm_engine::{Engine, EngineConfig, FinishReason, Grammar, Request, Thought};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;

const PROMPT: &str = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,\n";

fn load() -> (Engine, Arc<Tokenizer>) {
    let path = Hub::new().unwrap().resolve(&Reference::parse("smollm2-135m").unwrap(), &mut ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let backend = Arc::new(CpuBackend::new(2).unwrap());
    let model = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).unwrap());
    let engine = Engine::new(&model, Arc::clone(&tokenizer), &EngineConfig::default()).unwrap();
    (engine, tokenizer)
}

fn thought(opener: &str, closer: &str, open: bool) -> Option<Thought> {
    Some(Thought { openers: vec![opener.to_owned()], closer: closer.to_owned(), open })
}

#[test]
fn a_grammar_begins_where_the_thought_ends() {
    let (engine, tokenizer) = load();
    let run = |request: Request| Read::all(engine.generate(&anybody(), request).unwrap());
    let spelled = |ids: &[u32]| tokenizer.decode(ids, true).unwrap();
    // Takes a text that the model likes to write for a thought.
    let plain = run(request(&tokenizer, PROMPT, 12)).ids();
    let opener = spelled(&plain[..1]);
    assert_eq!(opener.trim(), opener, "another prompt is needed: a thought begins without white space");
    let end = (2..12).find(|&i| !spelled(&plain[1..i]).contains(&spelled(&plain[i..=i])));
    let end = end.expect("a token that has not come before");
    let closer = spelled(&plain[end..=end]);

    let guided = |thought| Request {
        grammar: Some(Grammar::Regex("<[a-f]{4}>".into())),
        thought,
        ..request(&tokenizer, PROMPT, 60)
    };
    // The model begins a thought, if it may choose to.
    let read = run(guided(thought(&opener, &closer, false)));
    let before = spelled(&plain[..=end]);
    let answer = read.text.strip_prefix(&before).expect("the thought as it would be without a grammar");
    assert!(answer.len() == 6 && answer.starts_with('<') && answer.ends_with('>'), "{}", read.text);
    assert_eq!(read.finish.reason, FinishReason::Stop);
    assert_eq!(read.finish.usage.reasoning_tokens, end + 1);

    // The prompt ends inside a thought.
    let read = run(guided(thought("never", &closer, true)));
    assert!(read.text.starts_with(&before) && read.text.ends_with('>'), "{}", read.text);
    assert_eq!(read.finish.usage.reasoning_tokens, end + 1);

    // The model does not want to think, or no token begins a thought alone.
    for opener in ["<|im_start|>", "<|never seen|>"] {
        let read = run(guided(thought(opener, &closer, false)));
        assert_eq!((read.text.len(), read.finish.usage.reasoning_tokens), (6, 0), "{}", read.text);
    }
}

#[test]
fn a_model_that_would_end_in_its_thought_answers_all_the_same() {
    let (engine, tokenizer) = load();
    let mut request = Request {
        grammar: Some(Grammar::Regex("[a-f]{4}".into())),
        thought: thought("<think>", "</think>", true),
        ..request(&tokenizer, PROMPT, 60)
    };
    request.sampling.logit_bias = HashMap::from([(tokenizer.end_tokens()[0], 1000.0)]);
    let read = Read::all(engine.generate(&anybody(), request).unwrap());
    let answer = read.text.strip_prefix("</think>").expect("the end of the thought");
    assert_eq!((answer.len(), read.finish.reason), (4, FinishReason::Stop));
}

#[test]
fn tokens_of_a_thought_are_counted_without_a_grammar() {
    let (engine, tokenizer) = load();
    let thinking = Request { thought: thought("x", "never", true), ..request(&tokenizer, PROMPT, 5) };
    let read = Read::all(engine.generate(&anybody(), thinking).unwrap());
    assert_eq!(read.finish.usage.reasoning_tokens, 5);
    let answering = Request { thought: thought("never", "x", false), ..request(&tokenizer, PROMPT, 5) };
    let read = Read::all(engine.generate(&anybody(), answering).unwrap());
    assert_eq!(read.finish.usage.reasoning_tokens, 0);
}
