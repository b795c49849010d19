//! Adapters through the public API, as PEFT saves them, with a real model.

mod common;

use std::path::Path;

use realm::{ErrorCode, Limits, Message, Model, Realm, Request};

/// Writes an adapter of rank 1 for the output of a model's first feed-forward network.
fn save(folder: &Path, inputs: usize, hidden: usize) {
    let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "bias": "none", "use_dora": false}"#;
    std::fs::write(folder.join("adapter_config.json"), config).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), common::adapter(inputs, hidden)).unwrap();
}

#[test]
fn a_request_names_an_adapter_and_how_strongly_it_counts() {
    let realm = Realm::builder().threads(2).build().unwrap();
    let model = realm.load_model("smollm2-135m").unwrap();
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 1536, model.info().hidden);
    let adapter = model.load_adapter(folder.path()).unwrap();
    assert_eq!((adapter.rank(), adapter.name()), (1, folder.path().to_str().unwrap()));
    assert!(adapter.bytes() > 0);
    let request = || {
        let question = "What is the capital of France? Answer in one sentence.";
        Request::chat([Message::user(question)]).temperature(0.0).max_tokens(8)
    };
    let text = |request| model.generate(request).unwrap().text;
    let plain = text(request());
    assert_eq!(text(request().adapter(&adapter).adapter_scale(0.0)), plain);
    assert_ne!(text(request().adapter(&adapter)), plain);
    assert_eq!(text(request()), plain);

    let limits = Limits { adapters: Some(Vec::new()), ..Limits::default() };
    let tenant = realm.tenant("small", limits).unwrap().model(&model).unwrap();
    let refused = tenant.generate(request().adapter(&adapter)).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::LimitExceeded);
}

#[test]
fn scores_embeddings_and_sequences_of_an_adapted_model_are_the_changed_models() {
    let realm = Realm::builder().threads(2).build().unwrap();
    let model = realm.load_model("smollm2-135m").unwrap();
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 1536, model.info().hidden);
    let adapter = model.load_adapter(folder.path()).unwrap();
    let (adapted, without) = (model.adapted(&adapter, 1.0), model.adapted(&adapter, 0.0));
    let (prompt, tokens) = ("The capital of France is", model.encode("The capital of France is Paris."));
    let logits = |model: &Model| {
        let mut sequence = model.sequence().unwrap();
        sequence.append(&tokens).unwrap();
        let forwarded = sequence.forward(realm::Output::LastLogits).unwrap();
        forwarded.rows().next().unwrap().to_vec()
    };
    let text = |model: &Model, request: Request| model.generate(request).unwrap().text;
    let request = || Request::text(prompt).temperature(0.0).max_tokens(8);
    assert!(without.score(&tokens, 1).unwrap() == model.score(&tokens, 1).unwrap());
    assert!(adapted.score(&tokens, 1).unwrap() != model.score(&tokens, 1).unwrap());
    let likelihood = |model: &Model| model.log_likelihood(&tokens[..4], &tokens[4..]).unwrap();
    assert_eq!(likelihood(&without), likelihood(&model));
    assert_ne!(likelihood(&adapted), likelihood(&model));
    assert_eq!(without.embed(prompt).unwrap(), model.embed(prompt).unwrap());
    assert_ne!(adapted.embed(prompt).unwrap(), model.embed(prompt).unwrap());
    assert!(logits(&without) == logits(&model) && logits(&adapted) != logits(&model));
    // The score equals the log-probabilities of a generation's own tokens, in both models.
    for model in [&model, &adapted] {
        let answer = model.generate(request().logprobs(0)).unwrap();
        let ids: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
        let said: Vec<f32> = answer.tokens.iter().filter_map(|token| token.logprob).collect();
        assert_eq!(model.log_likelihood(&model.encode(prompt), &ids).unwrap(), said);
    }
    assert_eq!(text(&adapted, request()), text(&model, request().adapter(&adapter)));
    assert_eq!(text(&adapted, request().adapter(&adapter).adapter_scale(0.0)), text(&model, request()));

    let limits = Limits { adapters: Some(Vec::new()), ..Limits::default() };
    let tenant = realm.tenant("small", limits).unwrap().model(&model).unwrap().adapted(&adapter, 1.0);
    assert_eq!(tenant.embed(prompt).unwrap_err().code(), ErrorCode::LimitExceeded);
    assert_eq!(tenant.score(&tokens, 1).unwrap_err().code(), ErrorCode::LimitExceeded);
}

#[test]
fn what_is_wrong_with_an_adapter_has_a_code() {
    let realm = Realm::builder().threads(1).build().unwrap();
    let model = realm.load_model("smollm2-135m").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let code = |path: &Path| model.load_adapter(path).unwrap_err().code();
    assert_eq!(code(folder.path()), ErrorCode::Io);
    assert_eq!(code(&folder.path().join("none.gguf")), ErrorCode::Io);
    std::fs::write(folder.path().join("junk.gguf"), "junk").unwrap();
    assert_eq!(code(&folder.path().join("junk.gguf")), ErrorCode::InvalidAdapter);
    save(folder.path(), 64, model.info().hidden);
    assert_eq!(code(folder.path()), ErrorCode::InvalidAdapter);
    let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "use_dora": true}"#;
    std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    assert_eq!(code(folder.path()), ErrorCode::Unsupported);
}
