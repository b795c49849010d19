//! Modules that are as hard to compile as their size allows, one kind for each construct that a compiler may
//! be slow at.

/// A core module under construction.
#[derive(Default)]
struct Module {
    types: Vec<Vec<u8>>,
    imports: Vec<Vec<u8>>,
    functions: Vec<(u32, Vec<u8>)>,
    globals: Vec<Vec<u8>>,
    exports: Vec<Vec<u8>>,
    elements: Vec<Vec<u8>>,
    data: Vec<Vec<u8>>,
}

const I32: u8 = 0x7f;
const I64: u8 = 0x7e;
const F64: u8 = 0x7c;
const V128: u8 = 0x7b;

fn leb(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn vec_of(items: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = leb(items.len() as u64);
    items.iter().for_each(|item| bytes.extend(item));
    bytes
}

impl Module {
    /// Adds a function's type; returns its index.
    fn ty(&mut self, params: &[u8], results: &[u8]) -> u32 {
        let mut bytes = vec![0x60];
        bytes.extend(leb(params.len() as u64));
        bytes.extend(params);
        bytes.extend(leb(results.len() as u64));
        bytes.extend(results);
        self.types.push(bytes);
        self.types.len() as u32 - 1
    }

    /// Adds a function with the given number of locals of each type; its body needs no `end`.
    fn function(&mut self, ty: u32, locals: &[(u32, u8)], body: &[u8]) {
        let mut bytes = leb(locals.len() as u64);
        for &(count, ty) in locals {
            bytes.extend(leb(count.into()));
            bytes.push(ty);
        }
        bytes.extend(body);
        bytes.push(0x0b);
        let mut whole = leb(bytes.len() as u64);
        whole.extend(bytes);
        self.functions.push((ty, whole));
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        let mut section = |id: u8, content: Vec<u8>| {
            bytes.push(id);
            bytes.extend(leb(content.len() as u64));
            bytes.extend(content);
        };
        section(1, vec_of(&self.types));
        if !self.imports.is_empty() {
            section(2, vec_of(&self.imports));
        }
        section(3, vec_of(&self.functions.iter().map(|(ty, _)| leb((*ty).into())).collect::<Vec<_>>()));
        section(4, vec![1, 0x70, 0, 100]);
        section(5, vec![1, 0, 1]);
        if !self.globals.is_empty() {
            section(6, vec_of(&self.globals));
        }
        if !self.exports.is_empty() {
            section(7, vec_of(&self.exports));
        }
        if !self.elements.is_empty() {
            section(9, vec_of(&self.elements));
        }
        if !self.data.is_empty() {
            section(12, leb(self.data.len() as u64));
        }
        section(10, vec_of(&self.functions.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>()));
        if !self.data.is_empty() {
            section(11, vec_of(&self.data));
        }
        bytes
    }
}

fn get(local: u32) -> Vec<u8> {
    [vec![0x20], leb(local.into())].concat()
}
fn set(local: u32) -> Vec<u8> {
    [vec![0x21], leb(local.into())].concat()
}

/// A kind of module, and its width: the number of items in each of its constructs.
#[derive(Debug, Clone, Copy)]
pub struct Worst {
    pub kind: &'static str,
    pub width: u32,
}

const fn kind(kind: &'static str, width: u32) -> Worst {
    Worst { kind, width }
}

/// The kinds, with the widths at which they were worst.
pub const KINDS: &[Worst] = &[
    kind("straight", 0),
    kind("loads64", 0),
    kind("call", 0),
    kind("call_indirect", 0),
    kind("simd", 0),
    kind("trunc", 0),
    kind("divide", 0),
    kind("bulk", 0),
    kind("tables", 0),
    kind("ifs", 0),
    kind("ifs_use", 50),
    kind("ifs_use", 400),
    kind("loops", 0),
    kind("loops_locals", 100),
    kind("loops_locals", 2000),
    kind("loops_use", 100),
    kind("loops_live", 300),
    kind("loops_live", 3000),
    kind("many_loops", 0),
    kind("blocks", 0),
    kind("block_params", 100),
    kind("block_params", 1000),
    kind("br_tables", 100),
    kind("br_table_wide", 500),
    kind("br_values", 1000),
    kind("br_table_values", 1000),
    kind("live", 1000),
    kind("live", 9000),
    kind("live_stack", 3000),
    kind("results", 100),
    kind("results", 1000),
    kind("params", 1000),
    kind("interpreter", 200),
    kind("interpreter", 2000),
    kind("tiny", 0),
    kind("types", 0),
    kind("imports", 0),
    kind("exports", 0),
    kind("elements", 10),
    kind("datas", 10),
    kind("many_globals", 0),
];

impl Worst {
    /// A module with one function of `size` bytes or constructs.
    pub fn module(&self, size: usize) -> Vec<u8> {
        make(self.kind, size, self.width, 1)
    }

    /// The same with that function `functions` times.
    pub fn functions(&self, size: usize, functions: u32) -> Vec<u8> {
        make(self.kind, size, self.width, functions)
    }
}

/// A module as large as the engine of a language: functions that branch, loop, load and call each other, and
/// a few interpreter loops of some 100 KB.
pub fn realistic(functions: u32, bytes: usize) -> Vec<u8> {
    let mut m = Module::default();
    let none = m.ty(&[], &[]);
    let each = bytes / functions as usize;
    let body = repeated(each, |i| {
        let (x, y) = (i % 12, (i * 5 + 3) % 12);
        // Every tenth block is a loop.
        let inner = if i % 10 == 0 { 0x03 } else { 0x02 };
        [
            vec![0x02, 0x40, inner, 0x40, 0x20, x as u8, 0x28, 2, 8, 0x20, y as u8, 0x6a, 0x21, x as u8],
            vec![0x20, y as u8, 0x45, 0x0d, 1, 0x10, (i % 100) as u8, 0x20, x as u8, 0x0d, 0, 0x0b, 0x0b],
        ]
        .concat()
    });
    for _ in 0..functions {
        m.function(none, &[(12, I32)], &body);
    }
    let loops = interpreter(1500, 60);
    for _ in 0..4 {
        m.function(none, &[(62, I32)], &loops);
    }
    m.encode()
}

/// A loop with a table of `cases` cases, each of which changes some of `width` locals.
fn interpreter(cases: usize, width: u32) -> Vec<u8> {
    let mut b = vec![0x03, 0x40];
    for _ in 0..=cases {
        b.extend([0x02, 0x40]);
    }
    b.extend([0x20, 0, 0x28, 2, 0, 0x0e]);
    b.extend(leb(cases as u64));
    for i in 0..=cases {
        b.extend(leb(i as u64));
    }
    for i in 0..=cases {
        b.push(0x0b);
        for k in 0..4 {
            let (x, y) = ((i as u32 * 7 + k) % width, (i as u32 * 3 + k * 11) % width);
            b.extend(get(x));
            b.extend([0x28, 2, 0]);
            b.extend(get(y));
            b.push(0x6a);
            b.extend(set(x));
            b.extend(get(y));
            b.extend([0x04, 0x40, 0x10, 0, 0x0b]);
        }
        b.push(0x0c);
        b.extend(leb((cases - i) as u64));
    }
    b.push(0x0b);
    b
}

/// Repeats a body inside one function until it has `size` bytes.
fn repeated(size: usize, mut piece: impl FnMut(u32) -> Vec<u8>) -> Vec<u8> {
    let mut body = Vec::with_capacity(size + 64);
    let mut i = 0;
    while body.len() < size {
        body.extend(piece(i));
        i += 1;
    }
    body
}

/// Makes one module of a kind: `size` bytes or constructs, each with `width` items.
#[allow(clippy::too_many_lines, reason = "a table")]
fn make(kind: &str, size: usize, width: u32, functions: u32) -> Vec<u8> {
    let mut m = Module::default();
    let none = m.ty(&[], &[]);
    let one = m.ty(&[], &[I32]);
    let body: Vec<u8>;
    let mut locals: Vec<(u32, u8)> = vec![(2, I32), (2, I64), (2, F64), (2, V128)];
    match kind {
        "straight" => body = repeated(size, |i| [get(0), vec![0x41, (i % 64) as u8, 0x6a], set(0)].concat()),
        "loads64" => body = repeated(size, |_| vec![0x20, 0, 0x28, 2, 0, 0x21, 0]),
        "call" => body = repeated(size, |_| vec![0x10, 0]),
        "call_indirect" => body = repeated(size, |_| vec![0x20, 0, 0x11, 0, 0]),
        // i64x2.mul, i8x16.shl, f64x2.convert
        "simd" => {
            body = repeated(size, |_| {
                vec![0x20, 6, 0x20, 7, 0xfd, 0xd5, 0x01, 0x20, 0, 0xfd, 0x6b, 0xfd, 0xf8, 0x01, 0x21, 6]
            })
        }
        "trunc" => body = repeated(size, |_| vec![0x20, 4, 0xb1, 0xb9, 0xfc, 7, 0xba, 0x21, 4]),
        "divide" => body = repeated(size, |_| vec![0x20, 0, 0x20, 0, 0x6d, 0x20, 0, 0x6f, 0x21, 0]),
        "bulk" => body = repeated(size, |_| vec![0x20, 0, 0x20, 0, 0x20, 0, 0xfc, 10, 0, 0]),
        "tables" => body = repeated(size, |_| vec![0x20, 0, 0x20, 0, 0x25, 0, 0x26, 0]),
        "ifs" => body = repeated(size, |_| vec![0x20, 0, 0x04, 0x40, 0x0b]),
        // `size` nested loops with a branch to each.
        "loops" => {
            let mut b = Vec::new();
            for _ in 0..size {
                b.extend([0x03, 0x40]);
            }
            for i in 0..size {
                b.extend([0x20, 0]);
                b.push(0x0d);
                b.extend(leb(i as u64));
            }
            b.extend(vec![0x0b; size]);
            body = b;
        }
        // The same, with `width` locals that are used in the innermost.
        "loops_locals" => {
            locals = vec![(width.max(1), I32)];
            let mut b = Vec::new();
            for _ in 0..size {
                b.extend([0x03, 0x40]);
            }
            for i in 0..width {
                b.extend(get(i));
                b.extend([0x41, 1, 0x6a]);
                b.extend(set(i));
            }
            for i in 0..size {
                b.extend([0x20, 0]);
                b.push(0x0d);
                b.extend(leb(i as u64));
            }
            b.extend(vec![0x0b; size]);
            body = b;
        }
        // `size` loops or conditions one after the other, in each of which `width` locals change.
        "loops_use" | "ifs_use" | "ifs_get" => {
            locals = vec![(width.max(1), I32)];
            let mut b = Vec::new();
            for i in 0..width {
                b.extend([0x10, 0]);
                b.extend(set(i));
            }
            for _ in 0..size {
                if kind == "loops_use" {
                    b.extend([0x03, 0x40]);
                } else {
                    b.extend([0x10, 0, 0x04, 0x40]);
                }
                for i in 0..width {
                    if kind == "ifs_get" {
                        b.extend([0x10, 0, 0x1a])
                    } else {
                        b.extend([0x10, 0]);
                        b.extend(set(i));
                    }
                }
                if kind == "loops_use" {
                    b.extend([0x10, 0, 0x0d, 0]);
                }
                b.push(0x0b);
            }
            for i in 1..width {
                b.extend(get(i));
                b.extend(get(0));
                b.push(0x6a);
                b.extend(set(0));
            }
            m.function(one, &[], &[0x41, 0]);
            body = b;
        }
        "blocks" => {
            let mut b = Vec::new();
            for _ in 0..size {
                b.extend([0x02, 0x40]);
            }
            for i in 0..size {
                b.extend([0x20, 0]);
                b.push(0x0d);
                b.extend(leb(i as u64));
            }
            b.extend(vec![0x0b; size]);
            body = b;
        }
        // Many tables of `width` targets, `size` bytes.
        "br_tables" => {
            body = repeated(size, |_| {
                let mut b = vec![0x02, 0x40, 0x20, 0, 0x0e];
                b.extend(leb(width.into()));
                b.extend(vec![0; width as usize + 1]);
                b.push(0x0b);
                b
            })
        }
        // Tables whose targets are all different.
        "br_table_wide" => {
            let mut b = Vec::new();
            for _ in 0..width {
                b.extend([0x02, 0x40]);
            }
            b.extend(repeated(size, |_| {
                let mut b = vec![0x02, 0x40, 0x20, 0, 0x0e];
                b.extend(leb(width.into()));
                for i in 0..=width {
                    b.extend(leb(i.into()));
                }
                b.push(0x0b);
                b
            }));
            b.extend(vec![0x0b; width as usize]);
            body = b;
        }
        // `width` locals, each with the result of a call, then `size` branches, then a use of each local.
        "live" | "live_if" | "loops_live" => {
            locals = vec![(width + 1, I32)];
            let mut b = Vec::new();
            for i in 0..width {
                b.extend([0x10, 0]);
                b.extend(set(i));
            }
            for _ in 0..size {
                b.extend(match kind {
                    "live_if" => vec![0x10, 0, 0x04, 0x40, 0x10, 0, 0x1a, 0x0b],
                    "loops_live" => vec![0x03, 0x40, 0x10, 0, 0x0d, 0, 0x0b],
                    _ => vec![0x02, 0x40, 0x10, 0, 0x0d, 0, 0x0b],
                });
            }
            for i in 0..width {
                b.extend(get(i));
                b.extend(get(width));
                b.push(0x6a);
                b.extend(set(width));
            }
            m.function(one, &[], &[0x41, 0]);
            body = b;
        }
        "live_stack" => {
            let mut b = Vec::new();
            for _ in 0..width {
                b.extend([0x10, 0]);
            }
            for _ in 0..size {
                b.extend([0x02, 0x40, 0x10, 0, 0x0d, 0, 0x0b]);
            }
            b.extend(std::iter::repeat_n(0x6a, width as usize - 1));
            b.push(0x1a);
            m.function(one, &[], &[0x41, 0]);
            body = b;
        }
        // `size` calls with `width` results.
        "results" => {
            let many = m.ty(&[], &vec![I32; width as usize]);
            m.function(many, &[], &[0x41, 0].repeat(width as usize));
            let mut b = Vec::new();
            for _ in 0..size {
                b.extend([0x10, 0]);
                b.extend(vec![0x1a; width as usize]);
            }
            body = b;
        }
        "params" => {
            let many = m.ty(&vec![I32; width as usize], &vec![I32; width as usize]);
            let mut own = Vec::new();
            for i in 0..width {
                own.extend(get(i));
            }
            m.function(many, &[], &own);
            let mut b = Vec::new();
            for _ in 0..width {
                b.extend([0x41, 0]);
            }
            for _ in 0..size {
                b.extend([0x10, 0]);
            }
            b.extend(vec![0x1a; width as usize]);
            body = b;
        }
        // `size` blocks with `width` parameters and results, one after the other.
        "block_params" => {
            let many = m.ty(&vec![I32; width as usize], &vec![I32; width as usize]);
            let mut b = Vec::new();
            for _ in 0..width {
                b.extend([0x41, 0]);
            }
            for _ in 0..size {
                b.push(0x03);
                b.extend(leb(many.into()));
                b.extend([0x20, 0, 0x0d, 0, 0x0b]);
            }
            b.extend(vec![0x1a; width as usize]);
            body = b;
        }
        "br_values" => {
            let many = m.ty(&[], &vec![I32; width as usize]);
            let mut b = vec![0x02];
            b.extend(leb(many.into()));
            for _ in 0..width {
                b.extend([0x41, 0]);
            }
            for _ in 0..size {
                b.extend([0x20, 0, 0x0d, 0]);
            }
            b.push(0x0b);
            b.extend(vec![0x1a; width as usize]);
            body = b;
        }
        "br_table_values" => {
            let many = m.ty(&[], &vec![I32; width as usize]);
            let mut b = vec![0x02];
            b.extend(leb(many.into()));
            for _ in 0..width {
                b.extend([0x41, 0]);
            }
            b.extend([0x20, 0, 0x0e]);
            b.extend(leb(size as u64));
            b.extend(vec![0; size + 1]);
            b.push(0x0b);
            b.extend(vec![0x1a; width as usize]);
            body = b;
        }
        "tiny" => {
            for _ in 0..size {
                m.function(none, &[], &[]);
            }
            body = Vec::new();
        }
        "types" => {
            for i in 0..size {
                let mut p = vec![I32; 1 + i % 20];
                for (k, b) in p.iter_mut().enumerate() {
                    if (i / 20) >> k & 1 == 1 {
                        *b = I64;
                    }
                }
                m.ty(&p, &[]);
            }
            body = Vec::new();
        }
        "imports" => {
            for _ in 0..size {
                m.imports.push([vec![1, b'a', 1, b'b', 0], leb(none.into())].concat());
            }
            body = Vec::new();
        }
        "exports" => {
            m.function(none, &[], &[]);
            for i in 0..size {
                let name = format!("{i:x}");
                m.exports.push([leb(name.len() as u64), name.into_bytes(), vec![0, 0]].concat());
            }
            body = Vec::new();
        }
        // Segments of `width` elements.
        "elements" => {
            m.function(none, &[], &[]);
            for _ in 0..size {
                let mut e = vec![0, 0x41, 0, 0x0b];
                e.extend(leb(width.into()));
                e.extend(vec![0; width as usize]);
                m.elements.push(e);
            }
            body = Vec::new();
        }
        "datas" => {
            for _ in 0..size {
                let mut d = vec![0, 0x41, 0, 0x0b];
                d.extend(leb(width.into()));
                d.extend(vec![1; width as usize]);
                m.data.push(d);
            }
            body = Vec::new();
        }
        "many_globals" => {
            for _ in 0..size {
                m.globals.push(vec![I32, 1, 0x41, 0, 0x0b]);
            }
            body = Vec::new();
        }
        "many_loops" => {
            let mut b = Vec::new();
            for _ in 0..size {
                b.extend([0x03, 0x40, 0x20, 0, 0x0d, 0, 0x0b]);
            }
            body = b;
        }
        "interpreter" => {
            locals = vec![(width + 2, I32)];
            body = interpreter(size, width);
        }
        _ => panic!("no kind {kind}"),
    }
    for _ in 0..functions {
        m.function(none, &locals, &body);
    }
    m.encode()
}
