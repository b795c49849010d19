//! Refuses modules that would take long to compile, in one pass over their bytes, before any of them is compiled.
//!
//! A compiler takes more than linear time where much is alive across many branches, where loops nest, and where many values
//! cross calls and blocks at once: 14 KiB of it kept one busy for a minute and took 3.5 GiB. So what makes that is counted
//! for each function, in *steps* that take a compiler some 30 to 100 nanoseconds each, and programs have a budget of them. Next to it are
//! plain bounds on how many there may be of anything that costs memory before it is compiled.
//!
//! The steps of each kind were chosen by measuring the worst modules of that kind, which `tests/hostile/worst.rs` makes.
//! `docs/README.md` has some of the figures, and a test below prints all of them (`REALM_LONG=1`).

use wasmparser::{
    BlockType, BrTable, CompositeInnerType, Encoding, FrameKind, FunctionBody, ModuleArity, Operator, Parser,
    Payload, SubType, TypeRef,
};

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
        let mut code = Code {
            module,
            blocks: vec![Block { is_loop: false, ty: (0, results), height: 0 }],
            locals,
            height: 0,
            loops: 0,
            taking: 0,
            machine_blocks: 0,
            steps: FUNCTION + ALIVE * locals + VALUE * (params + results),
        };
        for operator in body.get_operators_reader().map_err(malformed)? {
            code.read(&operator.map_err(malformed)?);
            // A sequence of operators can't be long enough to count further than numbers go.
            if code.steps > FUNCTION_STEPS {
                break;
            }
            at_most(&who(), code.blocks.len() as u64, "blocks in each other", NESTING)?;
            at_most(&who(), code.loops, "loops in each other", LOOPS)?;
            at_most(&who(), code.height, "values on its stack", STACK)?;
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
        too_long(&who(), code.steps, FUNCTION_STEPS)?;
        self.steps += code.steps;
        too_long("the program", self.steps, PROGRAM_STEPS)
    }
}

/// Steps of a function whatever is in it, and of a type: there is code for each that is called from outside.
const FUNCTION: u64 = 700;
const TYPE: u64 = 1200;
/// Of an instruction.
const INSTRUCTION: u64 = 20;
/// Of one that becomes many of the machine's.
const LONG: u64 = 150;
/// Of a machine's block. A compiler looks at some of those before each one: one step for so many.
const BLOCK: u64 = 60;
const BLOCKS_A_STEP: u64 = 48;
/// Machine's blocks of what becomes several: a condition, a loop (which asks whether the program may go on), access to a
/// table, and a call through one.
const CONDITION: u64 = 2;
const LOOP: u64 = 13;
const TABLE: u64 = 3;
const INDIRECT: u64 = 6;
/// Of a value that a call or a block takes or gives, and that a branch takes along.
const VALUE: u64 = 40;
/// Of a value that may be alive across a branch, and across a loop, whose value it may be in each round.
const ALIVE: u64 = 2;
const ALIVE_IN_LOOP: u64 = 110;
/// And for each loop around it.
const ALIVE_IN_OUTER_LOOP: u64 = 6;
/// Of a value that a block takes, for each such block before it.
const CARRIED: u64 = 3;
/// Of each value that may be alive where a local changes, in a block: at its end the local has two values.
const CHANGED: u64 = 8;
/// Of a target of a branch by table.
const TARGET: u64 = 15;

/// A block that is open.
struct Block {
    is_loop: bool,
    /// Parameters and results.
    ty: (u64, u64),
    /// Values on the stack below its own.
    height: u64,
}

impl Block {
    /// Values that a branch to it takes along.
    fn label(&self) -> u64 {
        if self.is_loop { self.ty.0 } else { self.ty.1 }
    }
}

/// A function's code that is being read.
struct Code<'a> {
    module: &'a Module,
    blocks: Vec<Block>,
    locals: u64,
    /// Values on the stack.
    height: u64,
    /// Loops that are open.
    loops: u64,
    /// Blocks so far that take values.
    taking: u64,
    /// The machine's blocks so far.
    machine_blocks: u64,
    steps: u64,
}

impl Code<'_> {
    fn floor(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.height)
    }

    fn pop(&mut self, values: u64) {
        // Behind a branch that is always taken there may be fewer.
        self.height = self.height.saturating_sub(values).max(self.floor());
    }

    fn push(&mut self, values: u64) {
        self.height += values;
    }

    /// What may be alive across a branch.
    fn alive(&self) -> u64 {
        self.locals + self.height
    }

    /// So many of the machine's blocks.
    fn blocks(&mut self, blocks: u64) {
        self.machine_blocks += blocks;
        self.steps += blocks * (BLOCK + self.machine_blocks / BLOCKS_A_STEP);
    }

    fn open(&mut self, ty: BlockType, is_loop: bool) {
        let ty = self.module.block(ty);
        self.pop(ty.0);
        self.blocks.push(Block { is_loop, ty, height: self.height });
        self.push(ty.0);
        self.loops += u64::from(is_loop);
        self.blocks(if is_loop { LOOP } else { 1 });
        // A compiler carries these along from each such block to all that come after it.
        self.taking += u64::from(ty.0 > 0);
        self.steps += CARRIED * ty.0 * self.taking;
        let alive = if is_loop { ALIVE_IN_LOOP + ALIVE_IN_OUTER_LOOP * self.loops } else { ALIVE };
        self.steps += VALUE * (ty.0 + ty.1) + alive * self.alive();
    }

    fn label(&self, depth: u32) -> u64 {
        let index = (self.blocks.len() - 1).checked_sub(depth as usize);
        index.and_then(|index| self.blocks.get(index)).map_or(0, Block::label)
    }

    fn branch(&mut self, values: u64) {
        self.blocks(1);
        self.steps += VALUE * values + ALIVE * self.alive();
    }

    /// What comes next is reached by other ways alone.
    fn leave(&mut self) {
        self.height = self.floor();
    }

    fn table(&mut self, targets: &BrTable<'_>) {
        let mut values = self.label(targets.default());
        for target in targets.targets().map_while(Result::ok) {
            values += self.label(target);
        }
        self.steps += TARGET * u64::from(targets.len());
        self.branch(values);
    }

    fn call(&mut self, (params, results): (u64, u64)) {
        self.pop(params);
        self.push(results);
        self.steps += LONG + VALUE * (params + results);
    }

    fn read(&mut self, operator: &Operator<'_>) {
        use Operator as O;
        match operator {
            O::Block { blockty } => self.open(*blockty, false),
            O::Loop { blockty } => self.open(*blockty, true),
            O::If { blockty } => {
                self.pop(1);
                self.blocks(CONDITION - 1);
                self.open(*blockty, false);
            }
            O::TryTable { try_table } => {
                self.open(try_table.ty, false);
                self.blocks(try_table.catches.len() as u64);
            }
            O::Else => {
                let params = self.blocks.last().map_or(0, |block| block.ty.0);
                self.height = self.floor() + params;
                self.branch(params);
            }
            O::End => {
                if let Some(block) = self.blocks.pop() {
                    self.height = block.height + block.ty.1;
                    self.loops -= u64::from(block.is_loop);
                }
                self.steps += INSTRUCTION;
            }
            O::Br { relative_depth } => {
                self.branch(self.label(*relative_depth));
                self.leave();
            }
            O::BrIf { relative_depth } => {
                self.pop(1);
                self.branch(self.label(*relative_depth));
            }
            O::BrOnNull { relative_depth } | O::BrOnNonNull { relative_depth } => {
                self.branch(self.label(*relative_depth));
            }
            O::BrTable { targets } => {
                self.pop(1);
                self.table(targets);
                self.leave();
            }
            O::Return => {
                let results = self.blocks.first().map_or(0, |block| block.ty.1);
                self.branch(results);
                self.leave();
            }
            O::Unreachable | O::ThrowRef | O::Rethrow { .. } => {
                self.blocks(1);
                self.leave();
            }
            O::Throw { tag_index } => {
                let tag = self.module.tags.get(*tag_index as usize).copied().unwrap_or(u32::MAX);
                self.call(self.module.arity(tag));
                self.leave();
            }
            O::Call { function_index } | O::ReturnCall { function_index } => {
                let ty = self.module.functions.get(*function_index as usize).copied().unwrap_or(u32::MAX);
                self.call(self.module.arity(ty));
                if matches!(operator, O::ReturnCall { .. }) {
                    self.leave();
                }
            }
            O::CallIndirect { type_index, .. } | O::CallRef { type_index } => {
                self.pop(1);
                self.call(self.module.arity(*type_index));
                self.blocks(INDIRECT);
            }
            O::ReturnCallIndirect { type_index, .. } | O::ReturnCallRef { type_index } => {
                self.pop(1);
                self.call(self.module.arity(*type_index));
                self.blocks(INDIRECT);
                self.leave();
            }
            O::LocalSet { .. } | O::LocalTee { .. } => {
                self.pop(u64::from(matches!(operator, O::LocalSet { .. })));
                self.steps += INSTRUCTION;
                if self.blocks.len() > 1 {
                    self.steps += CHANGED * self.alive();
                }
            }
            other => {
                let (takes, gives) = other.operator_arity(&Nothing).unwrap_or_default();
                self.pop(takes.into());
                self.push(gives.into());
                self.steps += if is_short(other) { INSTRUCTION } else { LONG };
                if matches!(other, O::TableGet { .. } | O::TableSet { .. }) {
                    self.blocks(TABLE);
                }
            }
        }
    }
}

/// Instructions that become one or two of the machine's. Of all others some become dozens.
fn is_short(operator: &Operator<'_>) -> bool {
    use Operator as O;
    #[rustfmt::skip]
    let short = matches!(
        operator,
        O::Nop | O::Drop | O::Select | O::LocalGet { .. } | O::GlobalGet { .. }
            | O::GlobalSet { .. } | O::I32Const { .. } | O::I64Const { .. } | O::F32Const { .. } | O::F64Const { .. } | O::I32Eqz
            | O::I32Eq | O::I32Ne | O::I32LtS | O::I32LtU | O::I32GtS | O::I32GtU | O::I32LeS | O::I32LeU | O::I32GeS | O::I32GeU
            | O::I64Eqz | O::I64Eq | O::I64Ne | O::I64LtS | O::I64LtU | O::I64GtS | O::I64GtU | O::I64LeS | O::I64LeU | O::I64GeS
            | O::I64GeU | O::I32Add | O::I32Sub | O::I32Mul | O::I32And | O::I32Or | O::I32Xor | O::I32Shl | O::I32ShrS | O::I32ShrU
            | O::I32Rotl | O::I32Rotr | O::I64Add | O::I64Sub | O::I64Mul | O::I64And | O::I64Or | O::I64Xor | O::I64Shl | O::I64ShrS
            | O::I64ShrU | O::I64Rotl | O::I64Rotr | O::I32WrapI64 | O::I64ExtendI32S | O::I64ExtendI32U | O::I32Load { .. }
            | O::I64Load { .. } | O::F32Load { .. } | O::F64Load { .. } | O::I32Load8S { .. } | O::I32Load8U { .. }
            | O::I32Load16S { .. } | O::I32Load16U { .. } | O::I64Load8S { .. } | O::I64Load8U { .. } | O::I64Load16S { .. }
            | O::I64Load16U { .. } | O::I64Load32S { .. } | O::I64Load32U { .. } | O::I32Store { .. } | O::I64Store { .. }
            | O::F32Store { .. } | O::F64Store { .. } | O::I32Store8 { .. } | O::I32Store16 { .. } | O::I64Store8 { .. }
            | O::I64Store16 { .. } | O::I64Store32 { .. } | O::F64Add | O::F64Sub | O::F64Mul | O::F64Div | O::F32Add | O::F32Sub
            | O::F32Mul | O::F32Div
    );
    short
}

/// For the arity of instructions that need no module to tell.
struct Nothing;

impl ModuleArity for Nothing {
    fn sub_type_at(&self, _: u32) -> Option<&SubType> {
        None
    }

    fn tag_type_arity(&self, _: u32) -> Option<(u32, u32)> {
        None
    }

    fn type_index_of_function(&self, _: u32) -> Option<u32> {
        None
    }

    fn func_type_of_cont_type(&self, _: &wasmparser::ContType) -> Option<&wasmparser::FuncType> {
        None
    }

    fn sub_type_of_ref_type(&self, _: &wasmparser::RefType) -> Option<&SubType> {
        None
    }

    fn control_stack_height(&self) -> u32 {
        0
    }

    fn label_block(&self, _: u32) -> Option<(BlockType, FrameKind)> {
        None
    }
}

#[cfg(test)]
#[allow(dead_code, unreachable_pub, reason = "the other tests use the rest")]
#[path = "../tests/hostile/worst.rs"]
mod worst;

#[cfg(test)]
#[allow(dead_code, unreachable_pub, reason = "the other tests use the rest")]
#[path = "../../../tests/hostile/src/status.rs"]
mod status;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::status::{peak, resident};
    use super::worst::{KINDS, Worst};
    use super::*;

    /// The largest of a kind that passes.
    fn largest(kind: &Worst) -> Vec<u8> {
        let (mut low, mut high) = (1, 2_000_000);
        while high - low > 1 + low / 50 {
            let middle = if high > 4 * low { 2 * low } else { (low + high) / 2 };
            match check(&kind.module(middle)) {
                Ok(_) => low = middle,
                Err(_) => high = middle,
            }
        }
        kind.module(low)
    }

    #[test]
    fn what_takes_a_compiler_long_is_refused_by_name() {
        for (kind, size, words) in [
            (Worst { kind: "loops", width: 0 }, 5000, "loops in each other; it may have 200"),
            (Worst { kind: "blocks", width: 0 }, 5000, "blocks in each other; it may have 2000"),
            (Worst { kind: "live", width: 49_000 }, 1000, "locals; it may have 10000"),
            (Worst { kind: "live_stack", width: 49_000 }, 1000, "values on its stack; it may have 10000"),
            (Worst { kind: "live", width: 9_000 }, 3000, "steps"),
            (Worst { kind: "results", width: 1000 }, 900, "steps"),
            (Worst { kind: "params", width: 1000 }, 4000, "steps"),
            (Worst { kind: "block_params", width: 100 }, 1000, "steps"),
            (Worst { kind: "loops_locals", width: 2000 }, 150, "steps"),
            (Worst { kind: "ifs_use", width: 100 }, 1000, "steps"),
            (Worst { kind: "call_indirect", width: 0 }, 100_000, "steps"),
            (Worst { kind: "straight", width: 0 }, 1_100_000, "bytes of code; it may have 1048576"),
            (Worst { kind: "tiny", width: 0 }, 900_000, "functions; it may have 100000"),
            (Worst { kind: "types", width: 0 }, 30_000, "types; it may have 20000"),
            (Worst { kind: "imports", width: 0 }, 30_000, "imports; it may have 10000"),
            (Worst { kind: "exports", width: 0 }, 200_000, "exports; it may have 100000"),
            (Worst { kind: "elements", width: 1 }, 60_000, "segments"),
            (Worst { kind: "elements", width: 10_000 }, 200, "entries of tables; it may have 1000000"),
            (Worst { kind: "datas", width: 1 }, 60_000, "segments"),
            (Worst { kind: "many_globals", width: 0 }, 30_000, "globals; it may have 20000"),
        ] {
            let error = check(&kind.module(size)).expect_err(kind.kind);
            assert_eq!(error.kind(), ErrorKind::InvalidProgram);
            assert!(error.message().contains(words), "{}: {error}", kind.kind);
        }
        // Many functions of which each passes.
        let most = Worst { kind: "ifs", width: 0 };
        let function = (1..).map(|k| k * 10_000).take_while(|&size| check(&most.module(size)).is_ok()).last();
        let error = check(&most.functions(function.expect("one"), 100)).unwrap_err();
        assert!(error.message().contains("the program would take too long"), "{error}");
    }

    #[test]
    fn tags_items_of_components_and_all_code_together_are_counted() {
        let refused = |wasm: &[u8], words: &str| {
            let error = check(wasm).expect_err(words);
            assert!(error.kind() == ErrorKind::InvalidProgram && error.message().contains(words), "{error}");
        };
        // Sections that say how many they have: what comes after that is not read any more.
        let sections = |header: &[u8; 8], ids: &[u8], count: &[u8]| {
            let mut wasm = header.to_vec();
            for &id in ids {
                wasm.extend([id, count.len() as u8]);
                wasm.extend(count);
            }
            wasm
        };
        let (module, component) = (b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0");
        refused(&sections(module, &[13], &[0xe9, 0x07]), "1001 tags; it may have 1000");
        // Core types, aliases, types, functions that are lifted or lowered, imports and exports.
        let items = "50001 types, aliases, imports and exports of components; it may have 50000";
        for id in [3, 6, 7, 8, 10, 11] {
            refused(&sections(component, &[id], &[0xd1, 0x86, 0x03]), items);
        }
        // 30000 and 30000.
        refused(&sections(component, &[7, 11], &[0xb0, 0xea, 0x01]), "60000 types, aliases");
        let code = Worst { kind: "straight", width: 0 }.functions(1_000_000, 34);
        refused(&code, "bytes of code; it may have 33554432");
    }

    /// As many functions as JavaScript engines have, some of them interpreters' loops of 100 KB, and the programs that were built.
    #[test]
    fn what_real_programs_have_passes() {
        let engine = worst::realistic(20_000, 9 << 20);
        assert!(check(&engine).is_ok());
        let target = std::env::var_os("CARGO_TARGET_DIR").map(std::path::PathBuf::from);
        let target = target.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../target").into());
        let Ok(programs) = std::fs::read_dir(target.join("programs")) else { return };
        for program in programs.flatten().map(|entry| entry.path()) {
            if program.extension().is_some_and(|extension| extension == "wasm") {
                let checked = check(&std::fs::read(&program).unwrap());
                assert!(checked.is_ok_and(|steps| steps < PROGRAM_STEPS / 2), "{}", program.display());
            }
        }
    }

    /// Prints what the worst modules of each kind that pass take.
    #[test]
    fn any_module_that_passes_compiles_in_bounded_time() {
        let long = std::env::var_os("REALM_LONG").is_some();
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true).wasm_memory64(true).parallel_compilation(false);
        let engine = wasmtime::Engine::new(&config).unwrap();
        println!("{:16} {:>6} {:>10} {:>8} {:>8}", "kind", "width", "bytes", "seconds", "MiB");
        // Without the variable a few of those that no longer ended.
        for kind in KINDS.iter().filter(|kind| long || ["loops", "block_params"].contains(&kind.kind)) {
            let module = largest(kind);
            // From here on the peak counts anew, where that can be had.
            let _ = std::fs::write("/proc/self/clear_refs", "5");
            let (began, before) = (Instant::now(), resident() >> 20);
            let compiled = wasmtime::Module::new(&engine, &module);
            let (took, peak) = (began.elapsed().as_secs_f64(), (peak() >> 20).saturating_sub(before));
            println!("{:16} {:>6} {:>10} {took:>8.2} {peak:>8}", kind.kind, kind.width, module.len());
            assert!(compiled.is_ok(), "{}: {:?}", kind.kind, compiled.err());
            assert!(peak < 1024, "{}: {peak} MiB", kind.kind);
        }
    }
}
