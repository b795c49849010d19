//! Names and types of the plain functions.
//!
//! They follow from the contract (a test derives them from `wit/` and compares):
//!
//! - a handle or a number is an `i32`, an `f32` is an `f32`;
//! - a text or a list is a pointer and a length in elements, both as wide as the memory's addresses; elements
//!   are 4 bytes, a text's are 1;
//! - a handle of the request's model is left out, and so are fields of the request;
//! - all return an `i64`: a handle, a number, 0 for nothing or, where it is negative, an error: -1 less its
//!   place in `error-code`; `error_message` has its message;
//! - a function that returns a text or a list takes, at the end, a pointer and a length of the buffer for it,
//!   and returns the number of elements; it writes only as many as fit.

/// A parameter.
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
    #[cfg_attr(not(test), expect(dead_code, reason = "what the test compares with"))]
    pub(super) contract: &'static str,
    pub(super) params: &'static [Kind],
}

const P: Kind = Kind::Pointer;
const N: Kind = Kind::Number;
const F: Kind = Kind::Float;

const fn function(name: &'static str, contract: &'static str, params: &'static [Kind]) -> Function {
    Function { name, contract, params }
}

pub(super) const FUNCTIONS: &[Function] = &[
    // The request.
    function("request_tokens", "", &[P, P]),
    function("request_input", "", &[P, P]),
    function("request_max_tokens", "", &[]),
    function("error_message", "", &[P, P]),
    function("drop", "", &[N]),
    // Models and texts.
    function("encode", "models.[method]model.encode", &[P, P, P, P]),
    function("decode", "models.[method]model.decode", &[P, P, P, P]),
    function("is_end", "models.[method]model.is-end", &[N]),
    function("emit", "output.emit", &[P, P, P, P]),
    // Sequences.
    function("sequence_open", "sequences.[static]sequence.open", &[]),
    function("sequence_append", "sequences.[method]sequence.append", &[N, P, P]),
    function("sequence_len", "sequences.[method]sequence.len", &[N]),
    function("sequence_truncate", "sequences.[method]sequence.truncate", &[N, N]),
    function("sequence_fork", "sequences.[method]sequence.fork", &[N]),
    function("sequence_forward", "sequences.[method]sequence.forward", &[N]),
    // Logits. `logits_top` returns tokens; `logits_get` returns their logits.
    function("logits_vocabulary", "logits.[method]logits.vocabulary", &[N]),
    function("logits_argmax", "logits.[method]logits.argmax", &[N]),
    function("logits_top", "logits.[method]logits.top", &[N, N, P, P]),
    function("logits_read", "logits.[method]logits.read", &[N, P, P]),
    function("logits_write", "logits.[method]logits.write", &[N, P, P]),
    function("logits_add", "logits.[method]logits.add", &[N, N, F]),
    function("logits_scale", "logits.[method]logits.scale", &[N, F]),
    function("logits_sample", "", &[N]),
    // Layers.
    function("tensor_from_values", "layers.[static]tensor.from-values", &[N, N, P, P]),
    function("tensor_rows", "layers.[method]tensor.rows", &[N]),
    function("tensor_width", "layers.[method]tensor.width", &[N]),
    function("tensor_read", "layers.[method]tensor.read", &[N, P, P]),
    function("tensor_gather", "layers.[method]tensor.gather", &[N, P, P]),
    function("tensor_add", "layers.[method]tensor.add", &[N, N, F]),
    function("kv_cache_open", "layers.[static]kv-cache.open", &[N]),
    function("kv_cache_truncate", "layers.[method]kv-cache.truncate", &[N, N]),
    function("memory64_load_layer", "layers.load-layer", &[N]),
    function("attention_forward", "layers.[method]layer.attention-forward", &[N, N, N]),
    function("feed_forward", "layers.[method]layer.feed-forward", &[N, N]),
    function("embed", "layers.embed", &[P, P]),
    function("candle_matmul", "layers.matmul", &[N, P, P]),
    function("lm_head", "layers.lm-head", &[N, P, P]),
];

#[cfg(test)]
mod tests {
    use wit_parser::{Resolve, Type, TypeDefKind};

    use super::*;

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
