//! A model in several files opens as one, and parts that do not belong together are refused.

mod common;

use std::path::{Path, PathBuf};

use common::bytes_of;
use common::samples::split_part;
use common::writer::Writer;
use realm_gguf::{Error, Gguf, TensorType, Value};
use tempfile::TempDir;

/// A model in three files: two tensors, none, one.
struct Model {
    folder: TempDir,
}

impl Model {
    fn new() -> Self {
        let model = Self { folder: tempfile::tempdir().expect("a folder") };
        for (no, part) in Self::parts().into_iter().enumerate() {
            model.write(no + 1, &part);
        }
        model
    }

    fn parts() -> [Writer; 3] {
        [
            split_part(0, 3, 3).tensor("a", &[32, 2], TensorType::Q4_0).tensor("b", &[8], TensorType::F32),
            split_part(1, 3, 3),
            split_part(2, 3, 3).alignment(64).tensor("c", &[3], TensorType::F16),
        ]
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("tiny-{number:05}-of-00003.gguf"))
    }

    fn write(&self, number: usize, part: &Writer) {
        std::fs::write(self.path(number), part.bytes()).expect("a part is written");
    }

    /// Asserts that the model is refused with a message about the parts that contains all of `words`.
    #[track_caller]
    fn assert_refused(&self, words: &[&str]) {
        assert_refused(&self.path(1), words);
    }
}

#[track_caller]
fn assert_refused(path: &Path, words: &[&str]) {
    let error = Gguf::open(path).err().expect("parts that do not belong together are refused");
    assert!(matches!(error, Error::Split(_)), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn a_split_model_opens_as_one() {
    let model = Model::new();
    let gguf = Gguf::open(model.path(1)).unwrap();
    let index: Vec<_> = gguf.tensors().iter().map(|t| (t.name.as_str(), t.part())).collect();
    assert_eq!(index, [("a", 0), ("b", 0), ("c", 2)]);
    let sizes: u64 = (1..=3).map(|n| model.path(n).metadata().unwrap().len()).sum();
    assert_eq!(gguf.file_bytes(), sizes);
    assert_eq!(gguf.metadata().str("general.architecture").unwrap(), Some("llama"));
    gguf.will_need();
    for (name, first, bytes) in [("a", 0, 36), ("b", 1, 32), ("c", 0, 6)] {
        assert_eq!(
            bytes_of(&gguf, name),
            (first..first + bytes).map(|b| b as u8).collect::<Vec<_>>(),
            "{name}"
        );
    }
}

#[test]
fn a_missing_part_is_named() {
    for number in [2, 3] {
        let model = Model::new();
        std::fs::remove_file(model.path(number)).unwrap();
        let error = Gguf::open(model.path(1)).err().expect("a model that lacks a part is refused");
        let text = error.to_string();
        let path = model.path(number);
        assert!(matches!(error, Error::Split(_)), "{text}");
        assert!(text.contains(&format!("part {number} of 3")), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
    }
}

#[test]
fn a_part_in_another_ones_place_is_refused() {
    // Replace each of parts 2 and 3 with each of the other parts.
    for (place, part) in [(2, 1), (2, 3), (3, 1), (3, 2)] {
        let model = Model::new();
        std::fs::copy(model.path(part), model.path(place)).unwrap();
        let found = format!("`split.no`: is {}; {} is needed here", part - 1, place - 1);
        model.assert_refused(&[&format!("tiny-{place:05}-of-00003.gguf"), &found]);
    }
}

#[test]
fn a_model_is_opened_by_its_first_part() {
    let model = Model::new();
    assert_refused(&model.path(2), &["is part 2 of 3; open the first part"]);
    assert_refused(&model.path(3), &["is part 3 of 3; open the first part"]);
    let bytes = std::fs::read(model.path(1)).unwrap();
    assert!(matches!(Gguf::from_bytes(bytes), Err(Error::Split(why)) if why.contains("by its path")));
}

#[test]
fn a_first_part_under_another_name_says_what_it_should_be_called() {
    let model = Model::new();
    for name in ["tiny.gguf", "tiny-00001-of-00004.gguf", "tiny-00002-of-00003.gguf", "tiny-1-of-3.gguf"] {
        let path = model.folder.path().join(name);
        std::fs::copy(model.path(1), &path).unwrap();
        assert_refused(&path, &["*-00001-of-00003.gguf", name]);
    }
}

#[test]
fn parts_of_other_models_are_refused() {
    let c = |writer: Writer| writer.tensor("c", &[3], TensorType::F16);
    let cases = [
        (c(split_part(2, 4, 3)), "`split.count`: is 4; 3 is needed here"),
        (c(split_part(2, 3, 7)), "`split.tensors.count`: is 7; 3 is needed here"),
        (c(Writer::new()), "`split.no`: is missing; 2 is needed here"),
        (c(Writer::new().value("split.no", Value::U16(2))), "`split.count`: is missing; 3 is needed here"),
        (c(Writer::new().value("split.no", Value::I16(-2))), "`split.no`: is -2"),
        (c(Writer::new().value("split.no", Value::F32(2.0))), "`split.no`: is a value of type f32"),
    ];
    for (part, why) in cases {
        let model = Model::new();
        model.write(3, &part);
        model.assert_refused(&["tiny-00003-of-00003.gguf", why]);
    }
}

#[test]
fn more_or_fewer_tensors_than_claimed_are_refused() {
    let model = Model::new();
    model.write(3, &split_part(2, 3, 3));
    model.assert_refused(&["3 tensors are claimed, 2 are there"]);
    let two = |w: Writer| w.tensor("c", &[3], TensorType::F16).tensor("d", &[3], TensorType::F16);
    model.write(3, &two(split_part(2, 3, 3)));
    model.assert_refused(&["3 tensors are claimed, 4 are there"]);
}

#[test]
fn more_tensors_than_any_model_has_are_refused() {
    let model = Model::new();
    let many = |no: usize| {
        let part = split_part(no as u16, 3, 120_000).alignment(1);
        (0..40_000).fold(part, |w, i| w.tensor(&format!("{no}.{i}"), &[1], TensorType::F16))
    };
    (1..=3).for_each(|number| model.write(number, &many(number - 1)));
    model.assert_refused(&["more than the 65536 tensors that are read"]);
}

#[test]
fn a_tensor_in_two_parts_is_refused() {
    let model = Model::new();
    model.write(3, &split_part(2, 3, 3).tensor("b", &[8], TensorType::F32));
    model.assert_refused(&["tensor `b` is in part 1 and in part 3"]);
}

#[test]
fn a_malformed_part_is_named_with_what_is_wrong_in_it() {
    let model = Model::new();
    let part = || split_part(2, 3, 3).tensor("c", &[3], TensorType::F16);
    model.write(3, &part().claim_offset(32));
    model.assert_refused(&["tiny-00003-of-00003.gguf", "tensor `c`", "6 bytes at offset 32"]);
    model.write(3, &part().version(1));
    model.assert_refused(&["tiny-00003-of-00003.gguf", "at byte 4", "version 1 is not supported"]);
    std::fs::write(model.path(3), "").unwrap();
    model.assert_refused(&["tiny-00003-of-00003.gguf", "magic"]);
}

#[test]
fn counts_that_no_model_has_are_refused() {
    let model = Model::new();
    for count in [10_000, 1 << 32, u64::MAX] {
        model.write(1, &Writer::new().value("split.count", Value::U64(count)));
        model.assert_refused(&[&format!("{count} parts are claimed")]);
    }
    // A count that is not a valid number is refused too, with its key.
    for value in [Value::I32(-3), Value::String("3".into())] {
        model.write(1, &Writer::new().value("split.count", value));
        let error = Gguf::open(model.path(1)).err().expect("an error");
        assert!(matches!(&error, Error::Metadata { key, .. } if key == "split.count"), "{error}");
    }
}

#[test]
fn a_split_into_one_part_is_a_whole_file() {
    let bytes = split_part(0, 1, 1).tensor("a", &[8], TensorType::F32).bytes();
    assert_eq!(Gguf::from_bytes(bytes).unwrap().tensors().len(), 1);
}
