//! Refuses modules that would take long to compile, in one pass over their bytes, before any of them is compiled.
//!
//! A compiler takes more than linear time where much is alive across many branches, where loops nest, and where many values
//! cross calls and blocks at once: 14 KiB of it kept one busy for a minute and took 3.5 GiB. So what makes that is counted
//! for each function, in *steps* that take a compiler some 30 to 100 nanoseconds each, and programs have a budget of them. Next to it are
//! plain bounds on how many there may be of anything that costs memory before it is compiled.
//!
//! The steps of each kind were chosen by measuring the worst modules of that kind, which `tests/hostile/worst.rs` makes.
//! `docs/notes/programs.md` has some of the figures, and a test below prints all of them (`REALM_LONG=1`).

mod steps;
#[cfg(test)]
mod tests;

use steps::{Code, TYPE, VALUE};
use wasmparser::{BlockType, CompositeInnerType, Encoding, FunctionBody, Parser, Payload, TypeRef};

use crate::{Error, ErrorKind};

/// Steps that compiling one function may take.
const FUNCTION_STEPS: u64 = 40_000_000;
/// Steps that compiling a program may take.
const PROGRAM_STEPS: u64 = 800_000_000;
/// Bytes of one function's code.
const FUNCTION_BYTES: u64 = 1 << 20;
/// Bytes of a program's code.
const CODE_BYTES: u64 = 32 << 20;
/// Locals of one function, with its parameters.
const LOCALS: u64 = 10_000;
/// Values on one function's stack.
const STACK: u64 = 10_000;
/// Blocks, loops and conditions in each other.
const NESTING: u64 = 2_000;
/// Loops in each other.
const LOOPS: u64 = 200;

/// How many there may be of something in a program, all its modules taken together.
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

/// What a program has, all its modules taken together.
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

/// A core module that is being read.
#[derive(Default)]
struct Module {
    /// Parameters and results of each function type; `None` for a type of something else.
    types: Vec<Option<(u64, u64)>>,
    /// The type of each function.
    functions: Vec<u32>,
    /// The type of each tag.
    tags: Vec<u32>,
    /// Functions before the next that has code.
    before: usize,
}

impl Module {
    fn arity(&self, ty: u32) -> (u64, u64) {
        // What is not there the compiler refuses.
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

/// Counts what a component, or a module, has of all that takes a compiler long; returns the steps that it takes.
///
/// # Errors
/// `InvalidProgram` names what there is too much of, and how much there may be.
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

    /// One function's code.
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
            // A sequence of operators can't be long enough to count further than numbers go.
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
