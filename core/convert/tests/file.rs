//! Files that are quantized load, and are what their recipes say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use realm_compute::cpu::CpuBackend;
use realm_compute::quant;
use realm_convert::{Error, Importance, Recipe, read_importance, types_of, write};
use realm_gguf::{Gguf, Metadata, TensorInfo, TensorType, Writer};
use realm_hub::{Hub, Reference};
use realm_model::Transformer;

fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/reference/tiny/{name}.gguf"))
}

fn loads(gguf: &Gguf) {
    let backend = Arc::new(CpuBackend::new(1).unwrap());
    Transformer::load(backend, gguf, &mut |_, _| {}).unwrap();
}

#[test]
fn every_recipe_writes_a_file_that_loads() {
    let folder = tempfile::tempdir().unwrap();
    for source in ["llama-f32", "llama-q2_k", "gemma3-f16"] {
        let model = Gguf::open(tiny(source)).unwrap();
        for name in Recipe::names() {
            let path = folder.path().join(format!("{source}-{name}.gguf"));
            let mut last = (0, 1);
            let progress = &mut |done, total| last = (done, total);
            let written =
                write(&model, &path, Some(Recipe::named(name).unwrap()), &Importance::new(), progress)
                    .unwrap();
            assert_eq!(last.0, last.1);
            assert_eq!(written.bytes, std::fs::metadata(&path).unwrap().len());
            let again = Gguf::open(&path).unwrap();
            loads(&again);
            let file_type = again.metadata().u32("general.file_type").unwrap();
            assert_eq!(file_type, Some(Recipe::named(name).unwrap().file_type()));
            assert_eq!(again.tensors().len(), model.tensors().len());
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert!(left.iter().all(|file| !file.path().to_string_lossy().ends_with("partial")));
    }
}

/// An importance matrix as llama.cpp writes it: the first column of one matrix matters most.
fn importance_file(matrix: &str, columns: usize) -> Gguf {
    let names = [format!("{matrix}.in_sum2"), format!("{matrix}.counts")];
    let index = [
        TensorInfo::new(&*names[0], vec![columns as u64, 1], TensorType::F32).unwrap(),
        TensorInfo::new(&*names[1], vec![1, 1], TensorType::F32).unwrap(),
    ];
    let mut writer = Writer::new(Vec::new(), &Metadata::default(), &index).unwrap();
    let sums = (0..columns).flat_map(|i| (if i == 0 { 4e6f32 } else { 4.0 }).to_le_bytes());
    writer.tensor(&sums.collect::<Vec<_>>()).unwrap();
    writer.tensor(&4f32.to_le_bytes()).unwrap();
    Gguf::from_bytes(writer.finish().unwrap()).unwrap()
}

#[test]
fn an_importance_matrix_moves_errors_away_from_columns_that_matter() {
    let folder = tempfile::tempdir().unwrap();
    let (model, matrix) = (Gguf::open(tiny("llama-f32")).unwrap(), "blk.1.ffn_up.weight");
    let importance = read_importance(&importance_file(matrix, 64)).unwrap();
    assert_eq!(importance[matrix][..3], [1e6, 1.0, 1.0]);
    let numbers = |gguf: &Gguf, name: &str| {
        let (info, mut buffer) = (gguf.require_tensor(name).unwrap(), Vec::new());
        let mut values = vec![0.0; info.len()];
        quant::dequantize(info.ty, gguf.read(info, &mut buffer).unwrap(), &mut values).unwrap();
        values
    };
    let written = |file: &str, importance: &Importance| {
        let path = folder.path().join(file);
        write(&model, &path, Some(Recipe::named("q4_0").unwrap()), importance, &mut |_, _| {}).unwrap();
        Gguf::open(path).unwrap()
    };
    let (plain, weighed) = (written("plain.gguf", &Importance::new()), written("weighed.gguf", &importance));
    let truth = numbers(&model, matrix);
    let first_column = |gguf: &Gguf| -> f32 {
        let values = numbers(gguf, matrix);
        truth.iter().zip(&values).step_by(64).map(|(x, y)| (x - y).powi(2)).sum()
    };
    // Numbers that are nearly 0 stay 0, so some of the error remains.
    assert!(first_column(&weighed) < 0.5 * first_column(&plain));
    let other = "blk.0.ffn_up.weight";
    assert_eq!(numbers(&plain, other), numbers(&weighed, other));
    assert!(read_importance(&model).unwrap_err().to_string().contains("llama-imatrix"));
}

#[test]
fn a_file_that_is_there_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (model, path) = (Gguf::open(tiny("llama-f32")).unwrap(), folder.path().join("a.gguf"));
    std::fs::write(&path, "mine").unwrap();
    let error = write(&model, &path, None, &Importance::new(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, Error::Io { .. }) && error.to_string().contains("remove it first"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

/// The mixes of two files by llama.cpp. Qwen's was made when llama.cpp counted layers in the order of the
/// file, which was that of the alphabet, so only the number of tensors of each kind and type is the same.
#[test]
fn q4_k_m_gives_each_tensor_the_type_that_llama_cpp_gives_it() {
    for (name, by_layer) in [("qwen2.5-coder-0.5b", false), ("gemma3-270m", true)] {
        let entry = realm_hub::catalog().iter().find(|entry| entry.name == name).unwrap();
        let path =
            Hub::new().and_then(|hub| hub.resolve(&Reference::Catalog(entry.clone()), &mut ())).unwrap();
        let model = Gguf::open(path).unwrap();
        let types = types_of(&model, Recipe::named("q4_k_m").unwrap());
        let described = |types: &mut dyn Iterator<Item = TensorType>| {
            let each = model.tensors().iter().zip(types).map(|(tensor, ty)| {
                let part = tensor
                    .name
                    .split_once('.')
                    .filter(|_| !by_layer)
                    .map(|(_, rest)| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
                (part.unwrap_or(&tensor.name), ty)
            });
            let mut all: Vec<_> = each.collect();
            all.sort();
            all
        };
        let ours = described(&mut types.iter().copied());
        let theirs = described(&mut model.tensors().iter().map(|tensor| tensor.ty));
        let different: Vec<_> = ours.iter().zip(&theirs).filter(|(a, b)| a != b).collect();
        assert!(different.is_empty(), "{name}: {different:?}");
        assert!(types.contains(&TensorType::Q6_K) && types.contains(&TensorType::Q5_0), "{name}");
    }
}
