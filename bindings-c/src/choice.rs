//! Numbers from the caller that stand for a variant of an enum.
//!
//! In C any number may be passed for an enum, in Rust only a variant: anything else is undefined behavior. A
//! program built with a newer header may name variants that this library does not have. Therefore parameters
//! are `MaybeUninit`, which is passed in the same way, and are read as numbers first.

use std::ffi::c_uint;
use std::mem::{MaybeUninit, transmute_copy};

use crate::error::Error;

/// An enum that callers choose a variant of.
pub(crate) trait Choice: Sized {
    /// The name in the header.
    const NAME: &'static str;

    /// Returns the variant of a number, if there is one.
    fn of(number: c_uint) -> Option<Self>;
}

/// Makes an enum a [`Choice`] among all its variants.
macro_rules! choice {
    ($name:ident { $($variant:ident),+ $(,)? }) => {
        impl crate::choice::Choice for $name {
            const NAME: &'static str = concat!("Realm", stringify!($name));

            fn of(number: std::ffi::c_uint) -> Option<Self> {
                // Fails to compile if a variant is missing.
                const fn all(value: $name) -> $name {
                    match value {
                        $($name::$variant => $name::$variant),+
                    }
                }
                const VARIANTS: &[$name] = &[$(all($name::$variant)),+];
                VARIANTS.iter().copied().find(|&variant| variant as std::ffi::c_uint == number)
            }
        }
    };
}

pub(crate) use choice;

fn number<T: Choice>(value: &MaybeUninit<T>) -> c_uint {
    const { assert!(size_of::<T>() == size_of::<c_uint>()) };
    // SAFETY: of the same size; a caller that passes a parameter passes all of it, and any bits are a number.
    unsafe { transmute_copy(value) }
}

/// Returns the caller's choice, if it is a variant.
pub(crate) fn known<T: Choice>(value: MaybeUninit<T>) -> Option<T> {
    T::of(number(&value))
}

/// Same as [`known`], with an error for any other number.
pub(crate) fn chosen<T: Choice>(value: MaybeUninit<T>) -> Result<T, Error> {
    let number = number(&value);
    T::of(number).ok_or_else(|| Error::invalid(&format!("{} has no value {number}", T::NAME)))
}
