//! Damaged model files: each one either loads, and then generates, chats and embeds, or is refused with a
//! reason. None of them causes a panic, ends the process or takes much memory.
//!
//! `REALM_MUTATIONS` is the number of files (ci/nightly uses ten thousand), `REALM_MUTATION_SEED` the first
//! seed, and `REALM_MUTATION_KEEP` names a file that each damaged model is written to, for debugging one that
//! hangs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use realm::{ErrorCode, LoadOptions, Message, Realm, Request};

/// The most bytes that loading and using a damaged model may hold at a time. The intact model of 300 KB takes
/// a tenth.
const MOST: usize = 200 << 20;

/// Counts the bytes that the process holds, and their peak.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grown(by: usize) {
    let held = HELD.fetch_add(by, Ordering::Relaxed) + by;
    PEAK.fetch_max(held, Ordering::Relaxed);
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
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `dealloc`, and `ptr` came from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        // SAFETY: the caller keeps the promises of `realloc`, and `ptr` came from the system's allocator.
        let new = unsafe { System.realloc(ptr, layout, size) };
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        new
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sebastiano Vigna's splitmix64: random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

const TEMPLATE: &str = "{% for message in messages %}{% if message.role == 'system' %}{{ message.content | trim }}\n{% else %}\
    {{ '<' ~ message['role'] ~ '>' + message.content | default('', true) }}{{ loop.index0 * 2 }}{% endif %}{% endfor %}\
    {% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{% macro m(a, b=1) %}{{ a }}{% endmacro %}{{ m([1, 2][0]) }}\
    {% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";

/// Returns a model's bytes with a chat template in its metadata, and the number of bytes in its header.
fn model(path: &Path) -> (Vec<u8>, usize) {
    let mut bytes = std::fs::read(path).expect("a model");
    let key = "tokenizer.chat_template";
    let mut entry = (key.len() as u64).to_le_bytes().to_vec();
    entry.extend(key.as_bytes());
    entry.extend(8u32.to_le_bytes());
    // Tensors stay aligned if the entry is.
    let len = (entry.len() + 8 + TEMPLATE.len()).next_multiple_of(32) - entry.len() - 8;
    entry.extend((len as u64).to_le_bytes());
    entry.extend(format!("{TEMPLATE:len$}").as_bytes());
    let entries = u64::from_le_bytes(bytes[16..24].try_into().expect("a count")) + 1;
    bytes[16..24].copy_from_slice(&entries.to_le_bytes());
    bytes.splice(24..24, entry);
    let gguf = realm_gguf::Gguf::from_bytes(bytes.clone()).expect("a model");
    let header = gguf.tensors().iter().map(|tensor| tensor.offset()).min().expect("tensors");
    (bytes, header)
}

/// Damages a model: mostly its header, at one to four places.
fn damage(bytes: &mut Vec<u8>, header: usize, random: &mut Random) {
    const EXTREMES: [u64; 14] =
        [0, 1, 2, 3, 7, 9, 255, 1 << 16, (1 << 20) - 1, 1 << 31, u32::MAX as u64, 1 << 40, 1 << 63, u64::MAX];
    const WORDS: [&[u8]; 12] = [
        b"{{",
        b"{%",
        b"}}",
        b"%}",
        b"(((((",
        b" not not",
        b" ~ m(m)",
        b"<|im_start|>",
        b"\xff\xfe",
        b"aaaaaaaa",
        b"  ",
        b"+1",
    ];
    for _ in 0..1 + random.below(4) {
        let region = match random.below(8) {
            0 => bytes.len(),
            // The first entries, the template among them.
            1..=3 => header.min(2_000),
            _ => header,
        };
        let at = random.below(region.min(bytes.len()));
        let mut put = |new: &[u8]| {
            let end = (at + new.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        };
        match random.below(8) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 => put(&EXTREMES[random.below(EXTREMES.len())].to_le_bytes()),
            4 => put(&(EXTREMES[random.below(EXTREMES.len())] as u32).to_le_bytes()),
            5 => put(WORDS[random.below(WORDS.len())]),
            6 => {
                // A piece of the file in another place.
                let (from, len) = (random.below(header.min(bytes.len())), 1 + random.below(64));
                let piece = bytes[from..(from + len).min(bytes.len())].to_vec();
                let end = (at + piece.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            _ if random.below(4) == 0 => bytes.truncate(1 + random.below(bytes.len())),
            _ => {
                // One byte repeated, as in a token of repeated bytes.
                let (byte, len) = (bytes[at], 1 + random.below(200));
                let end = (at + len).min(bytes.len());
                bytes[at..end].fill(byte);
            }
        }
        if bytes.len() < 32 {
            return;
        }
    }
}

/// Loads a model and uses everything it offers. Returns the number of refused operations, or 10 if it does
/// not load.
fn use_all(realm: &Realm, path: &Path) -> usize {
    let options = LoadOptions { kv_tokens: Some(256), ..LoadOptions::default() };
    let model = match realm.load_model_with(&path.to_string_lossy(), &options, &mut ()) {
        Ok(model) => model,
        Err(error) => {
            assert_ne!(error.code(), ErrorCode::Internal, "{error}");
            return 10;
        }
    };
    let mut text = Request::text("a b").temperature(0.0).max_tokens(3);
    text.ignore_eos = true;
    let chat = Request::chat([Message::new("system", "be brief"), Message::user("a <|im_start|> b")]);
    let outcomes = [
        model.generate(text).map(drop),
        model.generate(chat.temperature(1.0).max_tokens(2)).map(drop),
        model.embed("a b").map(drop),
    ];
    outcomes.iter().filter(|outcome| outcome.is_err()).count()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn a_mutated_model_is_used_or_refused() {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    // This model has a tokenizer; the tiny models of the reference have none.
    let models = ["conformance/tiny.gguf"];
    let models = models.map(|name| model(&tests.join(name)));
    let folder = tempfile::tempdir().unwrap();
    let keep = std::env::var_os("REALM_MUTATION_KEEP").map(PathBuf::from);
    let path = keep.unwrap_or_else(|| folder.path().join("damaged.gguf"));
    let realm = Realm::builder().threads(1).device("cpu").build().unwrap();
    for (whole, _) in &models {
        std::fs::write(&path, whole).unwrap();
        assert!(use_all(&realm, &path) < 3, "the whole model is used");
    }
    let first = number("REALM_MUTATION_SEED").unwrap_or(0);
    let (mut counts, mut most) = ([0usize; 3], 0);
    for seed in first..first + number("REALM_MUTATIONS").unwrap_or(400) {
        let mut random = Random(seed);
        let (whole, header) = &models[random.below(models.len())];
        let mut bytes = whole.clone();
        damage(&mut bytes, *header, &mut random);
        std::fs::write(&path, &bytes).unwrap();
        drop(bytes);
        let (before, began) = (HELD.load(Ordering::Relaxed), Instant::now());
        PEAK.store(before, Ordering::Relaxed);
        let refused = use_all(&realm, &path);
        let held = PEAK.load(Ordering::Relaxed) - before;
        if began.elapsed().as_secs() > 2 {
            println!("seed {seed} took {:?}", began.elapsed());
        }
        assert!(held <= MOST, "seed {seed}: {held} bytes were held");
        most = most.max(held);
        counts[[0, 1, 1, 1].get(refused).copied().unwrap_or(2)] += 1;
    }
    let [used, partly, refused] = counts;
    println!("{used} were used, {partly} in part, {refused} were refused; at most {most} bytes were held");
    assert!(used > 0 && refused > 0);
}

/// Truncates and rewrites the file again and again while it loads. A memory map of it would end the process
/// with a signal.
#[cfg(unix)]
#[test]
fn a_model_that_is_cut_while_it_loads_is_refused() {
    let whole =
        std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/tiny.gguf"))
            .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    std::fs::write(&path, &whole).unwrap();
    let realm = Realm::builder().threads(1).device("cpu").build().unwrap();
    let stop = AtomicBool::new(false);
    let mut outcomes = [0; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let mut random = Random(1);
            while !stop.load(Ordering::Relaxed) {
                let cut = random.below(whole.len());
                file.set_len(cut as u64).unwrap();
                std::thread::yield_now();
                std::os::unix::fs::FileExt::write_all_at(&file, &whole[cut..], cut as u64).unwrap();
            }
        });
        for _ in 0..100 {
            outcomes[usize::from(use_all(&realm, &path) < 10)] += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} times it was refused, {} times used", outcomes[0], outcomes[1]);
    assert!(outcomes[0] > 0, "it was never cut at the right time");
}
