//! Compares with a float64 forward pass in another language: for small random models of every architecture,
//! rope variant and tensor type, and for three real ones, beside llama.cpp. See `tests/reference/README.md`.

mod common;

use std::path::{Path, PathBuf};

use common::{Device, ids, json, load, log_probabilities, model_path, tables};
use realm_compute::{Batch, CacheType, PAGE_TOKENS, Want};
use realm_gguf::{Gguf, TensorType};
use realm_model::Forward;
use serde_json::Value;

/// Pages of every group of layers, enough for three short sequences.
const PAGES: usize = 16;

/// Returns the file of the tiny model `name`.
fn tiny(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny");
    folder.join(format!("{name}.gguf"))
}

/// Calls `each` with every device, and name and record of every tiny model that it runs.
fn on_every_device(mut each: impl FnMut(&Device, &str, &Value)) {
    let Value::Array(all) = json("reference/tiny.json") else { panic!("tiny.json is not an array") };
    for device in Device::all() {
        for record in &all {
            let name = record["model"].as_str().expect("a name");
            if let Some(lacking) = device.lacking(&tiny(name)) {
                panic!("{name}: the {device} has no {lacking}");
            }
            each(&device, name, record);
        }
    }
}

/// Returns whether a file has matrices of half floats.
fn has_half_floats(path: &Path) -> bool {
    let gguf = Gguf::open(path).expect("a GGUF file");
    gguf.tensors().iter().any(|tensor| tensor.shape.len() > 1 && tensor.ty == TensorType::F16)
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Differences between log-probabilities.
#[derive(Default)]
struct Off {
    sum: f64,
    largest: f64,
    count: usize,
}

impl Off {
    fn add(&mut self, got: f64, wanted: f64) {
        let off = (got - wanted).abs();
        self.sum += off;
        // Not `max`, which would drop a NaN.
        self.largest = if off <= self.largest { self.largest } else { off };
        self.count += 1;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// Compares with the log-probabilities that `record` lists under `key`.
    fn of(got: &[Vec<f64>], record: &Value, key: &str) -> Self {
        let mut off = Self::default();
        for ((got, listed), wanted) in got.iter().zip(array(&record["ids"])).zip(array(&record[key])) {
            for (id, wanted) in ids(listed).into_iter().zip(array(wanted)) {
                off.add(got[id as usize], number(wanted));
            }
        }
        assert_eq!(off.count, got.len() * 8, "every position has eight ids");
        off
    }
}

/// With float weights only the rounding of f32 remains: differences are in the last digit of the record
/// (0.00001). A GPU also rounds the input of half-float products to half floats. In the float64 pass that
/// alone costs up to 0.0046 in the mean and 0.050 at most (granitemoe-f16).
#[test]
fn float_weights_compute_what_the_formulas_say() {
    let mut wrong = Vec::new();
    on_every_device(|device, name, record| {
        if !record["int8_log_probabilities"].is_null() {
            return;
        }
        let mut runner = device.load(&tiny(name), PAGES, CacheType::F32);
        let got = log_probabilities(&mut *runner, &ids(&record["tokens"]), 512);
        let off = Off::of(&got, record, "log_probabilities");
        println!("{name} on the {device}: mean {:.6}, largest {:.6}", off.mean(), off.largest);
        let [mean, largest] = if device.is_gpu() { [0.006, 0.06] } else { [1e-4; 2] };
        if off.largest.is_nan() || off.largest > largest || off.mean() > mean {
            wrong.push(format!("{name} on the {device}: mean {}, largest {}", off.mean(), off.largest));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Codes multiply an input that is rounded to 8 bits, which costs 0.02 to 0.08 in log-probability on random
/// weights. The reference rounds too, so a difference beyond that is a kernel's mistake: apart from it,
/// positions agree to 0.00001. Some positions do not: occasionally a number lies so close to the middle of
/// two codes that f32 and f64 round it differently, and all results that depend on it change as much as by
/// any other rounding.
#[test]
fn quantized_weights_lose_only_what_rounding_the_input_to_8_bits_costs() {
    let (mut wrong, mut agree_in_all, mut positions) = (Vec::new(), 0, 0);
    on_every_device(|device, name, record| {
        if record["int8_log_probabilities"].is_null() {
            return;
        }
        let mut runner = device.load(&tiny(name), PAGES, CacheType::F32);
        let got = log_probabilities(&mut *runner, &ids(&record["tokens"]), 512);
        let mut price = Off::default();
        let mut agree = 0;
        for (i, rounded) in array(&record["int8_log_probabilities"]).iter().enumerate() {
            let mut off = Off::default();
            let exact = array(&record["log_probabilities"][i]);
            for ((id, rounded), exact) in ids(&record["ids"][i]).into_iter().zip(array(rounded)).zip(exact) {
                off.add(got[i][id as usize], number(rounded));
                price.add(number(rounded), number(exact));
            }
            agree += (off.largest <= 1e-4) as usize;
        }
        let off = Off::of(&got, record, "log_probabilities");
        let (mean, allowed, rows) = (off.mean(), 1.25 * price.mean(), got.len());
        let eight = price.mean();
        println!(
            "{name} on the {device}: mean {mean:.4}, of 8 bits {eight:.4}; {agree} of {rows} positions agree"
        );
        // A kernel that decodes wrongly does so in every position. So do a GPU's half-float products, whose
        // input is rounded to half floats and not to 8 bits.
        let halves = device.is_gpu() && has_half_floats(&tiny(name));
        if mean.is_nan() || mean > allowed || agree == 0 && !halves {
            wrong.push(format!(
                "{name} on the {device}: mean {mean}, allowed {allowed}; {agree} positions agree"
            ));
        }
        if !halves {
            agree_in_all += agree;
            positions += rows;
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(2 * agree_in_all > positions, "{agree_in_all} of {positions} positions agree");
}

/// Returns the differences from the float64 pass for the likeliest ids that llama.cpp recorded: ours and
/// llama.cpp's own.
fn against_f64(model: &str, kind: CacheType) -> [Off; 2] {
    let (golden, reference) =
        (json(&format!("golden/{model}.json")), json(&format!("reference/{model}.json")));
    let mut runner = load(&model_path(&format!("{model}.gguf")), 64, kind);
    let (mut ours, mut peers) = (Off::default(), Off::default());
    let (cases, exact) = (array(&golden["cases"]), array(&reference["cases"]));
    assert_eq!(cases.len(), exact.len());
    for (case, exact) in cases.iter().zip(exact) {
        let prompt = ids(&case["tokens"]);
        let tokens = [prompt.clone(), ids(&case["greedy"])].concat();
        let got = log_probabilities(&mut *runner, &tokens, 512);
        for (i, top) in array(&case["top"]).iter().enumerate() {
            let (id, exact) = (top[0][0].as_u64().expect("an id") as usize, number(&exact[i][0]));
            ours.add(got[prompt.len() - 1 + i][id], exact);
            peers.add(number(&top[0][1]), exact);
        }
    }
    [ours, peers]
}

/// Both round the input of products to 8 bits, so both have the same error on average. Over these few
/// positions chance decides which is closer: the float64 pass with that rounding, repeated with noise of
/// 0.00001 before it, comes out between 0.85 and 1.14 times llama.cpp's mean. So the test allows a quarter
/// more; beyond that would be a loss of precision. `tests/reference/README.md` has the comparison over 2000
/// positions.
fn as_close_as_llama_cpp(model: &str) {
    let compared: Vec<_> = CacheType::ALL.into_iter().map(|kind| (kind, against_f64(model, kind))).collect();
    for (kind, [ours, peers]) in &compared {
        println!("{model}, cache {kind:?}: mean {:.4}, largest {:.4}", ours.mean(), ours.largest);
        println!("{model}, llama.cpp: mean {:.4}, largest {:.4}", peers.mean(), peers.largest);
    }
    for (kind, [ours, peers]) in compared {
        let (ours, peers) = (ours.mean(), peers.mean());
        // 8 bits show on Qwen (0.016 instead of 0.011), whose keys differ little from each other compared to
        // their common part.
        let room = if kind == CacheType::Q8_0 { 1.75 } else { 1.25 };
        assert!(ours <= room * peers, "{model}, cache {kind:?}: {ours}, llama.cpp {peers}");
    }
}

/// Over all recorded positions of the three models together, chance matters less: with pages of 32-bit
/// floats, our results must be at least as close to the exact ones as llama.cpp's. With 16-bit ones, Realm's
/// default, they are 5 % farther here and as close over 2,000 positions (`tests/reference/README.md`).
#[test]
fn over_all_models_we_are_no_farther_from_exact_than_llama_cpp() {
    let models = ["smollm2-135m-instruct-q4_1", "qwen2.5-coder-0.5b-instruct-q4_k_m", "gemma-3-270m-q4_k_m"];
    let (mut ours, mut peers, mut count) = (0.0, 0.0, 0);
    for model in models {
        let [one, other] = against_f64(model, CacheType::F32);
        ours += one.sum;
        peers += other.sum;
        count += one.count;
    }
    let n = count as f64;
    println!("{count} positions: mean {:.4}, llama.cpp {:.4}", ours / n, peers / n);
    assert!(ours <= peers, "mean {} over {count} positions, llama.cpp {}", ours / n, peers / n);
}

#[test]
fn smollm2_is_as_close_to_exact_as_llama_cpp() {
    as_close_as_llama_cpp("smollm2-135m-instruct-q4_1");
}

#[test]
fn qwen_is_as_close_to_exact_as_llama_cpp() {
    as_close_as_llama_cpp("qwen2.5-coder-0.5b-instruct-q4_k_m");
}

#[test]
fn gemma_is_as_close_to_exact_as_llama_cpp() {
    as_close_as_llama_cpp("gemma-3-270m-q4_k_m");
}

/// Returns the bits of a forward pass's logits, one entry per row.
fn bits(runner: &mut dyn Forward, batch: &Batch) -> Vec<Vec<u32>> {
    let vocab = runner.config().vocab;
    runner.forward(batch).expect("a pass");
    let logits = runner.outputs().host();
    logits.chunks_exact(vocab).map(|row| row.iter().map(|l| l.to_bits()).collect()).collect()
}

/// Returns the bits after each of `tokens`, fed alone in pieces of `piece`.
fn alone(runner: &mut dyn Forward, tokens: &[u32], piece: usize) -> Vec<Vec<u32>> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
    let tables = tables(runner, &pages);
    let mut out = Vec::new();
    for (i, tokens) in tokens.chunks(piece).enumerate() {
        let mut batch = Batch::default();
        batch.push(tokens, i * piece, &tables, Want::Logits);
        out.extend(bits(runner, &batch));
    }
    out
}

#[test]
fn a_prompt_fed_in_chunks_gives_the_same_bits() {
    on_every_device(|device, name, record| {
        let tokens = ids(&record["tokens"]);
        for kind in CacheType::ALL {
            let mut runner = device.load(&tiny(name), PAGES, kind);
            let whole = alone(&mut *runner, &tokens, tokens.len());
            for piece in [1, 5, 16, 33] {
                let pieces = alone(&mut *runner, &tokens, piece);
                assert!(pieces == whole, "{name} on the {device}, {kind:?} cache, in pieces of {piece}");
            }
        }
    });
}

/// A tenant's answer must not depend on the other tenants: three sequences share every batch, on pages in
/// mixed order, one decoding while the others prefill.
#[test]
fn a_sequence_gives_the_same_bits_in_company() {
    on_every_device(|device, name, record| {
        let tokens = ids(&record["tokens"]);
        let reversed: Vec<u32> = tokens.iter().rev().copied().collect();
        let sequences = [&tokens[..], &reversed[..], &tokens[7..40]];
        let pages: [&[u32]; 3] = [&[9, 2], &[0, 11], &[5, 1]];
        // Rows of each sequence in each batch.
        let steps = [[20, 1, 13], [1, 30, 0], [26, 1, 19], [1, 16, 1]];
        for kind in CacheType::ALL {
            let mut runner = device.load(&tiny(name), PAGES, kind);
            let wanted = sequences.map(|s| alone(&mut *runner, s, s.len()));
            let mut past = [0; 3];
            for step in steps {
                let (mut batch, mut expected) = (Batch::default(), Vec::new());
                for (s, rows) in step.into_iter().enumerate().filter(|(_, rows)| *rows > 0) {
                    let range = past[s]..past[s] + rows;
                    let tables = tables(&*runner, pages[s]);
                    batch.push(&sequences[s][range.clone()], past[s], &tables, Want::Logits);
                    expected.extend_from_slice(&wanted[s][range.clone()]);
                    past[s] = range.end;
                }
                let what = format!("{name} on the {device}, {kind:?} cache, step {step:?}");
                assert!(bits(&mut *runner, &batch) == expected, "{what}");
            }
            assert_eq!(past, sequences.map(<[u32]>::len));
        }
    });
}

/// In the page's table, the last cell of an architecture says whether a GPU runs it.
#[test]
fn the_page_of_models_says_what_a_gpu_runs() {
    let Some(gpu) = Device::all().into_iter().find(Device::is_gpu) else { return };
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let page = std::fs::read_to_string(page).expect("the page");
    for file in std::fs::read_dir(tiny("").parent().expect("a folder")).expect("the models") {
        let file = file.expect("an entry").path();
        let metadata = Gguf::open(&file).expect("a model");
        let architecture = metadata.metadata().require_str("general.architecture").expect("a name");
        let row = page.lines().find(|line| {
            line.split('|').nth(1).is_some_and(|cell| cell.contains(&format!("`{architecture}`")))
        });
        let says = row.and_then(|row| row.split('|').nth_back(1)).expect("a row").trim();
        match (says, gpu.lacking(&file)) {
            ("yes", Some(lacking)) => panic!("{}: the GPU has no {lacking}", file.display()),
            ("no", None) => panic!("{}: the GPU runs it", file.display()),
            _ => {}
        }
    }
}
