//! Refuses modules that would take long to compile, in one pass over their bytes, before any of them is
//! compiled.
//!
//! A compiler takes more than linear time if many values are alive across many branches, if loops nest, and
//! if many values cross calls and blocks at once: 14 KiB of such code kept one busy for a minute and took 3.5
//! GiB. Therefore each function's causes of long compiling are counted in *steps*, each of which takes a
//! compiler some 30 to 100 nanoseconds, and programs have a budget of steps. In addition, everything that
//! costs memory before it is compiled has a plain bound.
//!
//! The steps of each kind were chosen by measuring the worst modules of that kind, which
//! `tests/hostile/worst.rs` generates. `docs/notes/programs.md` has some, and a test below prints all
//! of them (`REALM_LONG=1`).

mod steps;
#[cfg(test)]
mod tests;

use steps::{Code, TYPE, VALUE};
use wasmparser::{BlockType, CompositeInnerType, Encoding, FunctionBody, Parser, Payload, TypeRef};

use crate::{Error, ErrorKind};

/// The most steps of one function.
const FUNCTION_STEPS: u64 = 40_000_000;
/// The most steps of a program.
const PROGRAM_STEPS: u64 = 800_000_000;
/// The most bytes of one function's code.
const FUNCTION_BYTES: u64 = 1 << 20;
/// The most bytes of a program's code.
const CODE_BYTES: u64 = 32 << 20;
/// The most locals of one function, including its parameters.
const LOCALS: u64 = 10_000;
/// The most values on one function's stack.
const STACK: u64 = 10_000;
/// The deepest nesting of blocks, loops and conditions.
const NESTING: u64 = 2_000;
/// The deepest nesting of loops.
const LOOPS: u64 = 200;

/// The bound of one kind of item in a program, over all its modules.
struct Bound {
    what: &'static str,
    most: u64,
    count: u64,
}

impl Bound {
    const fn new(what: &'static str, most: u64) -> Self {
        Self { what, most, count: 0 }
    }

    fn add(&mut self, more: u64) -> Result<(), Error> {
        self.count = self.count.saturating_add(more);
        at_most("the program", self.count, self.what, self.most)
    }
}

fn at_most(who: &str, count: u64, what: &str, most: u64) -> Result<(), Error> {
    if count <= most {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidProgram, format!("{who} has {count} {what}; it may have {most}")))
}

fn malformed(error: wasmparser::BinaryReaderError) -> Error {
    Error::new(ErrorKind::InvalidProgram, format!("no WebAssembly that Realm can run: {error}"))
}

/// The items of a program, over all its modules.
struct Program {
    types: Bound,
    imports: Bound,
    functions: Bound,
    globals: Bound,
    exports: Bound,
    segments: Bound,
    entries: Bound,
    tags: Bound,
    component_items: Bound,
    code: Bound,
    steps: u64,
}

/// A core module being read.
#[derive(Default)]
struct Module {
    /// The numbers of parameters and results of each function type; `None` for other types.
    types: Vec<Option<(u64, u64)>>,
    /// The type of each function.
    functions: Vec<u32>,
    /// The type of each tag.
    tags: Vec<u32>,
    /// The number of functions before the next one with code.
    before: usize,
}

impl Module {
    fn arity(&self, ty: u32) -> (u64, u64) {
        // The compiler refuses an index that does not exist.
        self.types.get(ty as usize).copied().flatten().unwrap_or_default()
    }

    fn block(&self, ty: BlockType) -> (u64, u64) {
        match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(ty) => self.arity(ty),
        }
    }
}

/// Counts everything in a component, or a module, that takes a compiler long; returns the steps.
///
/// # Errors
/// `InvalidProgram` names the item of which there are too many, and its bound.
pub(crate) fn check(wasm: &[u8]) -> Result<u64, Error> {
    let mut program = Program {
        types: Bound::new("types", 20_000),
        imports: Bound::new("imports", 10_000),
        functions: Bound::new("functions", 100_000),
        globals: Bound::new("globals", 20_000),
        exports: Bound::new("exports", 100_000),
        segments: Bound::new("segments of data and of elements", 50_000),
        entries: Bound::new("entries of tables", 1_000_000),
        tags: Bound::new("tags", 1000),
        component_items: Bound::new("types, aliases, imports and exports of components", 50_000),
        code: Bound::new("bytes of code", CODE_BYTES),
        steps: 0,
    };
    // `None` for a component.
    let mut open: Vec<Option<Module>> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } => {
                open.push((encoding == Encoding::Module).then(Module::default));
            }
            Payload::End(_) => {
                open.pop();
            }
            payload => match open.last_mut() {
                Some(Some(module)) => program.read(module, payload)?,
                _ => program.read_component(&payload)?,
            },
        }
    }
    Ok(program.steps)
}

impl Program {
    fn read_component(&mut self, payload: &Payload<'_>) -> Result<(), Error> {
        self.component_items.add(match payload {
            Payload::ComponentTypeSection(section) => section.count().into(),
            Payload::CoreTypeSection(section) => section.count().into(),
            Payload::ComponentImportSection(section) => section.count().into(),
            Payload::ComponentExportSection(section) => section.count().into(),
            Payload::ComponentAliasSection(section) => section.count().into(),
            Payload::ComponentCanonicalSection(section) => section.count().into(),
            _ => 0,
        })
    }

    fn read(&mut self, module: &mut Module, payload: Payload<'_>) -> Result<(), Error> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group.map_err(malformed)?.into_types() {
                        self.types.add(1)?;
                        self.steps += TYPE;
                        module.types.push(match ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => {
                                let (params, results) = (ty.params().len() as u64, ty.results().len() as u64);
                                self.steps += VALUE * (params + results);
                                Some((params, results))
                            }
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.imports.add(1)?;
                    match import.map_err(malformed)?.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                            module.functions.push(ty);
                            module.before += 1;
                        }
                        TypeRef::Tag(tag) => module.tags.push(tag.func_type_idx),
                        _ => {}
                    }
                }
            }
            Payload::FunctionSection(section) => {
                self.functions.add(section.count().into())?;
                for ty in section {
                    module.functions.push(ty.map_err(malformed)?);
                }
            }
            Payload::TagSection(section) => {
                self.tags.add(section.count().into())?;
                for tag in section {
                    module.tags.push(tag.map_err(malformed)?.func_type_idx);
                }
            }
            Payload::GlobalSection(section) => self.globals.add(section.count().into())?,
            Payload::ExportSection(section) => self.exports.add(section.count().into())?,
            Payload::DataSection(section) => self.segments.add(section.count().into())?,
            Payload::ElementSection(section) => {
                self.segments.add(section.count().into())?;
                for element in section {
                    self.entries.add(match element.map_err(malformed)?.items {
                        wasmparser::ElementItems::Functions(items) => items.count().into(),
                        wasmparser::ElementItems::Expressions(_, items) => items.count().into(),
                    })?;
                }
            }
            Payload::CodeSectionEntry(body) => {
                let index = module.before;
                module.before += 1;
                self.function(module, index, &body)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Counts one function's code.
    fn function(&mut self, module: &Module, index: usize, body: &FunctionBody<'_>) -> Result<(), Error> {
        let who = || format!("function {index}");
        let bytes = body.range().end - body.range().start;
        self.code.add(bytes)?;
        at_most(&who(), bytes, "bytes of code", FUNCTION_BYTES)?;
        let (params, results) = module.functions.get(index).map_or((0, 0), |&ty| module.arity(ty));
        let mut locals = params;
        for local in body.get_locals_reader().map_err(malformed)? {
            locals = locals.saturating_add(local.map_err(malformed)?.0.into());
        }
        at_most(&who(), locals, "locals", LOCALS)?;
        let mut code = Code::new(module, locals, params, results);
        for operator in body.get_operators_reader().map_err(malformed)? {
            code.read(&operator.map_err(malformed)?);
            // The count cannot overflow: it is checked after each operator.
            if code.steps() > FUNCTION_STEPS {
                break;
            }
            at_most(&who(), code.nesting(), "blocks in each other", NESTING)?;
            at_most(&who(), code.loops(), "loops in each other", LOOPS)?;
            at_most(&who(), code.height(), "values on its stack", STACK)?;
        }
        let too_long = |who: &str, steps: u64, most: u64| {
            if steps <= most {
                return Ok(());
            }
            let why = format!(
                "{who} would take too long to compile: more than {most} steps, of which each instruction takes some, and each \
                 branch one for each value that is alive there"
            );
            Err(Error::new(ErrorKind::InvalidProgram, why))
        };
        too_long(&who(), code.steps(), FUNCTION_STEPS)?;
        self.steps += code.steps();
        too_long("the program", self.steps, PROGRAM_STEPS)
    }
}
