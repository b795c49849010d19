//! Refuses components that expand to more than can be compiled.
//!
//! A component may instantiate another one twice, which does the same with a third, and so on: a few hundred
//! bytes that expand to millions of instances. The compiler expands them all before it checks any limit, so
//! they are counted here, in one pass over the bytes.

use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Instance, Parser, Payload,
};

use crate::{Error, ErrorKind};

/// The number of core instances of a component whose own number is unknown, since the compiler adds some for
/// calls between components: as many as one component may have.
const UNKNOWN: u64 = 64;

/// The most instances, including nested ones and those of core modules. Programs made from Python have two
/// dozen.
const MOST: u64 = 1000;

/// A component being read.
#[derive(Default)]
struct Level {
    /// The number of instances that one instance of it creates.
    makes: u64,
    /// The number of core instances among them.
    cores: u64,
    /// The numbers of instances that an instance of each of its components creates.
    components: Vec<(u64, u64)>,
    /// True if it gives functions to others, or has some of its own.
    lifts: bool,
    /// True if it takes functions that may be another component's.
    adapts: bool,
}

/// Counts the instances that a component creates; returns the most core instances among them.
///
/// # Errors
/// `InvalidProgram` for too many, for components as arguments of components, whose number is unknown, and for
/// bytes that are not a component.
pub(crate) fn check(component: &[u8]) -> Result<u64, Error> {
    let mut cores = 0;
    let invalid = |why: String| Error::new(ErrorKind::InvalidProgram, why);
    let malformed =
        |error: wasmparser::BinaryReaderError| invalid(format!("no WebAssembly that Realm can run: {error}"));
    let mut levels: Vec<Level> = Vec::new();
    // `None` for a core module.
    let mut open: Vec<Encoding> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(malformed)?;
        if let Payload::Version { encoding, .. } = payload {
            open.push(encoding);
            if encoding == Encoding::Component {
                levels.push(Level::default());
            }
            continue;
        }
        if let Payload::End(_) = payload {
            if open.pop() == Some(Encoding::Component)
                && let Some(ended) = levels.pop()
            {
                if ended.makes > MOST {
                    return Err(invalid(format!(
                        "the component makes {} instances of components and modules; it may make {MOST}",
                        ended.makes
                    )));
                }
                match levels.last_mut() {
                    Some(outer) => {
                        outer.components.push((ended.makes, ended.cores));
                        outer.adapts |= ended.adapts || ended.lifts;
                    }
                    None => cores = if ended.adapts { UNKNOWN } else { ended.cores },
                }
            }
            continue;
        }
        if open.last() == Some(&Encoding::Component) {
            count(&mut levels, payload).map_err(malformed)?.map_err(|()| {
                invalid("components that are arguments or exports of components are not supported".into())
            })?;
        }
    }
    Ok(cores)
}

/// Counts the instances that one section creates; `Err(())` if their number is unknown.
fn count(
    levels: &mut [Level],
    payload: Payload<'_>,
) -> Result<Result<(), ()>, wasmparser::BinaryReaderError> {
    let depth = levels.len();
    let outer = |levels: &[Level], count: u32, index: u32| {
        let level = levels.get(depth.checked_sub(1 + count as usize)?)?;
        level.components.get(index as usize).copied()
    };
    let (mut makes, mut cores) = (0u64, 0u64);
    let (mut lifts, mut adapts) = (false, false);
    match payload {
        Payload::InstanceSection(instances) => {
            for instance in instances {
                cores = cores.saturating_add(u64::from(matches!(instance?, Instance::Instantiate { .. })));
            }
            makes = cores;
        }
        Payload::ComponentInstanceSection(instances) => {
            for instance in instances {
                if let ComponentInstance::Instantiate { component_index, args } = instance? {
                    // The compiler refuses an index that does not exist.
                    let inner = outer(levels, 0, component_index).unwrap_or_default();
                    makes = makes.saturating_add(inner.0.saturating_add(1));
                    cores = cores.saturating_add(inner.1);
                    if args.iter().any(|arg| arg.kind == ComponentExternalKind::Component) {
                        return Ok(Err(()));
                    }
                }
            }
        }
        Payload::ComponentAliasSection(aliases) => {
            for alias in aliases {
                match alias? {
                    ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                        let aliased = outer(levels, count, index).unwrap_or_default();
                        levels[depth - 1].components.push(aliased);
                    }
                    ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                        return Ok(Err(()));
                    }
                    _ => {}
                }
            }
        }
        Payload::ComponentCanonicalSection(functions) => {
            for function in functions {
                match function? {
                    CanonicalFunction::Lift { .. } => lifts = true,
                    // In the outermost component, a function lowered before any is lifted is imported.
                    CanonicalFunction::Lower { .. } => {
                        adapts |= lifts || depth > 1 || levels.last().is_some_and(|level| level.lifts);
                    }
                    _ => {}
                }
            }
        }
        Payload::ComponentImportSection(imports) => {
            for import in imports {
                if let ComponentTypeRef::Component(_) = import?.ty {
                    return Ok(Err(()));
                }
            }
        }
        Payload::ComponentExportSection(exports) => {
            for export in exports {
                if export?.kind == ComponentExternalKind::Component {
                    return Ok(Err(()));
                }
            }
        }
        _ => {}
    }
    if let Some(level) = levels.last_mut() {
        level.makes = level.makes.saturating_add(makes);
        level.cores = level.cores.saturating_add(cores);
        level.lifts |= lifts;
        level.adapts |= adapts;
    }
    Ok(Ok(()))
}
