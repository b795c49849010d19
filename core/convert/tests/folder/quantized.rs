//! Weights of 8 and 4 bits: FP8 with scales of blocks, AWQ, GPTQ.

use half::{bf16, f16};
use realm_compute::quant;
use realm_convert::open_folder;
use realm_gguf::{Gguf, TensorType};
use serde_json::{Value, json};

use crate::common::{Stored, config, safetensors, tensors, tiny, write};

const NAME: &str = "model.layers.0.mlp.down_proj";
const OUTPUTS: usize = 64;
const INPUTS: usize = 96;

/// A tiny Qwen model whose matrix [`NAME`] is replaced by `parts`; returns the matrix, `[outputs, inputs]`.
fn matrix(parts: Vec<Stored>, quantization: Value) -> (TensorType, Vec<f32>) {
    let file = Gguf::open(tiny("qwen2-f32")).unwrap();
    let mut all: Vec<_> = tensors(&file).into_iter().filter(|(name, ..)| !name.starts_with(NAME)).collect();
    all.extend(parts);
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&file);
    config["quantization_config"] = quantization;
    write(folder.path(), "config.json", &config);
    std::fs::write(folder.path().join("model.safetensors"), safetensors(&all)).unwrap();
    let gguf = open_folder(folder.path()).unwrap();
    let info = gguf.require_tensor("blk.0.ffn_down.weight").unwrap();
    assert_eq!(info.shape, [INPUTS as u64, OUTPUTS as u64]);
    let (mut values, mut buffer) = (vec![0.0; info.len()], Vec::new());
    quant::dequantize(info.ty, gguf.read(info, &mut buffer).unwrap(), &mut values).unwrap();
    (info.ty, values)
}

fn part(suffix: &str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Stored {
    (format!("{NAME}.{suffix}"), dtype, shape.to_vec(), bytes)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn halves(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()
}

/// Numbers without a pattern.
fn any(i: usize) -> u32 {
    (i as u32).wrapping_mul(2_654_435_761) >> 9
}

#[test]
fn eight_bit_floats_are_multiplied_by_the_scale_of_their_block() {
    // The codes of 1, -1, 1.5 and 448.
    let codes: Vec<u8> =
        (0..OUTPUTS * INPUTS).map(|i| [0x38, 0xb8, 0x3c, 0x7e][any(i) as usize % 4]).collect();
    let value = |i: usize| [1.0, -1.0, 1.5, 448.0][any(i) as usize % 4];
    // Blocks of 32 outputs and 64 inputs: two by two.
    let scales = [0.5f32, 0.3, 2.0, 0.01];
    let scale = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let parts = vec![
        part("weight", "F8_E4M3", &[OUTPUTS, INPUTS], codes),
        part("weight_scale_inv", "F32", &[2, 2], scale),
    ];
    let settings = json!({"quant_method": "fp8", "weight_block_size": [32, 64]});
    let (ty, values) = matrix(parts, settings);
    assert_eq!(ty, TensorType::BF16);
    for (i, got) in values.into_iter().enumerate() {
        let (row, column) = (i / INPUTS, i % INPUTS);
        let expected = value(i) * scales[row / 32 * 2 + column / 64];
        assert_eq!(got, bf16::from_f32(expected).to_f32(), "{row} {column}");
    }
}

/// Codes, zeros and scales of groups of `group` inputs.
fn code(output: usize, input: usize) -> u32 {
    any(output * INPUTS + input) & 15
}

fn zero(output: usize, group: usize) -> u32 {
    1 + any(7 * output + group) % 15
}

fn scale(output: usize, group: usize) -> f32 {
    f16::from_f32(0.01 * (1 + any(output + 31 * group) % 50) as f32).to_f32()
}

fn packed(n: usize, each: impl Fn(usize) -> u32) -> Vec<u8> {
    words(
        &(0..n / 8).map(|w| (0..8).fold(0, |word, k| word | each(w * 8 + k) << (4 * k))).collect::<Vec<_>>(),
    )
}

fn close(values: &[f32], group_of: impl Fn(usize) -> usize) {
    for (i, got) in values.iter().enumerate() {
        let (output, input) = (i / INPUTS, i % INPUTS);
        let (scale, zero) = (scale(output, group_of(input)), zero(output, group_of(input)) as f32);
        let expected = scale * (code(output, input) as f32 - zero);
        // The low end, or the number, is rounded to 11 bits.
        assert!((got - expected).abs() <= scale * 16.0 / 2048.0, "{output} {input}: {got} {expected}");
    }
}

#[test]
fn awq_keeps_its_four_bits() {
    // Eight outputs in the order 0, 2, 4, 6, 1, 3, 5, 7.
    let order = |k: usize| k / 8 * 8 + [0, 2, 4, 6, 1, 3, 5, 7][k % 8];
    let groups = INPUTS / 32;
    let codes = (0..INPUTS).flat_map(|input| packed(OUTPUTS, |k| code(order(k), input))).collect();
    let zeros = (0..groups).flat_map(|group| packed(OUTPUTS, |k| zero(order(k), group))).collect();
    let scales: Vec<_> =
        (0..groups).flat_map(|group| (0..OUTPUTS).map(move |output| scale(output, group))).collect();
    let parts = vec![
        part("qweight", "I32", &[INPUTS, OUTPUTS / 8], codes),
        part("qzeros", "I32", &[groups, OUTPUTS / 8], zeros),
        part("scales", "F16", &[groups, OUTPUTS], halves(&scales)),
    ];
    let (ty, values) = matrix(parts, json!({"quant_method": "awq", "bits": 4, "group_size": 32}));
    assert_eq!(ty, TensorType::Q4_1);
    close(&values, |input| input / 32);
}

#[test]
fn gptq_is_read_with_groups_in_runs_and_in_any_order() {
    let groups = INPUTS / 32;
    for in_order in [true, false] {
        let group_of = |input: usize| if in_order { input / 32 } else { any(input) as usize % groups };
        let rows = (0..INPUTS / 8).flat_map(|row| {
            (0..OUTPUTS)
                .map(move |output| (0..8).fold(0, |word, k| word | code(output, row * 8 + k) << (4 * k)))
        });
        let codes = words(&rows.collect::<Vec<u32>>());
        let zeros = (0..groups).flat_map(|group| packed(OUTPUTS, |output| zero(output, group) - 1)).collect();
        let scales: Vec<_> =
            (0..groups).flat_map(|group| (0..OUTPUTS).map(move |output| scale(output, group))).collect();
        let list: Vec<_> = (0..INPUTS).map(|input| group_of(input) as u32).collect();
        let parts = vec![
            part("qweight", "I32", &[INPUTS / 8, OUTPUTS], codes),
            part("qzeros", "I32", &[groups, OUTPUTS / 8], zeros),
            part("scales", "F16", &[groups, OUTPUTS], halves(&scales)),
            part("g_idx", "I32", &[INPUTS], words(&list)),
        ];
        let (ty, values) = matrix(parts, json!({"quant_method": "gptq", "bits": 4, "group_size": 32}));
        assert_eq!(ty, if in_order { TensorType::Q4_1 } else { TensorType::F16 });
        close(&values, group_of);
    }
}
