//! Adapters of the experts that routers choose.

use std::path::PathBuf;

use realm_gguf::{Gguf, TensorType, Value};
use realm_model::{AdapterFile, FeedForwardSpec, Weights};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::common::{ids, json};
use super::files::{Random, bytes};
use super::writer::Writer;
use super::{Rows, difference, forward, load, logits, runner, tiny, tokens};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/adapters")
}

/// The changes of one layer's experts, of gates, ups and downs: inputs, outputs, `a` as
/// `[experts][rank][inputs]` and `b` as `[experts][outputs][rank]`.
struct Change {
    layer: usize,
    count: usize,
    rank: usize,
    matrices: [(usize, usize, Vec<f32>, Vec<f32>); 3],
}

fn changes(model: &impl Weights, rank: usize, seed: u64) -> Vec<Change> {
    let mut random = Random(seed);
    let c = model.config();
    let mut all = Vec::new();
    for (layer, spec) in c.layers.iter().enumerate() {
        let FeedForwardSpec::Experts(experts) = &spec.feed_forward else { continue };
        let (count, width, hidden) = (experts.count, experts.expert.width, c.hidden);
        let matrices = [(hidden, width), (hidden, width), (width, hidden)].map(|(inputs, outputs)| {
            let a = random.floats(count * rank * inputs, 1.0 / (inputs as f32).sqrt());
            (inputs, outputs, a, random.floats(count * outputs * rank, 0.5))
        });
        all.push(Change { layer, count, rank, matrices });
    }
    all
}

const NAMES: [(&str, &str); 3] =
    [("ffn_gate_exps", "gate_proj"), ("ffn_up_exps", "up_proj"), ("ffn_down_exps", "down_proj")];

/// Writes a GGUF adapter; `fused` with gates and ups in one tensor.
fn gguf(changes: &[Change], architecture: &str, ty: TensorType, fused: bool) -> AdapterFile {
    let string = |s: &str| Value::String(s.into());
    let mut writer = Writer::new()
        .value("general.type", string("adapter"))
        .value("general.architecture", string(architecture))
        .value("adapter.type", string("lora"))
        .value("adapter.lora.alpha", Value::F32(8.0));
    for &Change { layer, count, rank, ref matrices } in changes {
        let mut add = |name: &str, inputs: usize, outputs: usize, a: &[f32], b: &[f32]| {
            let shape = |x: usize, y: usize| [x as u64, y as u64, count as u64];
            let name = format!("blk.{layer}.{name}.weight");
            writer = std::mem::replace(&mut writer, Writer::new())
                .tensor_with(format!("{name}.lora_a"), &shape(inputs, rank), ty.id(), bytes(a, ty))
                .tensor_with(format!("{name}.lora_b"), &shape(rank, outputs), ty.id(), bytes(b, ty));
        };
        for (which, ((inputs, outputs, a, b), (name, _))) in matrices.iter().zip(NAMES).enumerate() {
            if !fused || which == 2 {
                add(name, *inputs, *outputs, a, b);
            }
        }
        if fused {
            // One `a` for both: that of gates.
            let [(inputs, outputs, a, gate), (.., up), _] = matrices;
            let len = outputs * rank;
            let both: Vec<f32> =
                (0..count).flat_map(|e| [&gate[e * len..][..len], &up[e * len..][..len]].concat()).collect();
            add("ffn_gate_up_exps", *inputs, 2 * outputs, a, &both);
        }
    }
    AdapterFile::from_gguf(Gguf::from_bytes(writer.bytes()).expect("GGUF")).expect("an adapter")
}

/// Writes what PEFT saves.
fn safetensors(
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    rank: usize,
    more: &str,
) -> Result<AdapterFile, realm_model::Error> {
    let data: Vec<_> =
        tensors.iter().map(|(name, shape, x)| (name, shape, bytes(x, TensorType::F32))).collect();
    let views = data.iter().map(|(name, shape, data)| {
        (
            format!("base_model.model.{name}"),
            TensorView::new(Dtype::F32, (*shape).clone(), data).expect("a tensor"),
        )
    });
    let file = safetensors::serialize(views, None).expect("a safetensors file");
    let config = format!(r#"{{"peft_type": "LORA", "r": {rank}, "lora_alpha": 8 {more}}}"#);
    AdapterFile::from_peft(&config, file)
}

/// A module of its own for each matrix of each expert, but for those that `skip`.
fn modules(
    changes: &[Change],
    prefix: &str,
    names: [&str; 3],
    skip: impl Fn(usize) -> bool,
) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut tensors = Vec::new();
    for &Change { layer, count, rank, ref matrices } in changes {
        for ((inputs, outputs, a, b), name) in matrices.iter().zip(names) {
            for expert in (0..count).filter(|&expert| !skip(expert)) {
                let name = |half: &str| {
                    format!("model.layers.{layer}.{prefix}.experts.{expert}.{name}.lora_{half}.weight")
                };
                let (x, y) = (rank * inputs, outputs * rank);
                tensors.push((name("A"), vec![rank, *inputs], a[expert * x..][..x].to_vec()));
                tensors.push((name("B"), vec![*outputs, rank], b[expert * y..][..y].to_vec()));
            }
        }
    }
    tensors
}

/// The parameters of all experts, `gate_up_proj` and `down_proj`, as PEFT's `ParamWrapper` has them. Gates
/// and ups share the gates' `a`.
fn parameters(changes: &[Change], alternating: bool) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut tensors = Vec::new();
    for &Change { layer, count, rank, ref matrices } in changes {
        // `[outputs][rank][experts]`
        let turned = |outputs: usize, of: &dyn Fn(usize, usize, usize) -> f32| {
            let mut out = Vec::new();
            for output in 0..outputs {
                for r in 0..rank {
                    out.extend((0..count).map(|expert| of(expert, output, r)));
                }
            }
            out
        };
        let [(inputs, width, a, gate), (.., up), (inner, hidden, down_a, down)] = matrices;
        let both = turned(2 * width, &|expert, output, r| {
            let (half, row) =
                if alternating { (output % 2, output / 2) } else { (output / width, output % width) };
            [gate, up][half][(expert * width + row) * rank + r]
        });
        let downs = turned(*hidden, &|expert, output, r| down[(expert * hidden + output) * rank + r]);
        for (module, inputs, outputs, a, b) in
            [("experts.base_layer", inputs, 2 * width, a, both), ("experts", inner, *hidden, down_a, downs)]
        {
            let name = |half: &str| format!("model.layers.{layer}.mlp.{module}.lora_{half}.weight");
            tensors.push((name("A"), vec![count * rank, *inputs], a.clone()));
            tensors.push((name("B"), vec![outputs, rank * count], b));
        }
    }
    tensors
}

/// Files that llama.cpp's converter would write, and a float64 forward pass of the changed weights.
#[test]
fn adapted_experts_compute_what_the_formulas_say() {
    let records = json("reference/adapters.json");
    for record in records.as_array().expect("an array") {
        let name = record["model"].as_str().expect("a name");
        let model = load(&tiny(name));
        let file = AdapterFile::open(folder().join(format!("{name}.gguf"))).expect("an adapter");
        let tokens = ids(&record["tokens"]);
        let scale = record["scale"].as_f64().expect("a scale") as f32;
        let got = logits(&model, Some((&file, scale)), &tokens);
        let plain = logits(&model, None, &tokens);
        assert!(difference(&got, &plain) > 0.5, "{name}: the adapter changes nothing");
        let wanted = record["log_probabilities"].as_array().expect("an array");
        let mut largest = 0f64;
        for ((row, listed), wanted) in got.iter().zip(record["ids"].as_array().expect("an array")).zip(wanted)
        {
            let most = row.iter().copied().fold(f32::MIN, f32::max) as f64;
            let sum: f64 = row.iter().map(|&x| (x as f64 - most).exp()).sum();
            for (id, wanted) in ids(listed).into_iter().zip(wanted.as_array().expect("an array")) {
                let got = row[id as usize] as f64 - most - sum.ln();
                largest = largest.max((got - wanted.as_f64().expect("a number")).abs());
            }
        }
        println!("{name}: {largest:.6}");
        assert!(largest < 1e-4, "{name}: {largest}");
    }
}

/// Rows with different adapters and without one, prefilling and decoding, chunked, and in the last layer
/// where only wanted rows are left.
#[test]
fn adapters_of_experts_in_one_batch_give_the_same_bits_as_each_alone() {
    for name in [
        "qwen3moe-f16",
        "qwen3moe-q4_k",
        "gpt-oss-mxfp4",
        "gpt-oss-f16",
        "granitemoe-shared-f16",
        "deepseek3-f16",
        "llama4-f16",
    ] {
        let model = load(&tiny(name));
        let (vocab, architecture) = (model.config().vocab, model.config().architecture.name());
        let [mut together, mut alone] = [runner(&model), runner(&model)];
        for id in 0..3u32 {
            let ty = [TensorType::F32, TensorType::F16, TensorType::BF16][id as usize];
            let file =
                gguf(&changes(&model, [4, 3, 16][id as usize], 7 + u64::from(id)), architecture, ty, false);
            let adapter = model.adapter(&file).expect("it fits");
            together.set_adapter(id, Some(adapter.clone())).expect("its model");
            alone.set_adapter(id, Some(adapter)).expect("its model");
        }
        let texts: Vec<Vec<u32>> = (0..5).map(|i| tokens(20, vocab, i)).collect();
        let adapter = |i: usize| [Some((0, 1.0)), Some((1, 0.5)), Some((2, 1.0)), Some((1, 1.5)), None][i];
        let mut want = Vec::new();
        for (i, tokens) in texts.iter().enumerate() {
            want.push(
                forward(&mut *alone, &[Rows { tokens, past: 0, pages: &[i as u32], adapter: adapter(i) }])
                    .expect("logits"),
            );
        }
        assert!(want[1] != want[3], "{name}: the scale changes nothing");
        let mut past = [0; 5];
        for step in 0..3 {
            let (mut batch, mut expected) = (Vec::new(), Vec::new());
            for i in 0..5 {
                let n = if step == 2 {
                    20 - past[i]
                } else if (i + step) % 3 == 0 {
                    1
                } else {
                    6
                };
                let range = past[i]..past[i] + n;
                let pages: &[u32] = [&[3], &[9], &[1], &[7], &[5]][i];
                batch.push(Rows {
                    tokens: &texts[i][range.clone()],
                    past: past[i],
                    pages,
                    adapter: adapter(i),
                });
                expected.extend_from_slice(&want[i][range.clone()]);
                past[i] = range.end;
            }
            assert!(forward(&mut *together, &batch).expect("logits") == expected, "{name}, step {step}");
        }
    }
}

/// The same changes in llama.cpp's form, and in PEFT's two: a module for each expert, and parameters of all.
#[test]
fn every_spelling_of_an_adapter_of_experts_means_the_same() {
    for (name, prefix, names) in [
        ("qwen3moe-f16", "mlp", ["gate_proj", "up_proj", "down_proj"]),
        ("mixtral-f32", "block_sparse_moe", ["w1", "w3", "w2"]),
        ("gpt-oss-f16", "mlp", ["gate_proj", "up_proj", "down_proj"]),
    ] {
        let model = load(&tiny(name));
        let architecture = model.config().architecture.name();
        let mut all = changes(&model, 4, 3);
        let text = tokens(20, model.config().vocab, 1);
        let of = |file: &AdapterFile| logits(&model, Some((file, 1.0)), &text);
        let want = of(&gguf(&all, architecture, TensorType::F32, false));
        let file = safetensors(&modules(&all, prefix, names, |_| false), 4, "").expect("an adapter");
        assert!(of(&file) == want, "{name}: modules");
        assert_eq!(file.rank(), 4);
        // Experts that are left out keep their weights.
        let some =
            of(&safetensors(&modules(&all, prefix, names, |expert| expert == 1), 4, "").expect("an adapter"));
        for change in &mut all {
            for (.., b) in &mut change.matrices {
                let len = b.len() / change.count;
                b[len..2 * len].fill(0.0);
            }
        }
        assert!(of(&gguf(&all, architecture, TensorType::F32, false)) == some, "{name}: without expert 1");
        // Parameters, and fused tensors, have one `a` for gates and ups.
        for change in &mut all {
            change.matrices[1].2 = change.matrices[0].2.clone();
        }
        let want = of(&gguf(&all, architecture, TensorType::F32, false));
        assert!(of(&gguf(&all, architecture, TensorType::F32, true)) == want, "{name}: a fused tensor");
        let more = r#", "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]"#;
        let file = safetensors(&parameters(&all, architecture == "gpt-oss"), 4, more).expect("an adapter");
        assert!(of(&file) == want, "{name}: parameters");
        assert_eq!(file.rank(), 4);
    }
}

#[test]
fn adapters_of_experts_that_do_not_fit_are_refused() {
    let model = load(&tiny("qwen3moe-f16"));
    let refused = |file: Result<AdapterFile, realm_model::Error>, why: &str| {
        let error = file.and_then(|file| model.adapter(&file).map(drop)).expect_err(why).to_string();
        assert!(error.contains(why), "{why}: {error}");
    };
    let names = ["gate_proj", "up_proj", "down_proj"];
    let all = changes(&model, 4, 1);
    let good = || modules(&all[..1], "mlp", names, |expert| expert > 1);
    model.adapter(&safetensors(&good(), 4, "").expect("an adapter")).expect("it fits");
    // A tensor under another name, of another shape, or twice; another rank.
    let renamed = |from: &str, to: &str| {
        let mut tensors = good();
        tensors.iter_mut().for_each(|(name, ..)| *name = name.replace(from, to));
        safetensors(&tensors, 4, "")
    };
    refused(renamed("experts.1.", "experts.99."), "expert 99 is changed; the model has 8");
    refused(renamed("experts.1.up_proj", "experts.1.side_proj"), "side_proj");
    refused(renamed("layers.0", "layers.9"), "blk.9");
    let again: Vec<_> =
        good().into_iter().map(|(name, shape, data)| (name.replace("model.", ""), shape, data)).collect();
    refused(safetensors(&[good(), again].concat(), 4, ""), "twice");
    refused(safetensors(&good(), 8, ""), "rank 4");
    let more = r#", "rank_pattern": {"experts.1.up_proj": 2}"#;
    let mut tensors = good();
    for (name, shape, data) in &mut tensors {
        if name.contains("experts.1.up_proj") {
            *shape = if name.contains("lora_A") { vec![2, shape[1]] } else { vec![shape[0], 2] };
            data.truncate(shape[0] * shape[1]);
        }
    }
    refused(safetensors(&tensors, 4, more), "differ between the experts");
    // Parameters.
    let cut = |(_, shape, data): &mut (String, Vec<usize>, Vec<f32>)| data.truncate(shape[0] * shape[1]);
    let target = r#", "target_parameters": ["mlp.experts.gate_up_proj"]"#;
    let mut wrong = parameters(&all[..1], false);
    wrong[0].1[0] /= 2;
    cut(&mut wrong[0]);
    refused(safetensors(&wrong, 4, target), "matrices of shapes");
    wrong[1].1[1] /= 2;
    cut(&mut wrong[1]);
    refused(safetensors(&wrong, 4, target), "8 experts");
    wrong[0].1[1] -= 1;
    cut(&mut wrong[0]);
    refused(safetensors(&wrong, 4, target), "it has none");
    let more = format!(r#"{target}, "alpha_pattern": {{"experts": 3}}"#);
    refused(safetensors(&parameters(&all[..1], false), 4, &more), "alpha_pattern");
    // Llama's dense layers have no experts.
    let dense = load(&tiny("llama-f32"));
    let file = safetensors(&good(), 4, "").expect("an adapter");
    let error = dense.adapter(&file).map(drop).expect_err("no experts").to_string();
    assert!(error.contains("ffn_gate_exps"), "{error}");
    // A pair of matrices for a tensor of all experts.
    let mut flat = changes(&model, 4, 1);
    flat[0].count = 1;
    for (inputs, outputs, a, b) in &mut flat[0].matrices {
        a.truncate(4 * *inputs);
        b.truncate(4 * *outputs);
    }
    let file = gguf(&flat[..1], "qwen3moe", TensorType::F32, false);
    refused(Ok(file), "of 8 experts");
}

/// PEFT has the rows of queries and keys in the order of Hugging Face's files. GGUF files have another for
/// llama and its kin only, although others rotate neighbors, too.
#[test]
fn only_families_whose_heads_are_reordered_have_their_adapters_reordered() {
    for (name, reordered) in [
        ("llama-f32", true),
        ("smollm3-f16", true),
        ("granite-f16", true),
        ("ministral3-f16", true),
        ("cohere2-f16", false),
        ("glm4-f16", false),
        ("ernie4.5-f16", false),
        ("command-r-f16", false),
        ("llama4-f16", false),
        ("qwen3-f16", false),
    ] {
        let model = load(&tiny(name));
        let attention = &model.config().layers[0].attention;
        let (inputs, outputs, dim) = (model.config().hidden, attention.queries(), attention.head_dim);
        let mut random = Random(5);
        let (a, b) = (random.floats(2 * inputs, 0.5), random.floats(outputs * 2, 1.0));
        let module = "model.layers.0.self_attn.q_proj";
        let tensors = [
            (format!("{module}.lora_A.weight"), vec![2, inputs], a.clone()),
            (format!("{module}.lora_B.weight"), vec![outputs, 2], b.clone()),
        ];
        let peft = safetensors(&tensors, 2, "").expect("an adapter");
        let mut of_file = b.clone();
        if reordered {
            for row in 0..outputs {
                let (head, half, i) = (row / dim, row % dim / (dim / 2), row % (dim / 2));
                of_file[(head * dim + 2 * i + half) * 2..][..2].copy_from_slice(&b[row * 2..][..2]);
            }
        }
        let shape = |x: usize, y: usize| [x as u64, y as u64];
        let string = |s: &str| Value::String(s.into());
        let gguf = Writer::new()
            .value("general.type", string("adapter"))
            .value("adapter.type", string("lora"))
            .value("adapter.lora.alpha", Value::F32(8.0))
            .tensor_with(
                "blk.0.attn_q.weight.lora_a",
                &shape(inputs, 2),
                TensorType::F32.id(),
                bytes(&a, TensorType::F32),
            )
            .tensor_with(
                "blk.0.attn_q.weight.lora_b",
                &shape(2, outputs),
                TensorType::F32.id(),
                bytes(&of_file, TensorType::F32),
            );
        let gguf = AdapterFile::from_gguf(Gguf::from_bytes(gguf.bytes()).expect("GGUF")).expect("an adapter");
        let text = tokens(12, model.config().vocab, 1);
        let [ours, theirs] = [&gguf, &peft].map(|file| logits(&model, Some((file, 1.0)), &text));
        assert!(ours == theirs, "{name}");
        assert!(
            difference(&ours, &logits(&model, None, &text)) > 0.01,
            "{name}: the adapter changes nothing"
        );
    }
}
