//! Files that change while they are open, and paths that lead to no regular file: reading gives an error,
//! never a signal, and never waits.
#![cfg(unix)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use common::samples::tiny_llama;
use common::writer::Writer;
use realm_gguf::{Array, Error, Gguf, TensorType, Value, open_file, read_file};
use tempfile::TempDir;

fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn a_file_that_is_cut_while_it_is_open_is_an_error() {
    let bytes = tiny_llama().bytes();
    let (_folder, path) = written(&bytes);
    let gguf = Gguf::open(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for cut in (0..bytes.len()).rev().step_by(7) {
        file.set_len(cut as u64).unwrap();
        for info in gguf.tensors() {
            let end = (info.offset() + info.bytes()) as u64;
            match gguf.read(info, &mut Vec::new()) {
                Ok(read) => assert_eq!((read.len(), end <= cut as u64), (info.bytes(), true)),
                Err(Error::Incomplete { len, needed }) => assert_eq!((len, needed), (cut as u64, end)),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn what_has_been_read_stays_as_it_was() {
    let bytes = tiny_llama().bytes();
    let (_folder, path) = written(&bytes);
    let gguf = Gguf::open(&path).unwrap();
    let info = gguf.require_tensor("token_embd.weight").unwrap();
    let mut buffer = Vec::new();
    let read = gguf.read(info, &mut buffer).unwrap();
    let before = read.to_vec();
    OpenOptions::new().write(true).open(&path).unwrap().write_all(&vec![0xff; bytes.len()]).unwrap();
    assert_eq!(read, before);
    // The index does not change with the file, so the next read returns other numbers from the same place.
    assert_eq!(gguf.read(info, &mut Vec::new()).unwrap(), vec![0xff; before.len()]);
}

#[test]
fn opening_a_file_that_changes_all_the_time_ends_in_an_answer() {
    let long = Value::Array(Array::Strings(vec![b'x'; 3 << 20].chunks(4).collect()));
    let bytes = tiny_llama().value("long", long).tensor("last", &[1 << 18], TensorType::F32).bytes();
    let (_folder, path) = written(&bytes);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            for i in (0..usize::MAX).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let cut = i.wrapping_mul(0x9e37_79b9) % bytes.len();
                file.set_len(cut as u64).unwrap();
                file.write_all_at(&bytes[cut..], cut as u64).unwrap();
                file.write_all_at(&[i as u8], cut as u64).unwrap();
                file.write_all_at(&bytes[cut..=cut], cut as u64).unwrap();
            }
        });
        let mut outcomes = [0; 2];
        for _ in 0..300 {
            let whole = Gguf::open(&path).is_ok_and(|gguf| {
                let mut buffer = Vec::new();
                gguf.tensors().iter().all(|info| gguf.read(info, &mut buffer).is_ok())
            });
            outcomes[usize::from(whole)] += 1;
        }
        stop.store(true, Ordering::Relaxed);
        println!("{} were refused, {} read", outcomes[0], outcomes[1]);
    });
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.gguf");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let link = folder.path().join("link.gguf");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    let others = [pipe, link, folder.path().to_owned()];
    for path in others.into_iter().chain(["/dev/zero", "/dev/null", "/dev/tty"].map(PathBuf::from)) {
        let refused = open_file(&path).unwrap_err();
        let error = Gguf::open(&path).err().expect("an error");
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        // There may be no terminal.
        assert!(
            path.ends_with("tty") || refused.to_string().contains("a regular file is needed"),
            "{refused}"
        );
        assert!(read_file(&path, 100).is_err());
    }
}

#[test]
fn a_file_that_is_longer_than_is_read_takes_no_memory() {
    let (_folder, path) = written(b"GGUF");
    File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(Gguf::open(&path), Err(Error::Malformed { offset: 4, .. })));
    let error = read_file(&path, 1000).unwrap_err();
    assert!(error.to_string().contains("more than the 1000 bytes"), "{error}");
}

#[test]
fn a_header_of_any_length_is_read() {
    // Lengths around the sizes at which more of a file is read.
    for len in [0, (1 << 20) - 300, 1 << 20, (4 << 20) - 300, 5 << 20, 17 << 20] {
        let value = Value::Array(Array::U8(vec![7; len]));
        let bytes = tiny_llama().value("long", value.clone()).value("behind", Value::U8(1)).bytes();
        let (_folder, path) = written(&bytes);
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.metadata().get("long"), Some(&value));
        assert_eq!(gguf.metadata().u32("behind").unwrap(), Some(1));
    }
    // A length beyond the end of the file is refused without reading more of it.
    let lie = Writer::new().raw("k", 8, (1u64 << 40).to_le_bytes().to_vec()).bytes();
    let (_folder, path) = written(&lie);
    let error = Gguf::open(&path).err().unwrap().to_string();
    assert!(error.contains("1099511627776 bytes are claimed"), "{error}");
}
