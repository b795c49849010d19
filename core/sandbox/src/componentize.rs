//! Makes components of core modules.
//!
//! Compilers leave a description of the intended component in a module's custom sections. The author of the
//! module also wrote that description, and the library that reads it trusts it: a package that depends on
//! itself overflows the stack. Therefore the module's own description is ignored. The module is validated,
//! and then gets the description of the contract's world that its exports fit.

use std::sync::OnceLock;

use wasmparser::{ExternalKind, Parser, Payload};
use wasmtime::{Engine, Module};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap, WorldId};

use crate::{Error, ErrorKind};

/// The prefix of the names of sections that describe a component.
const DESCRIPTION: &str = "component-type";

/// Returns whether a core module is meant to be a component, as wit-bindgen marks it.
pub(crate) fn wants(module: &[u8]) -> bool {
    Parser::new(0).parse_all(module).map_while(Result::ok).any(
        |payload| matches!(payload, Payload::CustomSection(section) if section.name().starts_with(DESCRIPTION)),
    )
}

/// Makes a component of a core module.
///
/// # Errors
/// `InvalidProgram` if the module is not valid, or does not fit a world of the contract.
pub(crate) fn encode(engine: &Engine, module: &[u8]) -> Result<Vec<u8>, Error> {
    let invalid = |why: &dyn std::fmt::Display| {
        let why = format!(
            "no component can be made of the module: {why:#} (if it imports more than `realm:tenant`, make one with \
             `wasm-tools component new`)"
        );
        Error::new(ErrorKind::InvalidProgram, why)
    };
    Module::validate(engine, module).map_err(|error| invalid(&error))?;
    let contract = contract();
    let mut bare = without_customs(module).map_err(|error| invalid(&error))?;
    let world = if exports(module, "realm:tenant/policy@") { contract.policy } else { contract.program };
    embed_component_metadata(&mut bare, &contract.resolve, world, StringEncoding::UTF8)
        .and_then(|()| ComponentEncoder::default().validate(true).module(&bare)?.encode())
        .map_err(|error| invalid(&error))
}

/// Returns whether the module exports a function whose name begins with `name`.
fn exports(module: &[u8], name: &str) -> bool {
    Parser::new(0).parse_all(module).map_while(Result::ok).any(|payload| match payload {
        Payload::ExportSection(section) => section
            .into_iter()
            .map_while(Result::ok)
            .any(|export| export.kind == ExternalKind::Func && export.name.starts_with(name)),
        _ => false,
    })
}

/// Returns the module with no custom section but the names of its functions, for the trace of a trap.
fn without_customs(module: &[u8]) -> Result<Vec<u8>, wasmparser::BinaryReaderError> {
    const HEADER: usize = 8;
    let mut bare = module[..HEADER].to_vec();
    let mut end = HEADER;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        let Some((_, range)) = payload.as_section() else { continue };
        // The section's number and length precede its range.
        let whole = end..range.end as usize;
        end = range.end as usize;
        let dropped = matches!(&payload, Payload::CustomSection(section) if section.name() != "name");
        if !dropped {
            bare.extend_from_slice(&module[whole]);
        }
    }
    Ok(bare)
}

struct Contract {
    resolve: Resolve,
    program: WorldId,
    policy: WorldId,
}

fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let mut sources = SourceMap::default();
        for text in [
            include_str!("../wit/host.wit"),
            include_str!("../wit/layers.wit"),
            include_str!("../wit/logits.wit"),
            include_str!("../wit/models.wit"),
            include_str!("../wit/sequences.wit"),
            include_str!("../wit/types.wit"),
            include_str!("../wit/worlds.wit"),
        ] {
            sources.push_str("contract.wit", text);
        }
        // The same text that `bindings` is generated from.
        let package = sources.parse().map_err(|(_, error)| error).expect("the contract parses");
        let mut resolve = Resolve::default();
        let package = resolve.push_group(package).expect("the contract is complete");
        let world = |name| resolve.select_world(&[package], Some(name)).expect("a world of the contract");
        let (program, policy) = (world("tenant-program"), world("tenant-policy"));
        Contract { resolve, program, policy }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_sections_go_and_the_rest_stays() {
        let plain = wat::parse_str(r#"(module (func $f (export "f")) (data "abc"))"#).unwrap();
        let with = wat::parse_str(
            r#"(module (@custom "component-type:x" (before first) "abc") (func $f (export "f"))
                (@custom "other" "def") (data "abc") (@custom "component-type" (after last) "x"))"#,
        )
        .unwrap();
        assert!(!wants(&plain));
        assert!(wants(&with));
        assert_eq!(without_customs(&with).unwrap(), plain);
    }

    #[test]
    fn what_a_module_says_of_itself_is_not_read() {
        let module = wat::parse_str(r#"(module (@custom "component-type" "no description"))"#).unwrap();
        let error = encode(&Engine::default(), &module).unwrap_err();
        assert!(error.to_string().contains("realm:tenant/program"), "{error}");
    }
}
