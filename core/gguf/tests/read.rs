//! Valid files are read completely.

mod common;

use common::bytes_of;
use common::samples::{every_value, tiny_llama, with_every_tensor_type, with_every_value};
use common::writer::Writer;
use realm_gguf::{Array, Error, Gguf, Tensor, TensorInfo, TensorType, Value};

/// Bytes and numbers per block of each type, from ggml's `ggml-common.h`, written as sums of the fields of
/// its structures (scales, minima, quants), so that they do not come from the code under test.
const SIZES: [(TensorType, u32, usize, usize); 29] = [
    (TensorType::F32, 0, 1, 4),
    (TensorType::F16, 1, 1, 2),
    (TensorType::Q4_0, 2, 32, 2 + 16),
    (TensorType::Q4_1, 3, 32, 2 + 2 + 16),
    (TensorType::Q5_0, 6, 32, 2 + 4 + 16),
    (TensorType::Q5_1, 7, 32, 2 + 2 + 4 + 16),
    (TensorType::Q8_0, 8, 32, 2 + 32),
    (TensorType::Q2_K, 10, 256, 16 + 64 + 2 + 2),
    (TensorType::Q3_K, 11, 256, 32 + 64 + 12 + 2),
    (TensorType::Q4_K, 12, 256, 2 + 2 + 12 + 128),
    (TensorType::Q5_K, 13, 256, 2 + 2 + 12 + 32 + 128),
    (TensorType::Q6_K, 14, 256, 128 + 64 + 16 + 2),
    (TensorType::Q8_K, 15, 256, 4 + 256 + 16 * 2),
    (TensorType::IQ2_XXS, 16, 256, 2 + 32 * 2),
    (TensorType::IQ2_XS, 17, 256, 2 + 32 * 2 + 8),
    (TensorType::IQ3_XXS, 18, 256, 2 + 3 * 32),
    (TensorType::IQ1_S, 19, 256, 2 + 32 + 8 * 2),
    (TensorType::IQ4_NL, 20, 32, 2 + 16),
    (TensorType::IQ3_S, 21, 256, 2 + 64 + 8 + 32 + 4),
    (TensorType::IQ2_S, 22, 256, 2 + 64 + 8 + 8),
    (TensorType::IQ4_XS, 23, 256, 2 + 2 + 4 + 128),
    (TensorType::IQ1_M, 29, 256, 32 + 16 + 8),
    (TensorType::BF16, 30, 1, 2),
    (TensorType::TQ1_0, 34, 256, 48 + 4 + 2),
    (TensorType::TQ2_0, 35, 256, 64 + 2),
    (TensorType::MXFP4, 39, 32, 1 + 16),
    (TensorType::NVFP4, 40, 64, 4 + 32),
    (TensorType::Q1_0, 41, 128, 2 + 16),
    (TensorType::Q2_0, 42, 64, 2 + 16),
];

#[test]
fn versions_2_and_3_are_read_alike() {
    for version in [2, 3] {
        let gguf = Gguf::from_bytes(tiny_llama().version(version).bytes()).unwrap();
        assert_eq!(gguf.version(), version);
        assert_eq!(gguf.metadata().require_str("general.architecture").unwrap(), "llama");
        let tokens = gguf.metadata().require_strings("tokenizer.ggml.tokens").unwrap();
        assert_eq!(tokens.len(), 5);
        assert_eq!(tokens.get(3), Some("\u{2581}the".as_bytes()));
        assert_eq!(tokens.get(5), None);
        let embedding = gguf.require_tensor("token_embd.weight").unwrap();
        assert_eq!((embedding.ty, &embedding.shape[..]), (TensorType::Q8_0, &[32, 5][..]));
        assert_eq!(bytes_of(&gguf, "token_embd.weight"), (0..34 * 5).map(|i| i as u8).collect::<Vec<_>>());
        assert_eq!(bytes_of(&gguf, "blk.0.attn_norm.weight").len(), 128);
    }
}

#[test]
fn an_open_file_reads_as_one_in_memory_does() {
    let bytes = tiny_llama().bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, &bytes).unwrap();
    let (open, owned) = (Gguf::open(&path).unwrap(), Gguf::from_bytes(bytes.clone()).unwrap());
    assert_eq!(open.file_bytes(), bytes.len() as u64);
    assert_eq!(open.tensors(), owned.tensors());
    assert!(open.metadata().iter().eq(owned.metadata().iter()));
    open.will_need();
    let (mut buffer, mut unused) = (Vec::new(), Vec::new());
    for info in open.tensors() {
        assert_eq!(open.read(info, &mut buffer).unwrap(), owned.read(info, &mut unused).unwrap());
    }
    let largest = open.tensors().iter().map(|info| info.bytes()).max().unwrap();
    assert_eq!((buffer.len(), unused.len()), (largest, 0));
    // An entry that is not the file's own could point anywhere.
    let foreign = TensorInfo::new("token_embd.weight", vec![32, 50_000], TensorType::Q8_0).unwrap();
    assert!(matches!(open.read(&foreign, &mut buffer), Err(Error::MissingTensor(_))));
}

#[test]
fn every_metadata_type_is_read() {
    let gguf = Gguf::from_bytes(with_every_value().bytes()).unwrap();
    let expected = every_value();
    assert!(gguf.metadata().iter().eq(expected.iter().map(|(key, value)| (*key, value))));
    for (key, value) in &expected {
        assert_eq!(gguf.metadata().get(key), Some(value));
    }
}

#[test]
fn an_integer_is_read_whatever_its_width() {
    let writer = Writer::new()
        .value("narrow", Value::U8(7))
        .value("wide", Value::I64(7))
        .value("negative", Value::I8(-1))
        .value("half", Value::F64(0.5))
        .value("ids", Value::Array(Array::U16(vec![1, 2])));
    let gguf = Gguf::from_bytes(writer.bytes()).unwrap();
    let metadata = gguf.metadata();
    assert_eq!(metadata.u32("narrow").unwrap(), Some(7));
    assert_eq!(metadata.u64("wide").unwrap(), Some(7));
    assert_eq!(metadata.f32("wide").unwrap(), Some(7.0));
    assert_eq!(metadata.f32("half").unwrap(), Some(0.5));
    assert_eq!(metadata.u32s("ids").unwrap(), Some(vec![1, 2]));
    assert_eq!(metadata.i32s("ids").unwrap(), Some(vec![1, 2]));
    assert_eq!(metadata.u32("absent").unwrap(), None);
}

#[test]
fn a_metadata_entry_of_another_type_is_named() {
    let writer = Writer::new().value("name", Value::String("x".into())).value("negative", Value::I8(-1));
    let gguf = Gguf::from_bytes(writer.bytes()).unwrap();
    let metadata = gguf.metadata();
    let message = |error: Error| {
        assert!(matches!(error, Error::Metadata { .. }));
        error.to_string()
    };
    assert_eq!(
        message(metadata.u32("name").unwrap_err()),
        "metadata `name`: is a value of type string; an integer from 0 to 4294967295 is needed"
    );
    assert!(message(metadata.u64("negative").unwrap_err()).contains("is -1"));
    assert!(message(metadata.require_str("absent").unwrap_err()).contains("`absent`: is missing"));
    assert!(message(metadata.f32s("name").unwrap_err()).contains("an array of floats"));
    assert!(matches!(gguf.require_tensor("absent"), Err(Error::MissingTensor(name)) if name == "absent"));
}

#[test]
fn every_tensor_type_has_ggmls_size() {
    assert_eq!(SIZES.map(|(ty, ..)| ty), TensorType::ALL);
    for (ty, id, block_len, block_bytes) in SIZES {
        assert_eq!(TensorType::from_id(id), Ok(ty));
        assert_eq!((ty.id(), ty.block_len(), ty.block_bytes()), (id, block_len, block_bytes), "{ty}");
        let info = TensorInfo::new("t", vec![2 * block_len as u64, 3, 5, 7], ty).unwrap();
        assert_eq!(info.bytes(), 2 * 3 * 5 * 7 * block_bytes, "{ty}");
        assert_eq!(info.len(), 2 * 3 * 5 * 7 * block_len, "{ty}");
        assert!(!info.is_empty());
    }
}

#[test]
fn tensors_of_every_type_lie_one_after_the_other() {
    let file = with_every_tensor_type().write();
    let gguf = Gguf::from_bytes(file.bytes.clone()).unwrap();
    let mut at = file.place("data") as usize;
    for (i, (info, (ty, _, _, bytes))) in gguf.tensors().iter().zip(SIZES).enumerate() {
        assert_eq!((info.ty, info.offset(), info.bytes(), info.part()), (ty, at, bytes, 0));
        let data = bytes_of(&gguf, &info.name);
        assert_eq!(data, (i..i + bytes).map(|b| b as u8).collect::<Vec<_>>(), "{ty}");
        at = (at + bytes).next_multiple_of(32);
    }
}

#[test]
fn any_power_of_two_up_to_a_mebibyte_aligns() {
    for alignment in (0..=20).map(|log| 1 << log) {
        let writer = tiny_llama().alignment(alignment);
        let gguf = Gguf::from_bytes(writer.bytes()).unwrap();
        for info in gguf.tensors() {
            assert_eq!(info.offset() % alignment as usize, 0, "alignment {alignment}");
        }
        assert_eq!(bytes_of(&gguf, "token_embd.weight")[..3], [0, 1, 2], "alignment {alignment}");
    }
}

#[test]
fn a_fused_tensor_is_read_in_pieces() {
    let gguf = Gguf::from_bytes(tiny_llama().bytes()).unwrap();
    let (embedding, norm) = (bytes_of(&gguf, "token_embd.weight"), bytes_of(&gguf, "blk.0.attn_norm.weight"));
    let tensor = |name, data| Tensor { info: gguf.require_tensor(name).unwrap(), data };
    let embedding = tensor("token_embd.weight", &embedding);
    let (info, data) = embedding.rows(1..3).unwrap();
    assert_eq!((info.shape, data), (vec![32, 2], &embedding.data[34..3 * 34]));
    assert!(embedding.rows(4..6).is_none());
    assert!(embedding.rows(2..2).is_none());
    assert!(tensor("blk.0.attn_norm.weight", &norm).rows(0..1).is_none());
}

#[test]
fn no_tensor_is_described_whose_size_overflows() {
    for ty in TensorType::ALL {
        let block = ty.block_len() as u64;
        for row in [u64::MAX, 1 << 63, 1 << 62, 1 << 61, (1 << 62) + block] {
            let whole = row / block * block;
            for shape in [vec![whole], vec![whole, 2], vec![block, whole], vec![block, whole, whole, whole]] {
                if let Some(info) = TensorInfo::new("t", shape.clone(), ty) {
                    let weights: u128 = shape.iter().map(|&d| d as u128).product();
                    assert_eq!(info.len() as u128, weights, "{ty} {shape:?}");
                    let bytes = weights / block as u128 * ty.block_bytes() as u128;
                    assert_eq!(info.bytes() as u128, bytes, "{ty} {shape:?}");
                }
            }
        }
    }
}

#[test]
fn a_file_without_entries_and_tensors_is_read() {
    let gguf = Gguf::from_bytes(Writer::new().bytes()).unwrap();
    assert_eq!((gguf.metadata().iter().len(), gguf.tensors().len()), (0, 0));
}
