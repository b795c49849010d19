//! Compares with llama.cpp on three real models, teacher-forced position by position.

#[allow(dead_code, reason = "other tests of this crate share more")]
mod common;

use common::{ids, json, load, log_probabilities, model_path};
use realm_compute::CacheType;

/// Compares with the recorded ids and log-probabilities.
fn compare(model: &str) {
    let golden = json(&format!("golden/{model}.json"));
    let mut runner = load(&model_path(&format!("{model}.gguf")), 64, CacheType::F32);
    let (mut sum, mut positions, mut largest, mut wrong) = (0.0, 0, 0f64, Vec::new());
    for case in golden["cases"].as_array().expect("cases") {
        let prompt = ids(&case["tokens"]);
        let tokens = [prompt.clone(), ids(&case["greedy"])].concat();
        let got = log_probabilities(&mut *runner, &tokens, 512);
        for (i, top) in case["top"].as_array().expect("tops").iter().enumerate() {
            let (id, want) =
                (top[0][0].as_u64().expect("an id") as usize, top[0][1].as_f64().expect("a number"));
            let margin = want - top[1][1].as_f64().expect("a number");
            let got = &got[prompt.len() - 1 + i];
            let best = (0..got.len()).max_by(|&a, &b| got[a].total_cmp(&got[b])).expect("a token");
            if best != id && margin > 0.25 {
                let ours = got[best] - got[id];
                wrong.push(format!(
                    "`{}`, position {i}: {best} ({ours:.3} ahead) and not {id} ({margin:.3} ahead)",
                    case["greedy_text"]
                ));
            }
            sum += (got[id] - want).abs();
            largest = largest.max((got[id] - want).abs());
            positions += 1;
        }
    }
    assert!(wrong.is_empty(), "{model}, mean {}: {}", sum / positions as f64, wrong.join("\n"));
    let mean = sum / positions as f64;
    println!("{model}: mean difference {mean:.4}, largest {largest:.4}, {positions} positions");
    assert!(mean <= 0.05, "{model}: the mean difference of log-probabilities is {mean}");
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    compare("smollm2-135m-instruct-q4_1");
}

#[test]
fn qwen_agrees_with_llama_cpp() {
    compare("qwen2.5-coder-0.5b-instruct-q4_k_m");
}

#[test]
fn gemma_agrees_with_llama_cpp() {
    compare("gemma-3-270m-q4_k_m");
}
