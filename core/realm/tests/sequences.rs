//! Sequences, scores and embeddings, with real models.

use realm::{ErrorCode, Model, Output, Realm, Request, Sequence};

fn load(name: &str) -> Model {
    Realm::builder().threads(2).build().unwrap().load_model(name).unwrap()
}

fn likeliest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap() as u32
}

/// Decodes greedily for `tokens` tokens, from logits.
fn go_on(sequence: &mut Sequence, mut logits: Vec<f32>, tokens: usize) -> Vec<u32> {
    let mut out = Vec::new();
    for _ in 0..tokens {
        out.push(likeliest(&logits));
        sequence.append(&out[out.len() - 1..]).unwrap();
        logits = sequence.forward(Output::LastLogits).unwrap().last().to_vec();
    }
    out
}

#[test]
fn a_loop_by_hand_says_what_a_request_says() {
    let model = load("smollm2-135m");
    let prompt = model.encode("The capital of France is");
    let request = Request::tokens(prompt.clone()).temperature(0.0).max_tokens(20);
    let wanted: Vec<u32> = model.generate(request).unwrap().tokens.iter().map(|t| t.id).collect();

    let mut sequence = model.sequence().unwrap();
    sequence.append(&prompt).unwrap();
    let logits = sequence.forward(Output::LastLogits).unwrap();
    assert_eq!((logits.rows().len(), logits.width), (1, model.info().vocabulary));
    let logits = logits.last().to_vec();

    // Two continuations, which share the prompt's pages.
    let mut fork = sequence.fork().unwrap();
    let other = likeliest(&logits) + 1;
    fork.append(&[other]).unwrap();
    fork.forward(Output::Nothing).unwrap();
    assert_eq!(go_on(&mut sequence, logits.clone(), 20), wanted);
    assert_eq!(fork.tokens()[prompt.len()..], [other]);

    // Back to the prompt, and once more.
    sequence.truncate(prompt.len()).unwrap();
    let again = sequence.forward(Output::LastLogits).unwrap();
    assert!(again.last() == logits);
    assert_eq!(go_on(&mut sequence, logits, 20), wanted);
}

/// Gemma's windows are longer than these texts; the engine's own tests shorten them.
#[test]
fn a_sequence_is_saved_and_restored_to_the_bit() {
    for name in ["smollm2-135m", "gemma3-270m"] {
        let model = load(name);
        let mut sequence = model.sequence().unwrap();
        sequence.append(&model.encode(&"A man, a plan, a canal. ".repeat(8))).unwrap();
        let logits = sequence.forward(Output::LastLogits).unwrap().last().to_vec();
        let bytes = sequence.save().unwrap();
        let wanted = go_on(&mut sequence, logits.clone(), 8);
        drop(sequence);

        let mut restored = model.restore_sequence(&bytes).unwrap();
        assert_eq!(go_on(&mut restored, logits, 8), wanted);

        let other = load(if name == "smollm2-135m" { "gemma3-270m" } else { "smollm2-135m" });
        let error = other.restore_foreign_sequence(&bytes).err().expect("another model's");
        assert!(
            error.code() == ErrorCode::InvalidArgument && error.message().contains("another model"),
            "{error}"
        );
        assert!(model.restore_sequence(&bytes[..bytes.len() / 2]).is_err());
    }
}

#[test]
fn a_sequence_refuses_what_it_cannot_hold() {
    let model = load("smollm2-135m");
    let mut sequence = model.sequence().unwrap();
    assert_eq!(sequence.forward(Output::LastLogits).err().unwrap().code(), ErrorCode::InvalidArgument);
    assert_eq!(sequence.append(&[99_999_999]).err().unwrap().code(), ErrorCode::InvalidArgument);
    let long = vec![1; sequence.context_length() + 1];
    assert_eq!(sequence.append(&long).err().unwrap().code(), ErrorCode::LimitExceeded);
    assert!(sequence.is_empty());
}

#[tokio::test]
async fn a_forward_that_is_given_up_leaves_a_sequence_that_goes_on() {
    let model = load("smollm2-135m");
    let mut sequence = model.sequence().unwrap();
    sequence.append(&model.encode(&"word ".repeat(600))).unwrap();
    let given_up =
        tokio::time::timeout(std::time::Duration::ZERO, sequence.forward_async(Output::LastLogits));
    drop(given_up.await);
    let mut other = model.sequence().unwrap();
    other.append(sequence.tokens()).unwrap();
    let wanted = other.forward_async(Output::LastLogits).await.unwrap();
    // How much of it the dropped forward pass had computed depends on timing.
    assert!(sequence.forward_async(Output::LastLogits).await.unwrap().values == wanted.values);
}

#[test]
fn likelihoods_tell_right_from_wrong() {
    let model = load("smollm2-135m");
    let prompt = model.encode("The capital of France is");
    let log_likelihood = |text: &str| -> f32 {
        let continuation = model.encode(text);
        let each = model.log_likelihood(&prompt, &continuation).unwrap();
        assert_eq!(each.len(), continuation.len());
        each.iter().sum()
    };
    assert!(log_likelihood(" Paris.") > log_likelihood(" Banana.") + 3.0);

    let continuation = model.encode(" Paris, the city of light");
    let scores = model.score(&[&prompt[..], &continuation].concat(), 1).unwrap();
    let wanted: Vec<f32> = scores[prompt.len() - 1..].iter().filter_map(|s| s.next).collect();
    assert_eq!(model.log_likelihood(&prompt, &continuation).unwrap(), wanted);
}

#[test]
fn texts_of_one_meaning_lie_closer_together() {
    let model = load("smollm2-135m");
    let texts = [
        "The cat sat quietly on the warm mat.",
        "A cat was sitting on a cosy rug.",
        "Quarterly revenue grew by eleven percent.",
    ];
    let alone = texts.map(|text| model.embed(text).unwrap());
    assert!(alone.iter().all(|v| v.len() == model.info().hidden));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((dot(&alone[0], &alone[0]) - 1.0).abs() < 1e-5);
    assert!(dot(&alone[0], &alone[1]) > dot(&alone[0], &alone[2]));
    // Embedded together, the vectors are the same to the bit.
    let together: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let threads = texts.map(|text| scope.spawn(|| model.embed(text).unwrap()));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(together == alone);
}
