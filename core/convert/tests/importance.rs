//! Importances of columns that a text gives: they are the inputs' mean squares, files hold them as
//! llama.cpp's do, and they lower the error on other texts.

use std::path::{Path, PathBuf};

use realm_compute::quant::dequantize;
use realm_convert::{Error, Inputs, open_importance, quantize, read_importance};
use realm_gguf::{Gguf, TensorType};
use realm_hub::{Hub, Reference};

fn tiny(name: &str) -> Gguf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny");
    Gguf::open(folder.join(format!("{name}.gguf"))).unwrap()
}

fn numbers(gguf: &Gguf, name: &str) -> Vec<f32> {
    let (info, mut buffer) = (gguf.require_tensor(name).unwrap(), Vec::new());
    let mut values = vec![0.0; info.len()];
    dequantize(info.ty, gguf.read(info, &mut buffer).unwrap(), &mut values).unwrap();
    values
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + i * i) % 100).collect()
}

fn inputs(gguf: &Gguf, tokens: &[u32]) -> Inputs {
    Inputs::of_tokens(gguf, tokens, None, 2, &mut |_, _| {}).unwrap()
}

#[test]
fn importances_are_the_mean_squares_of_inputs() {
    let (model, tokens) = (tiny("llama-f32"), tokens(700));
    let mut last = (0, 0);
    let found = Inputs::of_tokens(&model, &tokens, None, 2, &mut |done, all| last = (done, all)).unwrap();
    assert_eq!(last, (700, 700));
    let importance = found.importance();
    // The first layer's attention reads the normalized embeddings, whatever the chunks are.
    let (embeddings, norm) =
        (numbers(&model, "token_embd.weight"), numbers(&model, "blk.0.attn_norm.weight"));
    let mut wanted = vec![0f64; norm.len()];
    for &token in &tokens {
        let row = &embeddings[token as usize * norm.len()..][..norm.len()];
        let square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / norm.len() as f64;
        for ((sum, &x), &w) in wanted.iter_mut().zip(row).zip(&norm) {
            *sum += (f64::from(x) * f64::from(w)).powi(2) / (square + 1e-6) / tokens.len() as f64;
        }
    }
    for name in ["attn_q", "attn_k", "attn_v"] {
        let found = &importance[&format!("blk.0.{name}.weight")];
        assert!(found.iter().zip(&wanted).all(|(&x, y)| (f64::from(x) / y - 1.0).abs() < 1e-4), "{name}");
    }
    // Every matrix of a layer has importances; embeddings and the output matrix have none.
    let matrices = model.tensors().iter().filter(|t| t.shape.len() > 1 && t.name.starts_with("blk."));
    let mut names: Vec<_> = matrices.map(|t| t.name.clone()).collect();
    let mut have: Vec<_> = importance.keys().cloned().collect();
    names.sort_unstable();
    have.sort_unstable();
    assert_eq!(have, names);
    // The first token of each chunk can be another one.
    let other = Inputs::of_tokens(&model, &tokens, Some(3), 2, &mut |_, _| {}).unwrap();
    assert_ne!(other.importance()["blk.0.attn_q.weight"], importance["blk.0.attn_q.weight"]);
    assert!(Inputs::of_tokens(&model, &[], None, 1, &mut |_, _| {}).is_err());
    let error = Inputs::of_text(&tiny("qwen3moe-f16"), "text", 1, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
}

#[test]
fn experts_have_importances_of_the_tokens_that_chose_them() {
    for name in ["qwen3moe-f16", "deepseek3-f16", "gpt-oss-f16"] {
        let model = tiny(name);
        let folder = tempfile::tempdir().unwrap();
        let (path, tokens) = (folder.path().join("inputs.gguf"), tokens(90));
        inputs(&model, &tokens).write(&path, "text.txt").unwrap();
        let file = Gguf::open(&path).unwrap();
        let architecture = model.metadata().require_str("general.architecture").unwrap();
        let used = model.metadata().u32(&format!("{architecture}.expert_used_count")).unwrap().unwrap();
        let layer = format!("blk.{}", if name.starts_with("deepseek") { 1 } else { 0 });
        let of = |matrix: &str, kind: &str| numbers(&file, &format!("{layer}.{matrix}.weight.{kind}"));
        for matrix in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"] {
            let chosen: f32 = of(matrix, "counts").iter().sum();
            assert_eq!(chosen, (used * 90) as f32, "{name}, {matrix}");
        }
        // All experts together had each row as often as it chose one.
        let (router, gates) = (of("ffn_gate_inp", "in_sum2"), of("ffn_gate_exps", "in_sum2"));
        for (column, router) in router.iter().enumerate() {
            let all: f32 = gates.iter().skip(column).step_by(of("ffn_gate_inp", "in_sum2").len()).sum();
            assert!((all / router / used as f32 - 1.0).abs() < 1e-4, "{name}, column {column}");
        }
    }
}

#[test]
fn files_are_those_of_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let (model, path) = (tiny("deepseek3-f16"), folder.path().join("inputs.gguf"));
    let found = inputs(&model, &tokens(600));
    found.write(&path, "text.txt").unwrap();
    assert!(found.write(&path, "text.txt").unwrap_err().to_string().contains("remove it first"));
    let file = Gguf::open(&path).unwrap();
    // The keys and tensors that `common_imatrix_load` of llama.cpp reads.
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.type").unwrap(), Some("imatrix"));
    assert_eq!(metadata.u32("imatrix.chunk_count").unwrap(), Some(2));
    assert_eq!(metadata.u32("imatrix.chunk_size").unwrap(), Some(512));
    let datasets = metadata.strings("imatrix.datasets").unwrap().unwrap();
    assert_eq!(datasets.iter().collect::<Vec<_>>(), [b"text.txt"]);
    let shape = |name: &str| {
        let tensor = file.require_tensor(name).unwrap();
        assert_eq!(tensor.ty, TensorType::F32);
        tensor.shape.clone()
    };
    assert_eq!(shape("blk.1.attn_output.weight.in_sum2"), [64, 1]);
    assert_eq!(shape("blk.1.attn_output.weight.counts"), [1, 1]);
    assert_eq!(shape("blk.1.ffn_down_exps.weight.in_sum2"), [16, 8]);
    assert_eq!(shape("blk.1.ffn_down_exps.weight.counts"), [1, 8]);
    // A matrix for each head.
    assert_eq!(shape("blk.1.attn_v_b.weight.in_sum2"), [32, 4]);
    assert_eq!(numbers(&file, "blk.1.attn_v_b.weight.counts"), [600.0; 4]);
    let (read, wanted) = (read_importance(&file).unwrap(), found.importance());
    assert_eq!(read.len(), wanted.len());
    for (name, wanted) in wanted {
        let close = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-5 * y.abs();
        assert!(read[&name].iter().zip(&wanted).all(close), "{name}");
    }
    assert_eq!(open_importance(&path).unwrap(), read);
}

/// The form that `llama-imatrix` wrote until 2025, which many files still have.
#[test]
fn older_files_of_llama_cpp_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imatrix.dat");
    let number = |n: i32| n.to_le_bytes().to_vec();
    let entry = |name: &str, calls: i32, sums: &[f32]| {
        let sums_bytes = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        [number(name.len() as i32), name.into(), number(calls), number(sums.len() as i32), sums_bytes]
            .concat()
    };
    let good = [
        number(2),
        entry("blk.0.attn_q.weight", 4, &[8.0, 2.0]),
        entry("output.weight", 0, &[3.0]),
        number(4),
        number(5),
        b"a.txt".to_vec(),
    ]
    .concat();
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        open_importance(&path)
    };
    let importance = read(&good).unwrap();
    assert_eq!(importance["blk.0.attn_q.weight"], [2.0, 0.5]);
    assert_eq!(importance["output.weight"], [3.0]);
    for len in 0..good.len() - 13 {
        assert!(read(&good[..len]).is_err(), "{len} bytes");
    }
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        let file = [number(1), entry("blk.0.attn_q.weight", 4, &[bad])].concat();
        assert!(read(&file).unwrap_err().to_string().contains("attn_q"), "{bad}");
    }
    for file in [vec![], number(0), number(-1), number(i32::MAX), b"no such file at all".to_vec()] {
        assert!(read(&file).unwrap_err().to_string().contains("llama-imatrix"), "{file:?}");
    }
}

const ONE: &str = "The lighthouse keeper climbed the stairs every evening before sunset. He carried a small lamp and a \
notebook in which he wrote down the weather, the ships that passed, and the birds that rested on the railing. In winter \
the wind came from the north and the waves were higher than the door. He had learned to cook with very little, and to \
repair whatever broke with what the sea left on the beach. def area(width, height): return width * height. Once a month \
a boat brought flour, oil, letters and newspapers, which he read from the first page to the last.";

const OTHER: &str = "Photosynthesis converts light into chemical energy. In the first stage, pigments in the leaves absorb \
photons and split water, which releases oxygen. In the second stage, carbon dioxide from the air becomes sugar. Farmers \
have long known that plants grow faster with more light, up to a point; beyond it, heat and lack of water limit growth. \
Researchers measure the rate with small sensors that are clipped to a leaf. The results help to choose crops for dry \
regions and to plan when fields should be watered.";

/// Each quantizer that takes importances, on real matrices: the error of outputs on a text that was not used,
/// by the mean squares of its inputs.
#[test]
fn importances_of_one_text_lower_the_error_on_another() {
    let entry = realm_hub::catalog().iter().find(|entry| entry.name == "smollm2-135m").unwrap();
    let path: PathBuf =
        Hub::new().and_then(|hub| hub.resolve(&Reference::Catalog(entry.clone()), &mut ())).unwrap();
    let model = Gguf::open(path).unwrap();
    let of = |text: &str| Inputs::of_text(&model, text, 2, &mut |_, _| {}).unwrap().importance();
    let (one, other) = (of(ONE), of(OTHER));
    use TensorType as T;
    // The model's own type, Q4_1, and Q5_1 lose nothing of it.
    for ty in [
        T::Q2_K,
        T::Q3_K,
        T::Q4_K,
        T::Q5_K,
        T::Q6_K,
        T::IQ4_XS,
        T::IQ4_NL,
        T::MXFP4,
        T::Q4_0,
        T::Q5_0,
        T::Q8_0,
    ] {
        let [mut plain, mut weighed] = [0f64; 2];
        for layer in [4, 15, 26] {
            let name = format!("blk.{layer}.ffn_down.weight");
            let columns = model.require_tensor(&name).unwrap().shape[0] as usize;
            let values = &numbers(&model, &name)[..48 * columns];
            for (importance, sum) in [(None, &mut plain), (Some(&one[&name][..]), &mut weighed)] {
                let (mut blocks, mut back) = (Vec::new(), vec![0.0; values.len()]);
                quantize(ty, values, columns, importance, &mut blocks).unwrap();
                dequantize(ty, &blocks, &mut back).unwrap();
                let importances = other[&name].iter().cycle();
                *sum += values
                    .iter()
                    .zip(&back)
                    .zip(importances)
                    .map(|((x, y), w)| f64::from((x - y).powi(2) * w))
                    .sum::<f64>();
            }
        }
        println!("{ty}: {:.3} of the error without importances", weighed / plain);
        assert!(weighed < plain, "{ty}: {weighed} and {plain}");
    }
}
