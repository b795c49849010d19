//! Invalid files are refused with an error that names the field, the offset and the problem.

mod common;

use common::samples::tiny_llama;
use common::writer::{Endian, Writer};
use common::{assert_refused, refusal};
use realm_gguf::{Array, Error, Gguf, Value};

/// Little-endian numbers one after the other, for metadata that a writer cannot express.
fn le(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// An array's header: the elements' type and their claimed number.
fn array(type_id: u32, count: u64) -> Vec<u8> {
    [&type_id.to_le_bytes()[..], &count.to_le_bytes()].concat()
}

#[test]
fn what_is_no_gguf_file_says_so() {
    assert_refused(b"PK\x03\x04 and more".to_vec(), 0, "magic", "it is no GGUF file");
    assert_refused(b"FUGG\x03\0\0\0".to_vec(), 0, "magic", "it is no GGUF file");
    assert_refused(Vec::new(), 0, "magic", "4 bytes are claimed, 0 are left");
    assert_refused(b"GGUF".to_vec(), 4, "version", "4 bytes are claimed, 0 are left");
}

#[test]
fn a_missing_file_or_a_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent.gguf"), folder.path().to_owned()] {
        let error = Gguf::open(&path).err().expect("an error");
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, "").unwrap();
    assert!(matches!(Gguf::open(&empty), Err(Error::Malformed { offset: 0, .. })));
}

#[test]
fn other_versions_are_refused_by_number() {
    for version in [0, 1, 4, u32::MAX] {
        let why = format!("version {version} is not supported; 2 and 3 are");
        assert_refused(tiny_llama().version(version).bytes(), 4, "version", &why);
    }
}

#[test]
fn big_endian_files_are_recognized() {
    for version in [1, 2, 3] {
        let bytes = tiny_llama().endian(Endian::Big).version(version).bytes();
        assert_refused(
            bytes,
            4,
            "version",
            "this is a big-endian file; only little-endian ones are supported",
        );
    }
}

#[test]
fn gigantic_counts_are_refused_before_anything_is_read() {
    for count in [1 << 20, 1 << 32, 1 << 60, u64::MAX / 36, u64::MAX] {
        let why = format!("{count} are claimed");
        assert_refused(tiny_llama().claim_tensors(count).bytes(), 8, "tensor count", &why);
        assert_refused(tiny_llama().claim_metadata(count).bytes(), 16, "metadata count", &why);
    }
}

#[test]
fn more_entries_than_any_model_has_are_refused() {
    // Enough bytes to hold them all, so that only the limit can refuse them.
    let filler = || Value::Array(Array::U8(vec![0; 6 << 20]));
    let writer = || Writer::new().value("filler", filler());
    let tensors = writer().claim_tensors((1 << 16) + 1).bytes();
    assert_refused(tensors, 8, "tensor count", "65537 are claimed, up to 65536 are read");
    let entries = writer().claim_metadata((1 << 14) + 1).bytes();
    assert_refused(entries, 16, "metadata count", "16385 are claimed, up to 16384 are read");
}

#[test]
fn one_more_or_less_than_the_count_is_refused() {
    // One tensor more than the file has: the length of its name is padding or data.
    let file = tiny_llama().claim_tensors(3).write();
    assert!(matches!(refusal(file.bytes), Error::Malformed { field, .. } if field.contains("tensor")));
    // One entry fewer: the last one is read as a tensor.
    assert!(matches!(refusal(tiny_llama().claim_metadata(6).bytes()), Error::Malformed { .. }));
    // One entry more: the first tensor is read as an entry.
    assert!(matches!(refusal(tiny_llama().claim_metadata(8).bytes()), Error::Malformed { .. }));
}

#[test]
fn gigantic_lengths_of_strings_are_refused() {
    for len in [100, 1 << 31, 1 << 40, i64::MAX as u64, u64::MAX] {
        let why = format!("{len} bytes are claimed, 3 are left");
        let file = Writer::new().raw("k", 8, [&le(&[len])[..], b"abc"].concat()).write();
        let at = file.place("value k") + 4;
        assert_refused(file.bytes, at, "metadata `k`", &why);
        let file = Writer::new().raw("k", 9, [&array(8, 1)[..], &le(&[len]), b"abc"].concat()).write();
        let at = file.place("value k") + 4 + 12;
        assert_refused(file.bytes, at, "metadata `k`", &why);
    }
    let mut file = Writer::new().value("key", Value::U8(0)).write();
    let at = file.place("key key");
    file.bytes[at as usize..][..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_refused(file.bytes, at, "key of metadata entry 0", "18446744073709551615 bytes are claimed");
    let mut file = tiny_llama().write();
    let at = file.place("tensor token_embd.weight");
    file.bytes[at as usize..][..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert_refused(file.bytes, at, "name of tensor 0", "1099511627776 bytes are claimed");
}

#[test]
fn gigantic_arrays_of_every_type_are_refused() {
    for type_id in 0..=12 {
        for count in [1 << 20, 1 << 40, 1 << 61, 1 << 63, u64::MAX] {
            let file = Writer::new().raw("k", 9, array(type_id, count)).write();
            let at = file.place("value k") + 4 + 4;
            assert_refused(file.bytes, at, "metadata `k`", &format!("{count} are claimed, 0 bytes are left"));
        }
    }
}

#[test]
fn unknown_value_types_are_refused_by_number() {
    for type_id in [13, 255, u32::MAX] {
        let file = Writer::new().raw("k", type_id, [0; 64]).write();
        let at = file.place("value k") + 4;
        assert_refused(file.bytes, at, "metadata `k`", &format!("value type {type_id} is unknown"));
        let file = Writer::new().raw("k", 9, array(type_id, 0)).write();
        let at = file.place("value k") + 4;
        assert_refused(file.bytes, at, "metadata `k`", &format!("array element type {type_id} is unknown"));
    }
}

#[test]
fn bools_that_are_neither_are_refused() {
    let file = Writer::new().raw("k", 7, [2]).write();
    let at = file.place("value k") + 4;
    assert_refused(file.bytes, at, "metadata `k`", "a bool is 0 or 1, not 2");
    let file = Writer::new().raw("k", 9, [&array(7, 3)[..], &[0, 1, 255]].concat()).write();
    let at = file.place("value k") + 4 + 12 + 2;
    assert_refused(file.bytes, at, "metadata `k`", "a bool is 0 or 1, not 255");
}

#[test]
fn strings_that_are_not_utf8_are_refused_where_they_are_text() {
    let file = Writer::new().raw("k", 8, [&le(&[2])[..], &[0xc3, 0x28]].concat()).write();
    let at = file.place("value k") + 4;
    assert_refused(file.bytes, at, "metadata `k`", "not UTF-8");
    let file = Writer::new().value([0xff], Value::U8(0)).write();
    assert_refused(file.bytes, 24, "key of metadata entry 0", "not UTF-8");
    let file = Writer::new().tensor_with([0xff], &[1], 0, [0; 4]).write();
    assert_refused(file.bytes, 24, "name of tensor 0", "not UTF-8");
}

#[test]
fn deep_nesting_ends_with_an_error_and_not_with_the_stack() {
    let nest = |levels: usize| {
        let mut bytes = array(9, 1).repeat(levels);
        bytes.extend(array(0, 0));
        Writer::new().raw("k", 9, bytes).write()
    };
    assert!(Gguf::from_bytes(nest(4).bytes).is_ok());
    for levels in [5, 6, 1_000, 100_000] {
        let file = nest(levels);
        let at = file.place("value k") + 4 + 4 * 12;
        assert_refused(file.bytes, at, "metadata `k`", "arrays nest deeper than 4");
    }
}

#[test]
fn more_arrays_in_arrays_than_any_model_has_are_refused() {
    // In one array, and in two arrays that are each within the limit.
    let empty = || Array::Nested(vec![Array::U8(vec![]); 10_000]);
    let file = Writer::new().raw("k", 9, [array(9, 16_385), array(0, 0).repeat(16_385)].concat()).write();
    let at = file.place("value k") + 4 + 4;
    assert_refused(file.bytes, at, "metadata `k`", "16385 are claimed, up to 16384 are read");
    let file = Writer::new().value("a", Value::Array(empty())).value("b", Value::Array(empty())).write();
    let at = file.place("value b") + 4 + 4;
    assert_refused(file.bytes, at, "metadata `b`", "10000 are claimed, up to 6384 are read");
}

#[test]
fn a_header_that_reaches_far_into_the_weights_is_refused() {
    // Each would fit the file. Zeros are valid as numbers, bools and text, so that only the limit refuses
    // them.
    let long = 64u64 << 20;
    for (type_id, head) in
        [(8, le(&[long])), (9, array(0, long)), (9, array(6, long / 4)), (9, array(7, long))]
    {
        let file = Writer::new().raw("k", type_id, [head, vec![0; long as usize]].concat()).write();
        let at = file.place("value k") + if type_id == 9 { 8 } else { 4 };
        assert_refused(file.bytes, at, "metadata `k`", "are left of the 64 MiB that are read of a header");
    }
}

#[test]
fn keys_that_are_empty_endless_or_there_twice_are_refused() {
    let file = Writer::new().value("", Value::U8(0)).write();
    assert_refused(file.bytes, 24, "metadata ``", "a key has 1 to 65535 bytes");
    let long = "k".repeat(65_536);
    let file = Writer::new().value(&long, Value::U8(0)).write();
    let field = format!("metadata `{}`", "k".repeat(64));
    assert_refused(file.bytes, 24, &field, "a key has 1 to 65535 bytes");
    assert!(Gguf::from_bytes(Writer::new().value(&long[1..], Value::U8(0)).bytes()).is_ok());
    let file =
        Writer::new().value("k", Value::U8(0)).value("l", Value::U8(0)).value("k", Value::U8(0)).write();
    // The writer records the second of the two.
    let at = file.place("key k");
    assert_refused(file.bytes, at, "metadata `k`", "is there twice");
}

#[test]
fn wrong_alignments_are_refused() {
    let wrong = [
        (Value::U32(0), "is 0"),
        (Value::U32(24), "is 24"),
        (Value::U32(1 << 21), "is 2097152"),
        (Value::U64(1 << 63), "is 9223372036854775808"),
        (Value::I32(-32), "is -32"),
        (Value::F32(32.0), "is a value of type f32"),
        (Value::String("32".into()), "is a value of type string"),
    ];
    for (value, why) in wrong {
        let file = tiny_llama().value("general.alignment", value).write();
        let at = file.place("value general.alignment");
        let why = format!("{why}; a power of two up to 1 MiB is needed");
        assert_refused(file.bytes, at, "metadata `general.alignment`", &why);
    }
}
