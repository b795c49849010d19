//! An adapter gives the same results as merged weights.

use realm_gguf::{Gguf, TensorType};
use realm_model::{AdapterFile, Weights};

use super::files::{changes, gguf, merged, peft, rewritten};
use super::{difference, load, logits, tiny, tokens};

#[test]
fn an_adapter_gives_what_merged_weights_give_within_rounding() {
    // Permuted heads, biases, fused matrices, norms after and between, tied outputs.
    for name in ["llama-f32", "qwen2-f32", "phi3-f32", "gemma3-f16", "qwen3-f16", "gemma2-f16"] {
        let file = tiny(name);
        let architecture = name.split('-').next().expect("a name");
        let plain = Gguf::from_bytes(merged(&file, architecture, &[], 0.0)).expect("a model in F32");
        let model = load(&plain);
        let c = model.config();
        let changes = changes(c, plain.tensor("output.weight").is_some(), 5, 1 + name.len() as u64);
        let tokens = tokens(40, c.vocab, 1);
        let want = {
            let file =
                Gguf::from_bytes(merged(&file, architecture, &changes, 1.5 * 8.0 / 5.0)).expect("a model");
            logits(&load(&file), None, &tokens)
        };
        let (config, tensors) = peft(&changes, 8.0, TensorType::F32);
        let from_peft = AdapterFile::from_peft(&config, tensors).expect("a PEFT adapter");
        assert_eq!((from_peft.modules(), from_peft.rank()), (changes.len(), 5));
        let bytes = gguf(&changes, 8.0, architecture, TensorType::F32);
        let from_gguf =
            AdapterFile::from_gguf(Gguf::from_bytes(bytes).expect("GGUF")).expect("a GGUF adapter");
        let got = logits(&model, Some((&from_peft, 1.5)), &tokens);
        let (error, effect) = (difference(&got, &want), difference(&logits(&model, None, &tokens), &want));
        println!("{name}: {error:.2e}, without the adapter {effect:.2}");
        assert!(error < 1e-4, "{name}: {error:.2e}");
        assert!(effect > 0.5, "{name}: the adapter changes nothing: {effect}");
        assert!(got == logits(&model, Some((&from_gguf, 1.5)), &tokens), "{name}: GGUF and PEFT differ");
    }
}

/// Puts the same weights in PEFT's order of rows, with a rope style to match (qwen2's): the same adapter,
/// which is not reordered now, has to give the same results. So the order that llama gets is the one that its
/// rope needs.
#[test]
fn a_peft_adapter_means_the_same_on_reordered_heads_and_on_plain_ones() {
    let file = tiny("llama-f32");
    let model = load(&file);
    let c = model.config();
    let dim = c.layers[0].attention.head_dim;
    let plain = rewritten(
        &file,
        |key| key.replace("llama.", "qwen2."),
        "qwen2",
        |name, shape, values| {
            if !(name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight")) {
                return;
            }
            let columns = shape[0] as usize;
            let from = values.clone();
            for (row, out) in values.chunks_exact_mut(columns).enumerate() {
                let (head, half, i) = (row / dim, row % dim / (dim / 2), row % (dim / 2));
                out.copy_from_slice(&from[(head * dim + 2 * i + half) * columns..][..columns]);
            }
        },
    );
    let plain = load(&Gguf::from_bytes(plain).expect("a model"));
    assert_eq!(plain.config().architecture.name(), "qwen2");
    let (config, tensors) = peft(&changes(c, false, 4, 77), 4.0, TensorType::F32);
    let adapter = AdapterFile::from_peft(&config, tensors).expect("an adapter");
    let tokens = tokens(40, c.vocab, 2);
    let error = difference(&logits(&model, None, &tokens), &logits(&plain, None, &tokens));
    assert!(error < 1e-4, "the models differ: {error:.2e}");
    let [a, b] = [&model, &plain].map(|model| logits(model, Some((&adapter, 1.0)), &tokens));
    assert!(difference(&a, &b) < 1e-4, "{:.2e}", difference(&a, &b));
}

/// 16 bits hold these adapters exactly, so all types give the same results.
#[test]
fn half_floats_count_as_what_they_are() {
    let model = load(&tiny("qwen2-f32"));
    let changes = changes(model.config(), false, 8, 5);
    let tokens = tokens(20, model.config().vocab, 3);
    let of = |ty| {
        let (config, tensors) = peft(&changes, 16.0, ty);
        logits(&model, Some((&AdapterFile::from_peft(&config, tensors).expect("an adapter"), 1.0)), &tokens)
    };
    let want = of(TensorType::F32);
    assert!(of(TensorType::BF16) == want);
    let error = difference(&of(TensorType::F16), &want);
    assert!(error < 1e-3, "{error:.2e}");
}

/// For models of integer codes, F32 adapters are kept in 16 bits, scaled so that the magnitude of their
/// numbers does not matter.
#[test]
fn beside_quantized_weights_tiny_numbers_with_a_large_alpha_lose_nothing() {
    let model = load(&tiny("llama-q4_0"));
    let mut changes = changes(model.config(), false, 8, 6);
    let tokens = tokens(20, model.config().vocab, 4);
    let of = |changes: &[_], alpha| {
        let (config, tensors) = peft(changes, alpha, TensorType::F32);
        logits(&model, Some((&AdapterFile::from_peft(&config, tensors).expect("an adapter"), 1.0)), &tokens)
    };
    let want = of(&changes, 8.0);
    assert!(difference(&logits(&model, None, &tokens), &want) > 0.5);
    for change in &mut changes {
        change.a.iter_mut().for_each(|v| *v *= 2f32.powi(-20));
    }
    assert!(of(&changes, 8.0 * 2f64.powi(20)) == want);
}

#[test]
fn patterns_and_rank_stabilization_set_the_scale_of_each_module() {
    let model = load(&tiny("qwen2-f32"));
    let all = changes(model.config(), false, 4, 9);
    let tokens = tokens(20, model.config().vocab, 5);
    let (_, tensors) = peft(&all, 1.0, TensorType::F32);
    let of = |config: &str| {
        let adapter = AdapterFile::from_peft(config, tensors.clone()).expect("an adapter");
        logits(&model, Some((&adapter, 1.0)), &tokens)
    };
    let plain = of(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 2}"#);
    let same = [
        r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 1, "use_rslora": true}"#,
        r#"{"peft_type": "LORA", "r": 9, "lora_alpha": 2, "rank_pattern": {"q_proj": 4, ".": 4, "x_proj": 3,
            "k_proj": 4, "v_proj": 4, "self_attn.o_proj": 4, "gate_proj": 4, "up_proj": 4, "mlp.down_proj": 4}}"#,
        r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 7, "alpha_pattern": {"proj": 7, "^self_attn.q_proj": 7,
            "^model.layers.0.self_attn.q_proj$": 2, "layers\\.1.self_attn.q_proj": 2, "k_proj": 2, "v_proj": 2,
            "o_proj": 2, "gate_proj": 2, "up_proj": 2, "down_proj": 2, "q_proj": 2}}"#,
    ];
    for config in same {
        assert!(of(config) == plain, "{config}");
    }
    let other = of(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 2, "alpha_pattern": {"v_proj": 8}}"#);
    assert!(difference(&other, &plain) > 0.1);
}
