//! What the plain functions take and return.
//!
//! It follows from the contract (a test derives it from `wit/` and compares):
//!
//! - a handle or a number is an `i32`, an `f32` is an `f32`;
//! - a text or a list is a pointer and a length in elements, both as wide as the memory's addresses; elements
//!   are 4 bytes, a text's are 1;
//! - a handle of the request's model is left out, and so are fields of the request;
//! - all return an `i64`: a handle, a number, 0 for nothing or, where it is negative, an error: -1 less its
//!   place in `error-code`; `error_message` has its message;
//! - a function that returns a text or a list takes, at the end, a pointer and a length of the buffer for it,
//!   and returns the number of elements; it writes only as many as fit.

use wasmtime::component::{Resource, ResourceTableError};
use wasmtime::{Caller, FuncType, Linker, Val};

use crate::Error;
use crate::bindings::realm::tenant::types::{self as wit, ErrorCode};
use crate::error::HostError;
use crate::state::State;

/// A parameter of a plain function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An address or a length.
    Pointer,
    /// `i32`.
    Number,
    /// `f32`.
    Float,
}

/// A plain function.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// The function's name in the contract, `interface.function`; empty for functions that only core modules
    /// need.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test compares with it"))]
    pub(super) contract: &'static str,
    pub(super) params: &'static [Kind],
    /// Adds the function to a linker, by its name and with its type there.
    pub(super) define: fn(&mut Linker<State>, &str, FuncType) -> wasmtime::Result<()>,
}

/// The Rust type of a parameter.
pub(super) trait Parameter {
    const KIND: Kind;

    /// Converts a guest's value, without sign extension.
    fn of(value: &Val) -> Self;
}

/// An address or a length.
pub(super) type Pointer = u64;

impl Parameter for Pointer {
    const KIND: Kind = Kind::Pointer;

    fn of(value: &Val) -> Self {
        match value {
            Val::I32(value) => Self::from(value.cast_unsigned()),
            Val::I64(value) => value.cast_unsigned(),
            _ => 0,
        }
    }
}

impl Parameter for u32 {
    const KIND: Kind = Kind::Number;

    fn of(value: &Val) -> Self {
        value.i32().unwrap_or_default().cast_unsigned()
    }
}

impl Parameter for f32 {
    const KIND: Kind = Kind::Float;

    fn of(value: &Val) -> Self {
        value.f32().unwrap_or_default()
    }
}

impl<T: 'static> Parameter for Resource<T> {
    const KIND: Kind = Kind::Number;

    /// Returns the handle with the guest's number. The table checks whether it exists and is of this kind.
    fn of(value: &Val) -> Self {
        Self::new_own(u32::of(value))
    }
}

/// The Rust type of a result.
pub(super) trait Returned {
    fn number(self) -> i64;
}

impl Returned for i64 {
    fn number(self) -> i64 {
        self
    }
}

impl Returned for () {
    fn number(self) -> i64 {
        0
    }
}

impl Returned for bool {
    fn number(self) -> i64 {
        self.into()
    }
}

impl Returned for u32 {
    fn number(self) -> i64 {
        self.into()
    }
}

impl<T: 'static> Returned for Resource<T> {
    fn number(self) -> i64 {
        self.rep().into()
    }
}

/// Makes a table of [`Function`]s: `fn name(parameters) = "name in the contract" { call }`. The call sees the
/// guest as `caller`.
macro_rules! functions {
    (|$caller:ident| $(fn $name:ident($($param:ident: $kind:ty),*) = $contract:literal $call:block)*) => {
        &[$($crate::raw::signatures::Function {
            name: stringify!($name),
            contract: $contract,
            params: &[$(<$kind as $crate::raw::signatures::Parameter>::KIND),*],
            define: |linker, name, ty| {
                linker.func_new_async($crate::raw::IMPORTS, name, ty, |mut guest, params, results| {
                    Box::new(async move {
                        let [$($param),*] = params else {
                            wasmtime::bail!("`{}` got {} parameters", stringify!($name), params.len());
                        };
                        $(let $param = <$kind as $crate::raw::signatures::Parameter>::of($param);)*
                        let result = async {
                            let $caller = &mut guest;
                            let result = $crate::raw::signatures::Returned::number($call);
                            Ok::<i64, $crate::error::HostError>(result)
                        };
                        let result = result.await;
                        let result = $crate::raw::signatures::or_error_code(&mut guest, result)?;
                        results[0] = wasmtime::Val::I64(result);
                        Ok(())
                    })
                })?;
                Ok(())
            },
        }),*]
    };
}
pub(super) use functions;

/// Turns an error that the guest may see into a negative number.
pub(super) fn or_error_code(
    caller: &mut Caller<'_, State>,
    result: Result<i64, HostError>,
) -> wasmtime::Result<i64> {
    match result {
        Ok(result) => Ok(result),
        Err(HostError::Seen(error)) => Ok(error_code(caller.data_mut(), error)),
        // An invalid handle is an ordinary error here: only this table knows the guest's handles.
        Err(HostError::Fatal(error)) if error.is::<ResourceTableError>() => {
            Ok(error_code(caller.data_mut(), Error::invalid("there is no such handle")))
        }
        Err(HostError::Fatal(error)) => Err(error),
    }
}

/// Keeps an error for `error_message`; returns its number.
fn error_code(state: &mut State, error: Error) -> i64 {
    let wit: wit::Error = error.clone().into();
    state.raw_error = Some(error);
    let place = match wit.code {
        ErrorCode::InvalidArgument => 0,
        ErrorCode::LimitExceeded => 1,
        ErrorCode::Overloaded => 2,
        ErrorCode::Unsupported => 3,
        ErrorCode::NotFound => 4,
        ErrorCode::Denied => 5,
        ErrorCode::Failed => 6,
        ErrorCode::Internal => 7,
    };
    -1 - place
}

#[cfg(test)]
mod tests {
    use wit_parser::{Resolve, Type, TypeDefKind};

    use super::super::calls::FUNCTIONS;
    use super::Kind;

    const P: Kind = Kind::Pointer;
    const N: Kind = Kind::Number;
    const F: Kind = Kind::Float;

    /// Returns the parameters of a type.
    fn flat(resolve: &Resolve, ty: &Type) -> Vec<Kind> {
        match ty {
            Type::F32 => vec![F],
            Type::String => vec![P, P],
            Type::Id(id) => match &resolve.types[*id].kind {
                TypeDefKind::Type(ty) => flat(resolve, ty),
                TypeDefKind::List(_) => vec![P, P],
                TypeDefKind::Handle(handle) => {
                    let (wit_parser::Handle::Own(of) | wit_parser::Handle::Borrow(of)) = handle;
                    let mut of = &resolve.types[*of];
                    while let TypeDefKind::Type(Type::Id(id)) = &of.kind {
                        of = &resolve.types[*id];
                    }
                    if of.name.as_deref() == Some("model") { Vec::new() } else { vec![N] }
                }
                other => panic!("a parameter that is {other:?}"),
            },
            _ => vec![N],
        }
    }

    /// Returns whether a result is written to the caller's buffer.
    fn is_listed(resolve: &Resolve, ty: &Type) -> bool {
        match ty {
            Type::String => true,
            Type::Id(id) => match &resolve.types[*id].kind {
                TypeDefKind::Type(ty) => is_listed(resolve, ty),
                TypeDefKind::List(_) => true,
                TypeDefKind::Result(result) => result.ok.as_ref().is_some_and(|ok| is_listed(resolve, ok)),
                _ => false,
            },
            _ => false,
        }
    }

    #[test]
    fn signatures_are_those_of_the_contract() {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/wit")).unwrap();
        for plain in FUNCTIONS.iter().filter(|plain| !plain.contract.is_empty()) {
            let (interface, name) = plain.contract.split_once('.').unwrap();
            let interface = &resolve.interfaces[resolve.packages[package].interfaces[interface]];
            let function = interface.functions.get(name).unwrap_or_else(|| panic!("no {}", plain.contract));
            let mut wanted: Vec<Kind> =
                function.params.iter().flat_map(|param| flat(&resolve, &param.ty)).collect();
            if function.result.as_ref().is_some_and(|ty| is_listed(&resolve, ty)) {
                wanted.extend([P, P]);
            }
            assert_eq!(plain.params, wanted, "{}", plain.name);
        }
    }
}
