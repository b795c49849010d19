//! Small valid files, which tests damage and from which the fuzzer starts.

use realm_gguf::{Array, TensorType, Value};

use super::writer::{Endian, Writer};

/// One entry of every type, and arrays of every type, including nested ones.
pub(crate) fn every_value() -> Vec<(&'static str, Value)> {
    let strings = || Array::Strings([&b"one"[..], b"", &[0xff, 0xfe]].into_iter().collect());
    let nested = Array::Nested(vec![
        Array::U8(vec![1, 2]),
        Array::Nested(vec![strings(), Array::Nested(vec![Array::F32(vec![0.5])])]),
        Array::Nested(vec![]),
    ]);
    vec![
        ("u8", Value::U8(u8::MAX)),
        ("i8", Value::I8(i8::MIN)),
        ("u16", Value::U16(u16::MAX)),
        ("i16", Value::I16(i16::MIN)),
        ("u32", Value::U32(u32::MAX)),
        ("i32", Value::I32(i32::MIN)),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f32", Value::F32(-1.5)),
        ("f64", Value::F64(std::f64::consts::PI)),
        ("true", Value::Bool(true)),
        ("false", Value::Bool(false)),
        ("string", Value::String("a line\nand \u{1f600}\0".into())),
        ("empty string", Value::String(String::new())),
        ("u8s", Value::Array(Array::U8(vec![0, u8::MAX]))),
        ("i8s", Value::Array(Array::I8(vec![i8::MIN, -1, i8::MAX]))),
        ("u16s", Value::Array(Array::U16(vec![0, u16::MAX]))),
        ("i16s", Value::Array(Array::I16(vec![i16::MIN, i16::MAX]))),
        ("u32s", Value::Array(Array::U32(vec![0, u32::MAX]))),
        ("i32s", Value::Array(Array::I32(vec![i32::MIN, i32::MAX]))),
        ("u64s", Value::Array(Array::U64(vec![0, u64::MAX]))),
        ("i64s", Value::Array(Array::I64(vec![i64::MIN, i64::MAX]))),
        ("f32s", Value::Array(Array::F32(vec![f32::MIN, f32::INFINITY, -0.0]))),
        ("f64s", Value::Array(Array::F64(vec![f64::MAX, 1e-300]))),
        ("bools", Value::Array(Array::Bool(vec![true, false, true]))),
        ("strings", Value::Array(strings())),
        ("nested", Value::Array(nested)),
        ("empty", Value::Array(Array::I32(vec![]))),
    ]
}

/// A file with every metadata type.
pub(crate) fn with_every_value() -> Writer {
    every_value().into_iter().fold(Writer::new(), |w, (key, value)| w.value(key, value))
}

/// A file with one block of every tensor type.
pub(crate) fn with_every_tensor_type() -> Writer {
    TensorType::ALL
        .into_iter()
        .fold(Writer::new(), |w, ty| w.tensor(&ty.to_string(), &[ty.block_len() as u64, 1], ty))
}

/// The metadata of a small llama, with a vocabulary and two tensors.
pub(crate) fn tiny_llama() -> Writer {
    let tokens = ["<unk>", "<s>", "</s>", "\u{2581}the", "<0x0A>"];
    Writer::new()
        .value("general.architecture", Value::String("llama".into()))
        .value("llama.block_count", Value::U32(1))
        .value("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .value("tokenizer.ggml.add_bos_token", Value::Bool(true))
        .value(
            "tokenizer.ggml.tokens",
            Value::Array(Array::Strings(tokens.iter().map(|t| t.as_bytes()).collect())),
        )
        .value("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; tokens.len()])))
        .value("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![2, 3, 3, 1, 6])))
        .tensor("token_embd.weight", &[32, 5], TensorType::Q8_0)
        .tensor("blk.0.attn_norm.weight", &[32], TensorType::F32)
}

/// Part `no` (from 0) of `count` of a split model, with `tensors` tensors in all parts together.
pub(crate) fn split_part(no: u16, count: u16, tensors: i32) -> Writer {
    let split = Writer::new()
        .value("split.no", Value::U16(no))
        .value("split.count", Value::U16(count))
        .value("split.tensors.count", Value::I32(tensors));
    // Only the first part carries the model's own metadata.
    if no == 0 { split.value("general.architecture", Value::String("llama".into())) } else { split }
}

/// The fuzzer's initial files, by file name. Most are valid; the others lead it to errors that are hard to
/// reach.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty-v3", Writer::new().bytes()),
        ("empty-v2", Writer::new().version(2).bytes()),
        ("v1", tiny_llama().version(1).bytes()),
        ("big-endian", tiny_llama().endian(Endian::Big).bytes()),
        ("every-value", with_every_value().bytes()),
        ("every-tensor-type", with_every_tensor_type().bytes()),
        ("tiny-llama-v3", tiny_llama().bytes()),
        ("tiny-llama-v2", tiny_llama().version(2).bytes()),
        ("aligned-64", tiny_llama().alignment(64).bytes()),
        ("aligned-1", tiny_llama().alignment(1).bytes()),
        ("split-part", split_part(0, 2, 1).tensor("a", &[32], TensorType::Q4_0).bytes()),
    ]
}
