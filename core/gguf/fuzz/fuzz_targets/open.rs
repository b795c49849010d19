//! Opens arbitrary bytes as a GGUF file. A file is either refused with an error or completely readable.

#![no_main]

use std::hint::black_box;

use libfuzzer_sys::{Corpus, fuzz_target};
use realm_gguf::{Array, Error, Gguf, Tensor, Value};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    match Gguf::from_bytes(bytes.to_vec()) {
        Ok(gguf) => look(&gguf, bytes),
        Err(error) => {
            if let Error::Malformed { offset, .. } = &error {
                assert!(*offset <= bytes.len() as u64, "an error at byte {offset} of {}", bytes.len());
            }
            let message = error.to_string();
            assert!(!message.is_empty() && message.len() < 1_000, "{message}");
        }
    }
    Corpus::Keep
});

fn look(gguf: &Gguf, bytes: &[u8]) {
    assert!((2..=3).contains(&gguf.version()));
    assert_eq!(gguf.file_bytes(), bytes.len() as u64);
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        assert!(metadata.get(key).is_some());
        // The typed readers convert values; they may fail only with an error.
        black_box((metadata.u32(key).is_ok(), metadata.u64(key).is_ok(), metadata.f32(key).is_ok()));
        black_box((metadata.u32s(key).is_ok(), metadata.i32s(key).is_ok(), metadata.f32s(key).is_ok()));
        black_box((metadata.str(key).is_ok(), metadata.bool(key).is_ok(), metadata.bools(key).is_ok()));
        if let Value::Array(array) = value {
            look_at_array(array);
        }
    }
    let mut places = Vec::new();
    for info in gguf.tensors() {
        let mut unused = Vec::new();
        let data = gguf.read(info, &mut unused).expect("a tensor of the index");
        let tensor = Tensor { info, data };
        assert_eq!(tensor.data, &bytes[info.offset()..][..info.bytes()]);
        assert_eq!(info.len() as u64, info.shape.iter().product::<u64>());
        if let Some((row, data)) = tensor.rows(0..1) {
            assert_eq!(row.bytes(), data.len());
        }
        places.push((info.offset(), info.offset() + info.bytes()));
    }
    places.sort_unstable();
    assert!(places.windows(2).all(|p| p[0].1 <= p[1].0), "tensors overlap");
}

fn look_at_array(array: &Array) {
    match array {
        Array::Strings(strings) => assert_eq!(strings.iter().count(), array.len()),
        Array::Nested(arrays) => arrays.iter().for_each(look_at_array),
        _ => assert_eq!(array.integers().map_or(array.len(), |v| v.len()), array.len()),
    }
}
