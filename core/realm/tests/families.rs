//! Every family of models through the public API, on the CPU and on a GPU, if there is one: small random
//! models whose files have no tokenizer, so that requests are token ids.

use std::path::{Path, PathBuf};

use realm::{ErrorCode, LoadOptions, Model, Output, Realm, Request};

/// Returns the files of models without tokenizer.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| std::fs::read(file).unwrap().windows(8).any(|window| window == b"no_vocab"));
    files.sort_unstable();
    files
}

fn name(file: &Path) -> String {
    file.file_stem().unwrap().to_string_lossy().into_owned()
}

fn likeliest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap() as u32
}

/// Decodes greedily with requests.
fn generate(model: &Model, prompt: &[u32], tokens: usize) -> (Vec<u32>, usize) {
    let request = Request::tokens(prompt.to_vec()).temperature(0.0).max_tokens(tokens);
    let completion = model.generate(request).unwrap();
    (completion.tokens.iter().map(|token| token.id).collect(), completion.usage.cached_tokens)
}

#[test]
fn every_family_generates_forks_and_restores() {
    every_family_on("cpu", &Realm::builder().device("cpu").threads(2).build().unwrap());
}

#[test]
fn every_family_that_a_gpu_takes_does_the_same_there() {
    match Realm::builder().device("cuda").build() {
        Ok(realm) => every_family_on("cuda", &realm),
        Err(why) => eprintln!("SKIPPED, for want of a GPU: {why}"),
    }
}

fn every_family_on(device: &str, realm: &Realm) {
    let files = files();
    assert!(files.len() > 40, "{}", files.len());
    // A GPU would give each model four fifths of its memory.
    let options = LoadOptions { kv_tokens: Some(1024), ..LoadOptions::default() };
    for file in files {
        let what = format!("{} on {device}", name(&file));
        let model = match realm.load_model_with(file.to_str().unwrap(), &options, &mut ()) {
            Ok(model) => model,
            Err(why) if device == "cuda" && why.code() == ErrorCode::Unsupported => {
                println!("{what}: {why}");
                continue;
            }
            Err(why) => panic!("{what}: {why}"),
        };
        // More than a page, and more than a window.
        let prompt: Vec<u32> = (0..70).map(|i| i * 37 % 100).collect();
        let (wanted, _) = generate(&model, &prompt, 12);
        // The second time most of the prompt is in the prefix cache.
        let (again, cached) = generate(&model, &prompt, 12);
        assert!(cached >= 32, "{what}: {cached}");
        assert_eq!(again, wanted, "{what}, from the prefix cache");

        let mut sequence = model.sequence().unwrap();
        sequence.append(&prompt).unwrap();
        let logits = sequence.forward(Output::LastLogits).unwrap().last().to_vec();
        assert_eq!(likeliest(&logits), wanted[0], "{what}");
        let saved = sequence.save().unwrap();
        let mut fork = sequence.fork().unwrap();
        fork.append(&wanted[..1]).unwrap();
        let next = fork.forward(Output::LastLogits).unwrap().last().to_vec();
        assert_eq!(likeliest(&next), wanted[1], "{what}, from a fork");
        let mut restored = model.restore_sequence(&saved).unwrap();
        restored.append(&wanted[..1]).unwrap();
        let same = restored.forward(Output::LastLogits).unwrap().last().to_vec();
        assert!(same == next, "{what}: a restored sequence gives other bits");
    }
}

/// Requests and sequences with an adapter of the routed experts, beside those without one. The prefix cache
/// keeps them apart.
#[test]
fn adapters_of_experts_serve_requests_and_forks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference");
    for name in ["qwen3moe-f16", "gpt-oss-f16"] {
        let realm = Realm::builder().device("cpu").threads(2).build().unwrap();
        let file = |kind: &str| folder.join(format!("{kind}/{name}.gguf"));
        let model = realm.load_model(file("tiny").to_str().unwrap()).unwrap();
        let adapter = model.load_adapter(file("adapters")).unwrap();
        let adapted = model.adapted(&adapter, 0.5);
        let prompt: Vec<u32> = (0..70).map(|i| i * 37 % 100).collect();
        let (plain, _) = generate(&model, &prompt, 12);
        let (wanted, cached) = generate(&adapted, &prompt, 12);
        assert_eq!(cached, 0, "{name}: pages of the model without the adapter");
        assert_ne!(wanted, plain, "{name}");
        let (again, cached) = generate(&adapted, &prompt, 12);
        assert!(cached >= 32, "{name}: {cached}");
        assert_eq!(again, wanted, "{name}, from the prefix cache");
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(|| generate(&model, &prompt, 12).0);
            [generate(&adapted, &prompt, 12).0, other.join().unwrap()]
        });
        assert_eq!(both, [wanted.clone(), plain], "{name}, together");
        let mut sequence = adapted.sequence().unwrap();
        sequence.append(&prompt).unwrap();
        let logits = sequence.forward(Output::LastLogits).unwrap().last().to_vec();
        assert_eq!(likeliest(&logits), wanted[0], "{name}");
        let mut fork = sequence.fork().unwrap();
        fork.append(&wanted[..1]).unwrap();
        let next = fork.forward(Output::LastLogits).unwrap().last().to_vec();
        assert_eq!(likeliest(&next), wanted[1], "{name}, from a fork");
        let mut restored = adapted.restore_sequence(&sequence.save().unwrap()).unwrap();
        restored.append(&wanted[..1]).unwrap();
        assert!(restored.forward(Output::LastLogits).unwrap().last() == next, "{name}: a restored sequence");
    }
}

#[test]
fn text_is_refused_where_a_file_has_no_tokenizer() {
    let realm = Realm::builder().device("cpu").threads(2).build().unwrap();
    let model = realm.load_model(files()[0].to_str().unwrap()).unwrap();
    for request in [Request::text("Hello"), Request::tokens([1, 2, 3]).regex("a+")] {
        let error = model.generate(request).unwrap_err();
        assert!(error.to_string().contains("token ids"), "{error}");
    }
    let error = model.generate(Request::text("Hello")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    let (prompt, continuation) = ([1, 2, 3], [4, 5]);
    assert_eq!(model.log_likelihood(&prompt, &continuation).unwrap().len(), 2);
    assert_eq!(model.decode(&[1, 2, 3]).unwrap(), "");
}
