//! The runtime, and loading models.

use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;

use realm::hub;

use crate::callback::OnProgress;
use crate::error::{Error, attempt, surely};
use crate::load_options::LoadOptions;
use crate::memory::{array, copy_text, free, object, own, put, text, text_of};
use crate::model::Model;
use crate::program::Program;
use crate::tokenizer::Tokenizer;

/// The runtime: owns the devices and loads models. One for each process is normal.
pub struct Runtime(pub(crate) realm::Realm);

/// Starts a runtime. `threads` threads compute, 0 for one for each core. `device` is `cpu`, `cuda`, `cuda:1`
/// and so on; NULL means the first NVIDIA GPU, with other GPUs and the CPU for layers that do not fit there,
/// or the CPU if there is no GPU that Realm can use. `cache_folder` is the folder of fetched models; NULL
/// means the user's cache folder. Errors: `invalid-argument` for more than 1024 threads, `unsupported` for a
/// device that the machine does not have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_new(
    threads: usize,
    device: *const c_char,
    cache_folder: *const c_char,
    error: *mut *mut Error,
) -> *mut Runtime {
    let work = || {
        // SAFETY: the caller's texts.
        let builder = unsafe { builder(threads, device, cache_folder) }?;
        Ok(own(Runtime(builder.build()?)))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Same as `realm_runtime_new`, with the key that signs saved sequences: at least 32 random bytes, to be kept
/// secret. Runtimes with the same key restore each other's sequences. The key is copied. Errors: also
/// `invalid-argument` for fewer than 32 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_new_keyed(
    threads: usize,
    device: *const c_char,
    cache_folder: *const c_char,
    key: *const u8,
    key_len: usize,
    error: *mut *mut Error,
) -> *mut Runtime {
    let work = || {
        // SAFETY: the caller's texts and bytes.
        let (builder, key) =
            unsafe { (builder(threads, device, cache_folder)?, array(key, key_len, "key")?) };
        Ok(own(Runtime(builder.snapshot_key(key).build()?)))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Connects to a server, `realm serve`, whose models are then used as those of this process are. `url` is
/// `http://…` or `https://…`; `key` is one of the server's, or NULL. `realm_runtime_load_model` finds a model
/// by the name that the server has for it. What stays at the server, such as options of loading, limits of
/// tenants and programs, is the error `unsupported`. Blocks until the server has answered. Errors:
/// `invalid-argument` for another kind of URL, `io` if the server can't be reached, `denied` if it does not
/// know the key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_connect(
    url: *const c_char,
    key: *const c_char,
    error: *mut *mut Error,
) -> *mut Runtime {
    let work = || {
        // SAFETY: the caller's text.
        let url = unsafe { text(url, "url") }?;
        // SAFETY: the caller's text, unless it is NULL.
        let key = if key.is_null() { "" } else { unsafe { text(key, "key") }? };
        Ok(own(Runtime(realm::Realm::connect(url, key)?)))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Returns true if a server computes; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_is_remote(runtime: *const Runtime) -> bool {
    // SAFETY: a runtime of ours, or NULL.
    surely(false, || unsafe { runtime.as_ref() }.is_some_and(|runtime| runtime.0.is_remote()))
}

/// Returns a builder with these options.
///
/// # Safety
/// `device` and `cache_folder` are NULL or texts.
unsafe fn builder(
    threads: usize,
    device: *const c_char,
    cache_folder: *const c_char,
) -> Result<realm::Builder, Error> {
    let mut builder = realm::Realm::builder();
    if threads > 0 {
        builder = builder.threads(threads);
    }
    if !device.is_null() {
        // SAFETY: the caller's text.
        builder = builder.device(unsafe { text(device, "device") }?);
    }
    if !cache_folder.is_null() {
        // SAFETY: the caller's text.
        builder = builder.cache_folder(unsafe { text(cache_folder, "cache_folder") }?);
    }
    Ok(builder)
}

/// Frees a runtime. Models that it loaded stay until their last handle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_free(runtime: *mut Runtime) {
    // SAFETY: a runtime of ours, or NULL.
    unsafe { free(runtime) }
}

/// Calls a callback with an event.
fn tell(
    on_progress: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, u64, u64),
    data: *mut c_void,
) -> realm::OnProgress<impl FnMut(realm::ProgressEvent)> {
    realm::OnProgress(move |event: realm::ProgressEvent| {
        let (stage, what): (CString, CString) = (text_of(event.stage.as_str()), text_of(&event.what));
        // SAFETY: the caller's function with the caller's data; the texts live until it returns.
        unsafe {
            on_progress(data, stage.as_ptr(), what.as_ptr(), event.done, event.total.unwrap_or(u64::MAX));
        }
    })
}

/// Loads a model: a path to a GGUF file, a catalog name such as `smollm2-135m`, or `hf:owner/repo/file.gguf`.
/// A model that is not on disk yet is fetched first. `options` may be NULL, and stay the caller's. Blocks.
/// Errors: `not-found` for an unknown name, `io` if fetching fails, `invalid-model` or `unsupported` for a
/// file that Realm cannot run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_load_model(
    runtime: *const Runtime,
    model: *const c_char,
    options: *const LoadOptions,
    error: *mut *mut Error,
) -> *mut Model {
    let work = || {
        // SAFETY: objects of ours and the caller's text.
        let (runtime, model) = unsafe { (object(runtime, "runtime")?, text(model, "model")?) };
        // SAFETY: options of ours, or NULL.
        let loaded = match unsafe { options.as_ref() } {
            Some(LoadOptions { options, progress: Some((on_progress, data)) }) => {
                runtime.0.load_model_with(model, options, &mut tell(*on_progress, data.get()))?
            }
            Some(LoadOptions { options, progress: None }) => {
                runtime.0.load_model_with(model, options, &mut ())?
            }
            None => runtime.0.load_model(model)?,
        };
        Ok(own(Model::from(loaded)))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Fetches a model, unless it is on disk, without loading it. Returns its file's path, for `realm_free`.
/// `on_progress` may be NULL; `user_data` stays the caller's. Blocks. Errors: same as
/// `realm_runtime_load_model`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_pull(
    runtime: *const Runtime,
    model: *const c_char,
    on_progress: OnProgress,
    user_data: *mut c_void,
    error: *mut *mut Error,
) -> *mut c_char {
    let work = || {
        // SAFETY: an object of ours and the caller's text.
        let (runtime, model) = unsafe { (object(runtime, "runtime")?, text(model, "model")?) };
        let reference = hub::Reference::parse(model).map_err(realm::Error::from)?;
        let hub = runtime.0.hub();
        let path = match on_progress {
            Some(on_progress) => hub.pull(&reference, &mut tell(on_progress, user_data)),
            None => hub.pull(&reference, &mut ()),
        };
        let path = path.map_err(realm::Error::from)?;
        // SAFETY: no length is asked for.
        unsafe { copy_text(&path.to_string_lossy(), std::ptr::null_mut()) }
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Deletes a model's files from the cache folder, and writes the number of freed bytes. Errors:
/// `invalid-argument` for a path, `io`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_remove(
    runtime: *const Runtime,
    model: *const c_char,
    freed: *mut u64,
    error: *mut *mut Error,
) -> bool {
    let work = || {
        // SAFETY: an object of ours and the caller's text.
        let (runtime, model) = unsafe { (object(runtime, "runtime")?, text(model, "model")?) };
        let reference = hub::Reference::parse(model).map_err(realm::Error::from)?;
        let bytes = runtime.0.hub().remove(&reference).map_err(realm::Error::from)?;
        // SAFETY: the caller's place for a number, or NULL.
        unsafe { put(freed, bytes) };
        Ok(true)
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, false, work) }
}

/// The state of a model in the cache folder.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum ModelState {
    /// The model is not there.
    Absent,
    /// A part is there; the next pull continues it.
    Partial,
    /// The whole file is there.
    Present,
}

/// The models of the catalog and of the cache folder.
pub struct ModelList(Vec<(CString, CString, ModelState, u64)>);

/// An entry of the list. The texts belong to the list.
#[repr(C)]
pub struct ModelEntry {
    /// The model's name for `realm_runtime_load_model`.
    pub reference: *const c_char,
    /// The path of its file, which may not exist yet.
    pub path: *const c_char,
    /// The state of the file.
    pub state: ModelState,
    /// The number of bytes that are there.
    pub bytes: u64,
}

/// Lists models. Errors: `io` if the cache folder cannot be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_models(
    runtime: *const Runtime,
    error: *mut *mut Error,
) -> *mut ModelList {
    let work = || {
        // SAFETY: an object of ours.
        let listed = unsafe { object(runtime, "runtime") }?.0.hub().list().map_err(realm::Error::from)?;
        let entry = |status: hub::Status| {
            let (state, bytes) = match status.state {
                hub::State::Absent => (ModelState::Absent, 0),
                hub::State::Partial(bytes) => (ModelState::Partial, bytes),
                hub::State::Present(bytes) => (ModelState::Present, bytes),
            };
            (text_of(&status.reference.to_string()), text_of(&status.path.to_string_lossy()), state, bytes)
        };
        Ok(own(ModelList(listed.into_iter().map(entry).collect())))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Returns the number of entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_list_len(list: *const ModelList) -> usize {
    // SAFETY: a list of ours, or NULL.
    unsafe { list.as_ref() }.map_or(0, |list| list.0.len())
}

/// Writes entry `index` to `entry`; false if `index` is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_list_get(
    list: *const ModelList,
    index: usize,
    entry: *mut ModelEntry,
) -> bool {
    // SAFETY: a list of ours, or NULL.
    let found = unsafe { list.as_ref() }.and_then(|list| list.0.get(index));
    let Some((reference, path, state, bytes)) = found else { return false };
    let found =
        ModelEntry { reference: reference.as_ptr(), path: path.as_ptr(), state: *state, bytes: *bytes };
    // SAFETY: the caller's place for an entry, or NULL.
    unsafe { put(entry, found) };
    true
}

/// Frees a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_model_list_free(list: *mut ModelList) {
    // SAFETY: a list of ours, or NULL.
    unsafe { free(list) }
}

/// Returns the metrics of all loaded models, in the text format that Prometheus reads, for `realm_free`. NULL
/// only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_prometheus(runtime: *const Runtime) -> *mut c_char {
    surely(std::ptr::null_mut(), || {
        // SAFETY: an object of ours, or NULL; no length is asked for.
        unsafe {
            let text = runtime.as_ref().map(|runtime| runtime.0.prometheus());
            text.and_then(|text| copy_text(&text, std::ptr::null_mut()).ok()).unwrap_or(std::ptr::null_mut())
        }
    })
}

/// Facts from a model's file.
pub struct FileInfo {
    info: realm::FileInfo,
    name: CString,
    architecture: CString,
    types: Vec<CString>,
}

/// A type of tensors in a file. The name belongs to the file's info.
#[repr(C)]
pub struct TensorType {
    /// The name, such as `Q4_K`.
    pub name: *const c_char,
    /// The number of tensors of the type.
    pub count: usize,
    /// The bytes that they take.
    pub bytes: u64,
}

/// The numbers of a file's info. The texts belong to it.
#[repr(C)]
pub struct FileSummary {
    /// The name in the file, `general.name`; empty if it has none.
    pub name: *const c_char,
    /// The architecture, such as `llama`.
    pub architecture: *const c_char,
    /// The number of weights.
    pub parameters: u64,
    /// The number of transformer layers.
    pub layers: usize,
    /// The size of the vocabulary, in tokens.
    pub vocabulary: usize,
    /// The longest context that the model was trained for, in tokens.
    pub trained_context_length: usize,
    /// True if the file has a chat template.
    pub chat_template: bool,
    /// The number of tensor types, for `realm_file_info_tensor_type`.
    pub tensor_types: usize,
}

/// Reads a GGUF file's header without loading the file. Errors: `io`, and `invalid-model` or `unsupported`
/// for a file that Realm cannot run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_inspect(path: *const c_char, error: *mut *mut Error) -> *mut FileInfo {
    let work = || {
        // SAFETY: the caller's text.
        let info = realm::inspect(&PathBuf::from(unsafe { text(path, "path") }?))?;
        Ok(own(FileInfo {
            name: text_of(info.name.as_deref().unwrap_or_default()),
            architecture: text_of(&info.architecture),
            types: info.tensor_types.iter().map(|(name, ..)| text_of(name)).collect(),
            info,
        }))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Writes the file's summary to `summary`; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_file_info_summary(info: *const FileInfo, summary: *mut FileSummary) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(FileInfo { info, name, architecture, types }) = (unsafe { info.as_ref() }) else { return false };
    let said = FileSummary {
        name: name.as_ptr(),
        architecture: architecture.as_ptr(),
        parameters: info.parameters,
        layers: info.layers,
        vocabulary: info.vocabulary,
        trained_context_length: info.trained_context_length,
        chat_template: info.chat_template,
        tensor_types: types.len(),
    };
    // SAFETY: the caller's place for a summary, or NULL.
    unsafe { put(summary, said) };
    true
}

/// Writes tensor type `index` to `tensor_type`, the one with the most bytes first; false if `index` is out of
/// range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_file_info_tensor_type(
    info: *const FileInfo,
    index: usize,
    tensor_type: *mut TensorType,
) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(info) = (unsafe { info.as_ref() }) else { return false };
    let Some((_, count, bytes)) = info.info.tensor_types.get(index) else { return false };
    let found = TensorType { name: info.types[index].as_ptr(), count: *count, bytes: *bytes };
    // SAFETY: the caller's place for a type, or NULL.
    unsafe { put(tensor_type, found) };
    true
}

/// Frees a file's info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_file_info_free(info: *mut FileInfo) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(info) }
}

/// Loads only a model's tokenizer. Blocks. Errors: same as `realm_runtime_load_model`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_load_tokenizer(
    runtime: *const Runtime,
    model: *const c_char,
    error: *mut *mut Error,
) -> *mut Tokenizer {
    let work = || {
        // SAFETY: an object of ours and the caller's text.
        let (runtime, model) = unsafe { (object(runtime, "runtime")?, text(model, "model")?) };
        Ok(own(Tokenizer::Alone(Box::new(runtime.0.load_tokenizer(model)?))))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Compiles a program from a file: a WebAssembly component, or a core module from a WebAssembly target of
/// `cargo build`. Compiled code is kept in the cache folder. Blocks, for seconds if the program is large and
/// new. Errors: `io`, `invalid-program`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_load_program(
    runtime: *const Runtime,
    path: *const c_char,
    error: *mut *mut Error,
) -> *mut Program {
    let work = || {
        // SAFETY: an object of ours and the caller's text.
        let (runtime, path) = unsafe { (object(runtime, "runtime")?, text(path, "path")?) };
        Ok(own(Program::from(runtime.0.load_program(path)?)))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Same as `realm_runtime_load_program`, from `len` bytes. Errors: `invalid-program`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_compile_program(
    runtime: *const Runtime,
    wasm: *const u8,
    len: usize,
    error: *mut *mut Error,
) -> *mut Program {
    let work = || {
        // SAFETY: an object of ours and the caller's bytes.
        let (runtime, wasm) = unsafe { (object(runtime, "runtime")?, array(wasm, len, "wasm")?) };
        Ok(own(Program::from(runtime.0.compile_program(wasm)?)))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}
