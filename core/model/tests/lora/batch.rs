//! Adapters in one batch, and adapters that come and go.

use realm_gguf::{Gguf, TensorType};
use realm_model::{AdapterFile, Error, Forward, Weights};

use super::files::{changes, gguf, peft};
use super::{Rows, forward, load, runner, tiny, tokens};

fn random(model: &impl Weights, rank: usize, seed: u64) -> AdapterFile {
    let ty = [TensorType::F32, TensorType::F16, TensorType::BF16][seed as usize % 3];
    let (config, tensors) = peft(&changes(model.config(), true, rank, seed), 8.0, ty);
    AdapterFile::from_peft(&config, tensors).expect("an adapter")
}

/// Eight adapters of different ranks, one of them also with a second scale, and rows without an adapter; some
/// sequences decode while others prefill, on pages in mixed order.
#[test]
fn eight_adapters_in_one_batch_give_the_same_bits_as_each_alone() {
    for name in ["llama-f32", "llama-q4_0", "gemma3-q4_1", "phi3-q8_0", "qwen2-q4_k"] {
        let model = load(&tiny(name));
        let vocab = model.config().vocab;
        let mut together = runner(&model);
        let mut alone = runner(&model);
        for id in 0..8 {
            let adapter =
                model.adapter(&random(&model, [16, 8, 3, 5][id as usize % 4], 10 + id)).expect("it fits");
            together.set_adapter(id as u32, Some(adapter.clone())).expect("its model");
            alone.set_adapter(id as u32, Some(adapter)).expect("its model");
        }
        let texts: Vec<Vec<u32>> = (0..10).map(|i| tokens(24, vocab, i)).collect();
        let adapter = |i: usize| match i {
            8 => Some((3, 0.25)),
            9 => None,
            _ => Some((i as u32, 1.0 + i as f32 / 8.0)),
        };
        let mut want = Vec::new();
        for (i, tokens) in texts.iter().enumerate() {
            let rows = Rows { tokens, past: 0, pages: &[0], adapter: adapter(i) };
            want.push(forward(&mut *alone, &[rows]).expect("logits"));
        }
        let pages: Vec<[u32; 1]> = (0..10).map(|i| [(i * 7 + 3) % 16]).collect();
        let mut past = [0; 10];
        for step in 0..4 {
            let mut batch = Vec::new();
            let mut expected = Vec::new();
            for i in 0..10 {
                let n = if (i + step) % 3 == 0 { 1 } else { 7 };
                let n = if step == 3 { 24 - past[i] } else { n };
                let range = past[i]..past[i] + n;
                batch.push(Rows {
                    tokens: &texts[i][range.clone()],
                    past: past[i],
                    pages: &pages[i],
                    adapter: adapter(i),
                });
                expected.extend_from_slice(&want[i][range.clone()]);
                past[i] = range.end;
            }
            let got = forward(&mut *together, &batch).expect("logits");
            assert!(got == expected, "{name}, step {step}");
        }
        assert_eq!(past, [24; 10]);
    }
}

#[test]
fn scale_0_is_no_adapter_and_what_is_unloaded_can_be_loaded_again() {
    let model = load(&tiny("llama-q4_0"));
    let tokens = tokens(12, model.config().vocab, 1);
    let mut runner = runner(&model);
    let run = |runner: &mut dyn Forward, adapter| {
        forward(runner, &[Rows { tokens: &tokens, past: 0, pages: &[5], adapter }])
    };
    let none = run(&mut *runner, None).expect("logits");
    let file = random(&model, 16, 3);
    runner.set_adapter(2, Some(model.adapter(&file).expect("it fits"))).expect("its model");
    assert!(run(&mut *runner, Some((2, 0.0))).expect("logits") == none);
    let with = run(&mut *runner, Some((2, 1.0))).expect("logits");
    assert!(with != none && run(&mut *runner, Some((2, -1.0))).expect("logits") != with);
    assert!(run(&mut *runner, None).expect("logits") == none);
    for bad in [(3, 1.0), (2, f32::NAN)] {
        assert!(matches!(run(&mut *runner, Some(bad)), Err(Error::InvalidBatch(_))));
    }
    runner.set_adapter(2, None).expect("unloading");
    let error = run(&mut *runner, Some((2, 1.0))).expect_err("an adapter that is gone").to_string();
    assert!(error.contains("no adapter 2"), "{error}");
    let again = model.adapter(&file).expect("it fits");
    assert!(again.bytes() > 0);
    runner.set_adapter(9, Some(again)).expect("its model");
    assert!(run(&mut *runner, Some((9, 1.0))).expect("logits") == with);
}

#[test]
fn an_adapter_serves_only_the_model_that_it_was_loaded_for() {
    let (one, other) = (load(&tiny("llama-f32")), load(&tiny("llama-f32")));
    let adapter = one.adapter(&random(&one, 4, 3)).expect("it fits");
    runner(&one).set_adapter(1, Some(adapter.clone())).expect("its model");
    let error = runner(&other).set_adapter(1, Some(adapter)).expect_err("another model").to_string();
    assert!(error.contains("another model"), "{error}");
}

/// Unwanted rows leave the batch before the last layer's second half; the remaining rows keep their adapters.
#[test]
fn the_last_row_of_a_prompt_alone_gets_its_adapter() {
    use realm_compute::{AdapterUse, Batch, Want};
    let model = load(&tiny("llama-f32"));
    let c = model.config();
    let text = tokens(20, c.vocab, 1);
    let bytes = gguf(&changes(c, true, 4, 8), 4.0, "llama", TensorType::F32);
    let file = AdapterFile::from_gguf(Gguf::from_bytes(bytes).expect("GGUF")).expect("an adapter");
    let mut runner = runner(&model);
    runner.set_adapter(0, Some(model.adapter(&file).expect("it fits"))).expect("its model");
    let all =
        [None, Some((0, 1.0)), None].map(|adapter| Rows { tokens: &text, past: 0, pages: &[0], adapter });
    let mut want = Vec::new();
    for rows in all {
        want.push(forward(&mut *runner, &[rows]).expect("logits").pop().expect("a row"));
    }
    let mut batch = Batch::default();
    for (i, adapter) in [None, Some(AdapterUse { id: 0, scale: 1.0 }), None].into_iter().enumerate() {
        let want = if i == 2 { Want::Hidden } else { Want::LastLogits };
        batch.push(&text, 0, &super::common::tables(&*runner, &[i as u32]), want);
        batch.spans[i].adapter = adapter;
    }
    runner.forward(&batch).expect("a pass");
    assert!(runner.outputs().host() == want[..2].concat());
}
