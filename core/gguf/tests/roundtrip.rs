//! The reader returns what the writer wrote: random metadata and tensors.

mod common;

use common::writer::Writer;
use proptest::collection::vec;
use proptest::prelude::*;
use realm_gguf::{Array, Gguf, TensorType, Value};

/// Numbers without NaN, which does not equal itself; a test of its own compares its bits.
fn float() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("a number", |v| !v.is_nan())
}

fn double() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("a number", |v| !v.is_nan())
}

/// Text of arbitrary characters.
fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..20).prop_map(String::from_iter)
}

fn flat_array() -> impl Strategy<Value = Array> {
    prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(Array::U8),
        vec(any::<i8>(), 0..40).prop_map(Array::I8),
        vec(any::<u16>(), 0..40).prop_map(Array::U16),
        vec(any::<i16>(), 0..40).prop_map(Array::I16),
        vec(any::<u32>(), 0..40).prop_map(Array::U32),
        vec(any::<i32>(), 0..40).prop_map(Array::I32),
        vec(any::<u64>(), 0..40).prop_map(Array::U64),
        vec(any::<i64>(), 0..40).prop_map(Array::I64),
        vec(float(), 0..40).prop_map(Array::F32),
        vec(double(), 0..40).prop_map(Array::F64),
        vec(any::<bool>(), 0..40).prop_map(Array::Bool),
        vec(vec(any::<u8>(), 0..12), 0..40)
            .prop_map(|strings| Array::Strings(strings.iter().map(Vec::as_slice).collect())),
    ]
}

/// Arrays nested as deep as the reader allows.
fn array() -> impl Strategy<Value = Array> {
    flat_array().prop_recursive(4, 32, 4, |inner| vec(inner, 0..4).prop_map(Array::Nested))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        float().prop_map(Value::F32),
        double().prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        text().prop_map(Value::String),
        array().prop_map(Value::Array),
    ]
}

/// Keys and values; each key begins with its number, so keys are unique.
fn metadata() -> impl Strategy<Value = Vec<(String, Value)>> {
    vec((text(), value()), 0..12).prop_map(|entries| {
        entries.into_iter().enumerate().map(|(i, (key, value))| (format!("{i}.{key}"), value)).collect()
    })
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    ty: TensorType,
    data: Vec<u8>,
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let shape = (1..3u64, vec(1..4u64, 0..4));
    (text(), proptest::sample::select(&TensorType::ALL[..]), shape, any::<u64>()).prop_map(
        |(name, ty, (blocks, rest), seed)| {
            let bytes = (blocks * rest.iter().product::<u64>()) as usize * ty.block_bytes();
            let data =
                (0..bytes as u64).map(|i| (seed.wrapping_add(i).wrapping_mul(0x9e37_79b9) >> 16) as u8);
            let shape = std::iter::once(blocks * ty.block_len() as u64).chain(rest).collect();
            Tensor { name, shape, ty, data: data.collect() }
        },
    )
}

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    vec(tensor(), 0..10).prop_map(|mut tensors| {
        for (i, tensor) in tensors.iter_mut().enumerate() {
            tensor.name = format!("{i}.{}", tensor.name);
        }
        tensors
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn metadata_and_tensors_read_as_they_were_written(
        version in 2..=3u32,
        alignment in proptest::option::of((0..=13u32).prop_map(|log| 1 << log)),
        metadata in metadata(),
        tensors in tensors(),
    ) {
        let mut writer = Writer::new().version(version);
        for (key, value) in &metadata {
            writer = writer.value(key, value.clone());
        }
        for t in &tensors {
            writer = writer.tensor_with(&t.name, &t.shape, t.ty.id(), t.data.clone());
        }
        if let Some(alignment) = alignment {
            writer = writer.alignment(alignment);
        }
        let gguf = Gguf::from_bytes(writer.bytes()).unwrap();
        prop_assert_eq!(gguf.version(), version);
        let entries = gguf.metadata().iter().filter(|(key, _)| *key != "general.alignment");
        prop_assert!(entries.eq(metadata.iter().map(|(key, value)| (key.as_str(), value))));
        prop_assert_eq!(gguf.tensors().len(), tensors.len());
        for (info, t) in gguf.tensors().iter().zip(&tensors) {
            prop_assert_eq!((&info.name, &info.shape, info.ty), (&t.name, &t.shape, t.ty));
            prop_assert_eq!(info.offset() % alignment.unwrap_or(32) as usize, 0);
            let mut buffer = Vec::new();
            prop_assert_eq!(gguf.read(info, &mut buffer).unwrap(), &t.data[..]);
        }
        // The library's own writer repeats the file.
        let mut again = realm_gguf::Writer::new(Vec::new(), gguf.metadata(), gguf.tensors()).unwrap();
        tensors.iter().for_each(|t| again.tensor(&t.data).unwrap());
        let again = Gguf::from_bytes(again.finish().unwrap()).unwrap();
        prop_assert!(again.metadata().iter().eq(gguf.metadata().iter()));
        prop_assert_eq!(again.tensors().len(), tensors.len());
        for (info, t) in again.tensors().iter().zip(&tensors) {
            prop_assert_eq!((&info.name, &info.shape, info.ty), (&t.name, &t.shape, t.ty));
            let mut buffer = Vec::new();
            prop_assert_eq!(again.read(info, &mut buffer).unwrap(), &t.data[..]);
        }
    }

    #[test]
    fn random_bytes_after_the_version_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Gguf::from_bytes([&b"GGUF\x03\0\0\0"[..], &bytes].concat());
        // Small counts, so that reading goes beyond the counts.
        let counts = [&b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"[..], &bytes].concat();
        let _ = Gguf::from_bytes(counts);
    }

    #[test]
    fn the_bits_of_a_float_survive_even_where_it_is_no_number(bits: u32, wide: u64) {
        let writer = Writer::new()
            .value("f32", Value::F32(f32::from_bits(bits)))
            .value("f64s", Value::Array(Array::F64(vec![f64::from_bits(wide)])));
        let gguf = Gguf::from_bytes(writer.bytes()).unwrap();
        let Some(Value::F32(read)) = gguf.metadata().get("f32") else { panic!("no f32") };
        prop_assert_eq!(read.to_bits(), bits);
        let Some(Value::Array(Array::F64(read))) = gguf.metadata().get("f64s") else { panic!("no f64s") };
        prop_assert_eq!(read[0].to_bits(), wide);
    }
}
