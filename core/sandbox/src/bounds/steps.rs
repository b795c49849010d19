//! The steps that compiling one function takes, instruction by instruction.

use wasmparser::{BlockType, BrTable, FrameKind, ModuleArity, Operator, SubType};

use super::Module;

/// The steps of any function, and of a type: each type called from outside has code of its own.
const FUNCTION: u64 = 700;
pub(super) const TYPE: u64 = 1200;
/// The steps of an instruction.
const INSTRUCTION: u64 = 20;
/// The steps of an instruction that becomes many machine instructions.
const LONG: u64 = 150;
/// The steps of a machine block. Before each one, a compiler looks at some of the earlier ones: one step for
/// this many.
const BLOCK: u64 = 60;
const BLOCKS_A_STEP: u64 = 48;
/// The machine blocks of an instruction that becomes several: a condition, a loop (which checks whether the
/// program may continue), access to a table, and a call through one.
const CONDITION: u64 = 2;
const LOOP: u64 = 13;
const TABLE: u64 = 3;
const INDIRECT: u64 = 6;
/// The steps of a value that a call or a block takes or returns, and that a branch carries.
pub(super) const VALUE: u64 = 40;
/// The steps of a value that may be alive across a branch, and across a loop, which may change it in each
/// round.
const ALIVE: u64 = 2;
const ALIVE_IN_LOOP: u64 = 110;
/// The further steps of such a value for each loop around the loop.
const ALIVE_IN_OUTER_LOOP: u64 = 6;
/// The steps of a value that a block takes, for each such block before it.
const CARRIED: u64 = 3;
/// The steps of each value that may be alive when a local changes inside a block: at the block's end the
/// local has two values.
const CHANGED: u64 = 8;
/// The steps of a target of a branch by table.
const TARGET: u64 = 15;

/// An open block.
struct Block {
    is_loop: bool,
    /// The numbers of its parameters and results.
    ty: (u64, u64),
    /// The number of values on the stack below its own.
    height: u64,
}

impl Block {
    /// Returns the number of values that a branch to it carries.
    fn label(&self) -> u64 {
        if self.is_loop { self.ty.0 } else { self.ty.1 }
    }
}

/// A function's code being read.
pub(super) struct Code<'a> {
    module: &'a Module,
    blocks: Vec<Block>,
    locals: u64,
    /// The number of values on the stack.
    height: u64,
    /// The number of open loops.
    loops: u64,
    /// The number of blocks so far that take values.
    taking: u64,
    /// The number of machine blocks so far.
    machine_blocks: u64,
    steps: u64,
}

impl<'a> Code<'a> {
    /// Starts a function with `locals` locals, including its parameters.
    pub(super) fn new(module: &'a Module, locals: u64, params: u64, results: u64) -> Self {
        Self {
            module,
            blocks: vec![Block { is_loop: false, ty: (0, results), height: 0 }],
            locals,
            height: 0,
            loops: 0,
            taking: 0,
            machine_blocks: 0,
            steps: FUNCTION + ALIVE * locals + VALUE * (params + results),
        }
    }

    /// Returns the steps of the code read so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns the number of values on the stack.
    pub(super) fn height(&self) -> u64 {
        self.height
    }

    /// Returns the depth of open blocks.
    pub(super) fn nesting(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Returns the depth of open loops.
    pub(super) fn loops(&self) -> u64 {
        self.loops
    }

    fn floor(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.height)
    }

    fn pop(&mut self, values: u64) {
        // After a branch that is always taken there may be fewer.
        self.height = self.height.saturating_sub(values).max(self.floor());
    }

    fn push(&mut self, values: u64) {
        self.height += values;
    }

    /// Returns the number of values that may be alive across a branch.
    fn alive(&self) -> u64 {
        self.locals + self.height
    }

    /// Counts this many machine blocks.
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
        // A compiler carries these values from each such block to all later ones.
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

    /// The code after this point is reached only by other branches.
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

    /// Counts an instruction.
    pub(super) fn read(&mut self, operator: &Operator<'_>) {
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

/// Returns whether an instruction becomes one or two machine instructions. Some of the others become dozens.
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

/// For the arity of instructions that do not depend on the module.
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
