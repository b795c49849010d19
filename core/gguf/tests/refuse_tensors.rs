//! Invalid entries of the tensor index are refused with an error that names the tensor, the offset and the
//! problem.

mod common;

use common::samples::tiny_llama;
use common::writer::{Writer, Written};
use common::{assert_refused, refusal};
use realm_gguf::{Error, Gguf, TensorType};

#[test]
fn tensors_that_are_not_aligned_are_refused() {
    let two = |writer: Writer| writer.tensor("a", &[1], TensorType::F32).tensor("b", &[1], TensorType::F32);
    let file = two(Writer::new().silent_alignment(16)).write();
    let at = file.place("b offset");
    assert_refused(file.bytes, at, "tensor `b`", "offset 16 is not a multiple of the alignment 32");
    let file = two(Writer::new().alignment(4096)).claim_offset(32).write();
    let at = file.place("b offset");
    assert_refused(file.bytes, at, "tensor `b`", "offset 32 is not a multiple of the alignment 4096");
}

/// A file with one tensor of one block, whose shape or type may not match its bytes.
fn one(shape: &[u64], type_id: u32) -> Written {
    Writer::new().tensor_with("t", shape, type_id, [0; 32]).write()
}

#[test]
fn unknown_tensor_types_are_refused_by_name() {
    // From ggml.h: types that ggml has or had and that Realm does not read.
    let named = [
        (4, "Q4_2"),
        (5, "Q4_3"),
        (9, "Q8_1"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (31, "Q4_0_4_4"),
        (32, "Q4_0_4_8"),
        (33, "Q4_0_8_8"),
        (36, "IQ4_NL_4_4"),
        (37, "IQ4_NL_4_8"),
        (38, "IQ4_NL_8_8"),
    ];
    for (id, name) in named {
        let file = one(&[256], id);
        let at = file.place("t type");
        assert_refused(file.bytes, at, "tensor `t`", &format!("tensor type {name} is not supported"));
    }
    for id in 0..43 {
        let listed = named.iter().any(|(named, _)| *named == id);
        assert_ne!(listed, TensorType::from_id(id).is_ok(), "type {id}");
    }
    for id in [1000, u32::MAX] {
        let file = one(&[256], id);
        let at = file.place("t type");
        assert_refused(file.bytes, at, "tensor `t`", &format!("tensor type {id} is unknown"));
    }
}

#[test]
fn shapes_that_are_none_are_refused() {
    for dims in [&[][..], &[1; 5]] {
        let file = one(dims, 0);
        let at = file.place("t dims");
        let why = format!("{} dimensions; 1 to 4 are possible", dims.len());
        assert_refused(file.bytes, at, "tensor `t`", &why);
    }
    let mut file = one(&[1], 0);
    let at = file.place("t dims");
    file.bytes[at as usize..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_refused(file.bytes, at, "tensor `t`", "4294967295 dimensions");
    for shape in [&[0][..], &[0, 4], &[4, 0], &[4, 4, 0, 4]] {
        let file = one(shape, 0);
        let at = file.place("tensor t");
        assert_refused(file.bytes, at, "tensor `t`", "0");
    }
}

#[test]
fn rows_that_are_not_whole_blocks_are_refused() {
    for ty in TensorType::ALL.into_iter().filter(|ty| ty.block_len() > 1) {
        for row in [1, ty.block_len() as u64 - 1, ty.block_len() as u64 + 1] {
            let file = one(&[row, ty.block_len() as u64], ty.id());
            let why = format!("a row is not a multiple of {ty}'s {} numbers", ty.block_len());
            let at = file.place("tensor t");
            assert_refused(file.bytes, at, "tensor `t`", &why);
        }
    }
}

#[test]
fn products_of_dimensions_that_overflow_are_refused() {
    let shapes: [&[u64]; 7] = [
        &[1 << 62],
        &[1 << 63],
        &[(1 << 62) + 256],
        &[1 << 32, 1 << 32],
        &[1 << 16, 1 << 16, 1 << 16, 1 << 16],
        &[256, u64::MAX],
        &[u64::MAX / 256 * 256, u64::MAX, u64::MAX, u64::MAX],
    ];
    for ty in TensorType::ALL {
        for shape in shapes {
            let file = one(shape, ty.id());
            // Sizes that fit 64 bits are refused because the file is shorter, all others because they
            // overflow.
            let error = refusal(file.bytes).to_string();
            let overflows = error.contains("tensor `t`") && error.contains("size overflows");
            assert!(overflows || error.contains("the file ends at byte"), "{ty}: {error}");
        }
    }
    // In 64 bits, the size of each of these wraps to one that would fit.
    for shape in [&[1 << 62][..], &[(1 << 62) + 8], &[1 << 32, 1 << 32]] {
        let file = one(shape, TensorType::F32.id());
        let at = file.place("tensor t");
        assert_refused(file.bytes, at, "tensor `t`", "size overflows");
    }
}

#[test]
fn tensors_past_the_end_are_refused() {
    let file = |offset| Writer::new().tensor("t", &[8], TensorType::F32).claim_offset(offset).write();
    assert!(Gguf::from_bytes(file(0).bytes).is_ok());
    for offset in [32, 1 << 20, 1 << 40, 1 << 63, u64::MAX - 31] {
        let file = file(offset);
        let at = file.place("t offset");
        assert_refused(
            file.bytes,
            at,
            "tensor `t`",
            &format!("32 bytes at offset {offset} of 32 bytes of data"),
        );
    }
}

#[test]
fn an_incomplete_file_is_called_incomplete_with_the_length_of_the_whole() {
    let whole = tiny_llama().bytes();
    let opened = Gguf::from_bytes(whole.clone()).unwrap();
    let first = opened.tensors().iter().map(|t| t.offset()).min().unwrap();
    for cut in [first, first + 1, whole.len() / 2 + first / 2, whole.len() - 32] {
        let error = refusal(whole[..cut].to_vec());
        assert!(matches!(error, Error::Incomplete { len, .. } if len == cut as u64), "{error}");
        let error = error.to_string();
        assert!(error.contains(&format!("the file ends at byte {cut} of ")), "{error}");
        assert!(error.contains("the download was not finished"), "{error}");
    }
    for cut in [0, 3, 4, 20, first - 64] {
        let error = refusal(whole[..cut].to_vec()).to_string();
        assert!(error.contains(&format!("which ends at byte {cut}: the download")), "{error}");
    }
}

#[test]
fn what_is_no_gguf_file_is_named_where_its_beginning_tells() {
    let cases: [(&[u8], &str); 6] = [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<HTML><head>", "a web page"),
        (b"tjgg\x03\0\0\0", "convert_llama_ggml_to_gguf.py"),
        (b"PK\x03\x04data.pkl", "`save_pretrained`"),
        (b"\x20\0\0\0\0\0\0\0{\"__metadata__\":{}}", "the folder that it is in"),
    ];
    for (bytes, hint) in cases {
        assert_refused(bytes.to_vec(), 0, "magic", hint);
    }
}

#[test]
fn tensors_that_overlap_are_refused() {
    let three = |offset| {
        Writer::new()
            .tensor("a", &[16], TensorType::F32)
            .tensor("b", &[16], TensorType::F32)
            .tensor("c", &[16], TensorType::F32)
            .claim_offset(offset)
            .write()
    };
    assert!(Gguf::from_bytes(three(128).bytes).is_ok());
    for (offset, other, refused) in [(0, "a", "c"), (32, "a", "c"), (64, "b", "c"), (96, "b", "c")] {
        let file = three(offset);
        let at = file.place(&format!("{refused} offset"));
        assert_refused(file.bytes, at, &format!("tensor `{refused}`"), &format!("overlaps tensor `{other}`"));
    }
}

#[test]
fn tensor_names_that_are_empty_endless_or_there_twice_are_refused() {
    let named = |name: &str| Writer::new().tensor(name, &[1], TensorType::F32);
    assert_refused(named("").bytes(), 24, "tensor ``", "a name has 1 to 1024 bytes");
    assert!(Gguf::from_bytes(named(&"n".repeat(1024)).bytes()).is_ok());
    let field = format!("tensor `{}`", "n".repeat(64));
    assert_refused(named(&"n".repeat(1025)).bytes(), 24, &field, "a name has 1 to 1024 bytes");
    let file = named("t").tensor("u", &[1], TensorType::F32).tensor("t", &[1], TensorType::F32).write();
    let at = file.place("tensor t");
    assert_refused(file.bytes, at, "tensor `t`", "is there twice");
}

#[test]
fn names_in_errors_cannot_forge_a_terminal_or_a_log() {
    let bytes = Writer::new().tensor_with("\x1b[2J\nERROR", &[1], 999, [0; 4]).bytes();
    let message = refusal(bytes).to_string();
    assert!(!message.contains(['\x1b', '\n']), "{message:?}");
}
