//! Texts and arrays between Rust and C.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use crate::error::{Error, surely};

/// Returns a text for C; a zero in it ends it, but messages have none.
pub(crate) fn text_of(text: &str) -> CString {
    let before_zero = text.split('\0').next().unwrap_or_default();
    CString::new(before_zero).unwrap_or_default()
}

/// A text that may hold zeros, with one zero after it, and its length.
pub(crate) struct Text(Vec<u8>);

impl From<String> for Text {
    fn from(text: String) -> Self {
        let mut bytes = text.into_bytes();
        bytes.push(0);
        Self(bytes)
    }
}

impl Text {
    /// Returns the address of the text; writes its length to `len` unless that is NULL.
    pub(crate) unsafe fn give(&self, len: *mut usize) -> *const c_char {
        // SAFETY: the caller's place for a length, or NULL.
        unsafe { put(len, self.0.len() - 1) };
        self.0.as_ptr().cast()
    }
}

/// Writes to a place of the caller's, if there is one.
pub(crate) unsafe fn put<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller says that it is a place for a `T`.
        unsafe { place.write(value) };
    }
}

/// An object of the caller's.
pub(crate) unsafe fn object<'a, T>(object: *const T, name: &str) -> Result<&'a T, Error> {
    // SAFETY: the caller's promise: an object that is not freed, or NULL.
    unsafe { object.as_ref() }.ok_or_else(|| Error::invalid(&format!("`{name}` is NULL")))
}

/// An object that only the caller uses now.
pub(crate) unsafe fn object_mut<'a, T>(object: *mut T, name: &str) -> Result<&'a mut T, Error> {
    // SAFETY: the caller's promise: an object that no other thread uses, or NULL.
    unsafe { object.as_mut() }.ok_or_else(|| Error::invalid(&format!("`{name}` is NULL")))
}

/// A text of the caller's.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str, Error> {
    if text.is_null() {
        return Err(Error::invalid(&format!("`{name}` is NULL")));
    }
    // SAFETY: the caller's promise: a text that ends with a zero.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Error::invalid(&format!("`{name}` is not UTF-8")))
}

/// JSON of the caller's.
pub(crate) unsafe fn json(json: *const c_char, name: &str) -> Result<serde_json::Value, Error> {
    // SAFETY: the caller's promise, passed on.
    let json = unsafe { text(json, name) }?;
    serde_json::from_str(json).map_err(|error| Error::invalid(&format!("`{name}` is no JSON: {error}")))
}

/// An array of the caller's; NULL is an empty one.
pub(crate) unsafe fn array<'a, T>(items: *const T, len: usize, name: &str) -> Result<&'a [T], Error> {
    match (items.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Error::invalid(&format!("`{name}` is NULL and has {len} items"))),
        // SAFETY: the caller's promise: this many items.
        (false, len) => Ok(unsafe { std::slice::from_raw_parts(items, len) }),
    }
}

/// Names of the caller's.
pub(crate) unsafe fn names(
    names: *const *const c_char,
    len: usize,
    name: &str,
) -> Result<Vec<String>, Error> {
    // SAFETY: the caller's promise: this many texts.
    unsafe { array(names, len, name) }?
        .iter()
        // SAFETY: the caller's promise, for each text.
        .map(|&item| unsafe { text(item, name) }.map(str::to_owned))
        .collect()
}

/// Moves an object to the caller.
pub(crate) fn own<T>(object: T) -> *mut T {
    Box::into_raw(Box::new(object))
}

/// Takes an object of ours back.
pub(crate) unsafe fn free<T>(object: *mut T) {
    if !object.is_null() {
        // SAFETY: from `own`, and freed once.
        surely((), || drop(unsafe { Box::from_raw(object) }));
    }
}

/// Copies items to memory from `malloc`, with a zero after them, and writes their number to `len` unless that
/// is NULL.
pub(crate) unsafe fn copy<T: Copy>(items: &[T], len: *mut usize) -> Result<*mut T, Error> {
    let bytes = size_of_val(items);
    // SAFETY: memory for all items and one more, so never for none.
    unsafe {
        let place: *mut T = libc::malloc(bytes + size_of::<T>()).cast();
        if place.is_null() {
            return Err(Error::invalid("there is no memory for the result"));
        }
        ptr::copy_nonoverlapping(items.as_ptr(), place, items.len());
        ptr::write_bytes(place.add(items.len()), 0, 1);
        put(len, items.len());
        Ok(place)
    }
}

/// Same as [`copy`], for a text.
pub(crate) unsafe fn copy_text(text: &str, len: *mut usize) -> Result<*mut c_char, Error> {
    // SAFETY: the caller's place for a length, or NULL.
    Ok(unsafe { copy(text.as_bytes(), len) }?.cast())
}

/// Frees an array or a text that a function returned without `const`, as `free` does; for callers whose
/// `free` is another library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_free(memory: *mut c_void) {
    // SAFETY: from `malloc`, or NULL.
    unsafe { libc::free(memory) }
}
