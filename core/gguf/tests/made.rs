//! Models whose tensors are made when they are read, and files that are written.

use realm_gguf::{Error, Gguf, Metadata, TensorInfo, TensorType, Tensors, Writer};

/// Tensors of bytes that tell their number; the last one has a byte too few.
struct Numbered(usize);

impl Tensors for Numbered {
    fn read(&self, index: usize, buffer: &mut Vec<u8>) -> Result<(), Error> {
        buffer.clear();
        buffer.resize(if index + 1 == self.0 { 7 } else { 8 }, index as u8);
        Ok(())
    }

    fn file_bytes(&self) -> u64 {
        1000
    }
}

fn info(name: &str) -> TensorInfo {
    TensorInfo::new(name, vec![2], TensorType::F32).unwrap()
}

#[test]
fn made_tensors_are_read_like_those_of_a_file() {
    let index = ["b", "a", "short"].map(info).to_vec();
    let gguf = Gguf::from_tensors(Metadata::default(), index, Box::new(Numbered(3))).unwrap();
    assert_eq!(gguf.file_bytes(), 1000);
    let mut buffer = vec![9; 100];
    let mut read = |name| gguf.read(gguf.require_tensor(name)?, &mut buffer).map(<[u8]>::to_vec);
    assert_eq!(read("a").unwrap(), [1; 8]);
    assert_eq!(read("b").unwrap(), [0; 8]);
    assert!(matches!(read("short"), Err(Error::Tensor { name, .. }) if name == "short"));
    assert!(gguf.read(&info("c"), &mut Vec::new()).is_err());
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let index = ["a", "a"].map(info).to_vec();
    let error = Gguf::from_tensors(Metadata::default(), index, Box::new(Numbered(2))).err().unwrap();
    assert!(error.to_string().contains("tensor `a` is there twice"), "{error}");
}

#[test]
fn a_writer_refuses_tensors_that_its_index_does_not_have() {
    let mut writer = Writer::new(Vec::new(), &Metadata::default(), &[info("a"), info("b")]).unwrap();
    assert!(writer.tensor(&[0; 4]).is_err());
    writer.tensor(&[0; 8]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("1 tensors are missing"));
}
