//! Damaged files give an answer or an error, never a panic, and never cost much memory. The files are headers
//! of real models, cut and with flipped bits; small files, damaged everywhere; and files made to be costly.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use common::samples::{seeds, tiny_llama};
use common::writer::Writer;
use common::{MODELS, model_path};
use realm_gguf::{Array, Error, Gguf, TensorType, Value};
use tempfile::TempDir;

/// Most bytes that opening a file may hold at a time beside the header's own bytes.
const MOST: usize = 100_000_000;

/// Counts the bytes that each thread holds, and their maximum.
struct Counting;

thread_local! {
    // Per thread, so that tests that run beside a measurement do not count. Signed, because a thread may free
    // memory that another one allocated.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn grown(by: usize) {
    HELD.set(HELD.get() + by as isize);
    PEAK.set(PEAK.get().max(HELD.get()));
}

fn shrunk(by: usize) {
    HELD.set(HELD.get() - by as isize);
}

// SAFETY: every call is passed on unchanged to the system's allocator; the counters do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the promises of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: the caller keeps the promises of `dealloc`, and `ptr` came from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Count old and new memory at the same time, because both may exist while one is copied to the other.
        grown(size);
        // SAFETY: the caller keeps the promises of `realloc`, and `ptr` came from the system's allocator.
        let new = unsafe { System.realloc(ptr, layout, size) };
        shrunk(layout.size());
        new
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the answer of `open` and the most bytes that it held at a time beyond those held before.
fn measured<T>(open: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let answer = open();
    (answer, (PEAK.get() - before) as usize)
}

/// Opens a damaged file, looks at everything in it if that works, and returns the error otherwise.
#[track_caller]
fn open_and_look(
    damage: impl Fn() -> String,
    open: impl FnOnce() -> Result<Gguf, Error>,
) -> Result<(), Error> {
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let (gguf, held) = measured(open);
        // A header of at most 64 MiB is read before it is copied.
        assert!(held <= MOST + (64 << 20), "{held} bytes were allocated");
        gguf.map(|gguf| look(&gguf))
    }));
    looked.unwrap_or_else(|_| panic!("{}: panicked, see above", damage()))
}

/// Reads everything that a file offers.
fn look(gguf: &Gguf) {
    for (key, value) in gguf.metadata().iter() {
        black_box((gguf.metadata().u64(key).is_ok(), gguf.metadata().f32s(key).is_ok(), value.integer()));
        if let Value::Array(Array::Strings(strings)) = value {
            black_box(strings.iter().map(<[u8]>::len).sum::<usize>());
        }
    }
    let mut buffer = Vec::new();
    for info in gguf.tensors() {
        assert_eq!(info.len() as u64, info.shape.iter().product::<u64>());
        // Skip the large tensors: those of a whole model have hundreds of megabytes.
        if info.bytes() > 1 << 16 {
            continue;
        }
        let data = gguf.read(info, &mut buffer).expect("a tensor of the index");
        assert_eq!(data.len(), info.bytes());
        black_box((data[0], data[data.len() - 1]));
    }
}

/// A real model's header, followed by a hole as large as its tensors, so that a test case costs only the
/// reading of the header.
struct Header {
    bytes: Vec<u8>,
    /// The end of the last tensor.
    end: u64,
    file: File,
    path: PathBuf,
    _folder: TempDir,
}

impl Header {
    /// The headers of all models.
    fn of_models(of: fn(&str) -> Self) -> impl Iterator<Item = (&'static str, Self)> {
        MODELS.into_iter().map(move |model| (model, of(model)))
    }

    fn of(model: &str) -> Self {
        let original = Gguf::open(model_path(model)).expect("a model");
        let mut bytes = Vec::new();
        let file = File::open(model_path(model)).expect("a model");
        file.take(data_start(&original)).read_to_end(&mut bytes).expect("a header");
        Self::put_down(bytes, &original)
    }

    /// The model's header with only the first elements of each array. It is read in microseconds, and a
    /// flipped bit hits a length, count, type or offset, where in the whole header it mostly hits a token's
    /// spelling.
    fn abridged(model: &str) -> Self {
        let original = Gguf::open(model_path(model)).expect("a model");
        let metadata = original.metadata().iter();
        let writer = metadata.fold(Writer::new(), |w, (key, value)| w.value(key, abridged(value)));
        let data = data_start(&original);
        let writer = original.tensors().iter().fold(writer, |w, t| {
            w.tensor_with(&t.name, &t.shape, t.ty.id(), []).claim_offset(t.offset() as u64 - data)
        });
        Self::put_down(writer.bytes(), &original)
    }

    /// Writes a header to a file, with a hole in place of the tensors of `original`.
    fn put_down(bytes: Vec<u8>, original: &Gguf) -> Self {
        let last = original.tensors().iter().map(|t| t.offset() + t.bytes()).max().expect("tensors") as u64;
        let end = bytes.len() as u64 + last - data_start(original);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("header.gguf");
        let mut file = File::create(&path).expect("a file");
        file.write_all(&bytes).expect("a copy");
        file.set_len(end).expect("a hole");
        let copy = Gguf::open(&path).expect("the copy of a header");
        let index = |gguf: &Gguf| -> Vec<_> {
            gguf.tensors().iter().map(|t| (t.name.clone(), t.shape.clone(), t.ty)).collect()
        };
        assert_eq!(index(&copy), index(original));
        Self { bytes, end, file, path, _folder: folder }
    }

    fn put(&mut self, at: usize, byte: u8) {
        self.file.seek(SeekFrom::Start(at as u64)).expect("a place");
        self.file.write_all(&[byte]).expect("a byte");
    }
}

/// The offset of a model's tensors.
fn data_start(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(|t| t.offset()).min().expect("tensors") as u64
}

/// A value with only the first elements of an array.
fn abridged(value: &Value) -> Value {
    const KEPT: usize = 64;
    match value {
        Value::Array(Array::Strings(v)) => Value::Array(Array::Strings(v.iter().take(KEPT).collect())),
        Value::Array(Array::F32(v)) => Value::Array(Array::F32(v[..v.len().min(KEPT)].to_vec())),
        Value::Array(Array::I32(v)) => Value::Array(Array::I32(v[..v.len().min(KEPT)].to_vec())),
        other => other.clone(),
    }
}

/// Sebastiano Vigna's splitmix64: random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

#[test]
fn a_real_model_that_was_cut_short_is_refused() {
    for (model, header) in Header::of_models(Header::of) {
        let len = header.bytes.len() as u64;
        let in_data = (0..20).map(|i| len + (header.end - 1 - len) * i / 19);
        let in_header = (0..200).map(|i| len * i / 200);
        let mut cuts: Vec<u64> = in_header.chain(in_data).collect();
        // From the end to the start, so that the file only gets shorter.
        cuts.sort_by_key(|&cut| std::cmp::Reverse(cut));
        for cut in cuts {
            header.file.set_len(cut).unwrap();
            let error = open_and_look(|| format!("{model} cut to {cut} bytes"), || Gguf::open(&header.path));
            let offset = match error {
                Err(Error::Malformed { offset, .. }) => offset,
                Err(Error::Incomplete { len, .. }) => len,
                other => panic!("{model} cut to {cut} bytes: {other:?}"),
            };
            assert!(offset <= cut, "{model} cut to {cut} bytes is refused because of byte {offset}");
        }
    }
}

/// Flips `cases` bits of each model's header, one at a time.
fn turn_bits(of: fn(&str) -> Header, cases: usize) {
    for (model, mut header) in Header::of_models(of) {
        let mut random = Random(2);
        let len = header.bytes.len();
        // Most of a header is vocabulary, where a flipped bit only changes a token. So two of three bits are
        // flipped in the structure: among the first entries, and in the index of tensors, about 60 bytes for
        // each.
        let index = (60 * Gguf::open(&header.path).unwrap().tensors().len()).min(len);
        let mut read = 0;
        for case in 0..cases {
            let at = match case % 3 {
                0 => random.below(len),
                1 => random.below(len.min(1_024)),
                _ => len - 1 - random.below(index),
            };
            let bit = random.below(8);
            header.put(at, header.bytes[at] ^ (1 << bit));
            let damage = || format!("{model} with bit {bit} of byte {at} turned");
            read += usize::from(open_and_look(damage, || Gguf::open(&header.path)).is_ok());
            header.put(at, header.bytes[at]);
        }
        // Both outcomes must be common; otherwise the cases do not test what they should.
        assert!((cases / 10..cases * 9 / 10).contains(&read), "{model}: {read} of {cases} were read");
        assert!(Gguf::open(&header.path).is_ok(), "{model}: the damage was not undone");
    }
}

#[test]
fn a_real_model_with_a_bit_turned_is_read_or_refused() {
    turn_bits(Header::abridged, turned(400));
}

#[test]
fn a_real_model_with_a_bit_turned_in_its_whole_header_is_read_or_refused() {
    // Each case opens a header of a megabyte or more.
    turn_bits(Header::of, turned(50));
}

/// Number of bits to flip; 2,000 with `REALM_LONG`.
fn turned(cases: usize) -> usize {
    if std::env::var_os("REALM_LONG").is_some() { 2_000 } else { cases }
}

#[test]
fn a_small_file_cut_anywhere_is_refused() {
    for (name, bytes) in seeds() {
        if Gguf::from_bytes(bytes.clone()).is_err() {
            continue;
        }
        for cut in 0..bytes.len() {
            let opened =
                open_and_look(|| format!("{name} cut to {cut}"), || Gguf::from_bytes(bytes[..cut].to_vec()));
            let refused = matches!(opened, Err(Error::Malformed { .. } | Error::Incomplete { .. }));
            assert!(refused, "{name} cut to {cut}: {opened:?}");
        }
    }
}

#[test]
fn a_small_file_with_any_bit_turned_is_read_or_refused() {
    for (name, bytes) in seeds() {
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = open_and_look(|| format!("{name} with bit {bit} turned"), || Gguf::from_bytes(damaged));
        }
    }
}

#[test]
fn any_field_of_a_small_file_may_hold_any_extreme() {
    let extremes = [0, 9, 1 << 20, u32::MAX as u64, 1 << 32, 1 << 61, 1 << 63, u64::MAX];
    for (name, bytes) in seeds() {
        // Only the headers are changed, because the bytes of tensors are not read; refused files have no
        // tensors.
        let Ok(gguf) = Gguf::from_bytes(bytes.clone()) else { continue };
        let end = gguf.tensors().iter().map(|t| t.offset()).min().unwrap_or(bytes.len());
        for (at, extreme) in (0..end.saturating_sub(8)).flat_map(|at| extremes.map(|e| (at, e))) {
            for width in [4, 8] {
                let mut damaged = bytes.clone();
                damaged[at..at + width].copy_from_slice(&extreme.to_le_bytes()[..width]);
                let damage = || format!("{name} with {extreme} in the {width} bytes at {at}");
                let _ = open_and_look(damage, || Gguf::from_bytes(damaged));
            }
        }
    }
}

/// Returns the result of reading a file and the most bytes held meanwhile, without the file's own bytes.
fn cost(writer: Writer) -> (Result<(), Error>, usize) {
    let bytes = writer.bytes();
    drop(writer);
    let (gguf, held) = measured(|| Gguf::from_bytes(bytes));
    (gguf.map(|gguf| look(&gguf)), held)
}

#[test]
fn a_header_that_is_as_large_as_is_read_costs_less_than_100_mb() {
    let writer = Writer::new()
        .alignment(1)
        .value("nested", Value::Array(Array::Nested(vec![Array::U8(vec![0]); 1 << 14])))
        .value("strings", Value::Array(Array::Strings(vec![b'x'; 1 << 22].chunks(4).collect())))
        .value("array", Value::Array(Array::F32(vec![0.0; 11 << 20])));
    let writer = (0..(1 << 14) - 4).fold(writer, |w, i: u32| w.value(i.to_string(), Value::U8(0)));
    let writer =
        (0..1 << 16).fold(writer, |w, i: u32| w.tensor(&i.to_string(), &[1, 1, 1, 1], TensorType::BF16));
    let data = writer.write().place("data") as usize;
    assert!((60 << 20..64 << 20).contains(&data), "the header has {data} bytes");
    let (opened, held) = cost(writer);
    opened.unwrap();
    println!("{held} bytes were held for a header of {data}");
    assert!(held <= MOST, "{held} bytes were allocated");
}

#[test]
fn arrays_cost_their_size_and_no_more() {
    const LEN: usize = 16 << 20;
    let strings = |each: usize| Array::Strings(vec![b'x'; LEN].chunks(each).collect());
    for array in [
        Array::U8(vec![1; LEN]),
        Array::Bool(vec![true; LEN]),
        Array::F64(vec![1.0; LEN / 8]),
        strings(LEN),
        strings(4),
    ] {
        let writer = Writer::new().value("k", Value::Array(array));
        let file = writer.bytes().len();
        let (opened, held) = cost(writer);
        opened.unwrap();
        assert!(held <= file + 100_000, "{held} bytes were allocated for a file of {file}");
    }
}

#[test]
fn a_lie_costs_nothing() {
    // Claims as many strings as would fit if they were empty; the first one is too long.
    let count = (16u64 << 20) / 8;
    let head = [&8u32.to_le_bytes()[..], &count.to_le_bytes(), &u64::MAX.to_le_bytes()].concat();
    let strings = Writer::new().raw("k", 9, [&head[..], &vec![0; 16 << 20]].concat());
    // Nested arrays, each of which claims all remaining bytes.
    let deep: Vec<u8> = (0..5u64)
        .flat_map(|i| [&9u32.to_le_bytes()[..], &(60_000 - i * 10_000).to_le_bytes()].concat())
        .chain(vec![0xff; 1 << 20])
        .collect();
    let claims =
        tiny_llama().claim_tensors(100_000).value("filler", Value::Array(Array::U8(vec![0; 4 << 20])));
    for (writer, most) in [(strings, 10_000), (Writer::new().raw("k", 9, deep), 10_000), (claims, 5 << 20)] {
        let (opened, held) = cost(writer);
        assert!(matches!(opened, Err(Error::Malformed { .. })), "{opened:?}");
        assert!(held <= most, "{held} bytes were allocated");
    }
}
