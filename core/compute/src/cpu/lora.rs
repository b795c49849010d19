//! What adapters add to a product: `b · (a · x)` for the rows that see them.
//!
//! The inner products `a · x` (*hidden* numbers, as many as the adapter's rank) of all adapters and all matrices
//! of a call are shared out among the threads together, in the region that quantizes the input. `b` is then part of
//! the product itself: a thread that has a panel's sums adds the adapters' to them before it writes them. So
//! adapters cost no region of their own, and the base weights are read once for everybody.
//!
//! A decoding row reads all of its adapter for one multiplication a weight: what counts is bytes. Weights stay in 16
//! bits where the caller has them so, and neither the rank nor anything else is padded to a multiple of more than 4.

use std::ops::Range;

use realm_gguf::{Tensor, TensorType};

use super::aligned::{Aligned, Plain};
use super::format::PANEL;
use super::lanes::{F32x8, LANES};
use super::matrix::{FloatPanels, FloatSlice, Floats, Matrix};
use super::pool::{Parts, Pool, Share};
use super::{Buffer, CpuBackend, Isa};
use crate::{Error, Lora, LoraRow};

/// Ranks whose weights lie side by side.
const TILE: usize = 4;
/// Tiles and rows that a thread takes at a time: some 10 KB of weights for the widths of small models.
const PIECE_TILES: usize = 2;
const PIECE_ROWS: usize = 32;
/// How far ahead weights are fetched, in bytes.
const AHEAD: usize = 2048;

/// A low-rank change of a matrix.
pub struct LowRank {
    rank: usize,
    inputs: usize,
    /// `[rank / 4][inputs / 8][4][8]`, filled up with zeros.
    a: Floats,
    /// `[outputs, rank]` in panels.
    b: FloatPanels,
}

impl LowRank {
    pub(super) fn new(pool: &Pool, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<Self, Error> {
        let bad = |t: &Tensor<'_>, why: &str| {
            Error::InvalidModel(format!("tensor `{}` of shape {:?} {why}", t.info.name, t.info.shape))
        };
        let dims = |t: &Tensor<'_>| match t.info.shape[..] {
            [columns, rows] if columns > 0 && rows > 0 && t.data.len() == t.info.bytes() => {
                Ok((columns as usize, rows as usize))
            }
            _ => Err(bad(t, "is not a matrix")),
        };
        let ((inputs, rank), (columns, _)) = (dims(a)?, dims(b)?);
        if columns != rank {
            return Err(bad(b, &format!("does not fit an `a` of rank {rank}")));
        }
        let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let two = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        let tiles = match a.info.ty {
            TensorType::F32 => Floats::F32(tiles(a.data, 4, rank, inputs, four)),
            TensorType::F16 => Floats::F16(tiles(a.data, 2, rank, inputs, two)),
            TensorType::BF16 => Floats::BF16(tiles(a.data, 2, rank, inputs, two)),
            _ => return Err(bad(a, &format!("is {}, not F32, F16 or BF16", a.info.ty))),
        };
        match (b.info.ty, Matrix::new(pool, b)?) {
            (TensorType::F32 | TensorType::F16 | TensorType::BF16, Matrix::Float(b)) => {
                Ok(Self { rank, inputs, a: tiles, b })
            }
            (ty, _) => Err(bad(b, &format!("is {ty}, not F32, F16 or BF16"))),
        }
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.b.rows
    }

    fn tiles(&self) -> usize {
        self.rank.div_ceil(TILE)
    }
}

/// Lays out rows of `inputs` numbers of `bytes` bytes as [`LowRank::a`] wants them.
fn tiles<T: Plain>(
    data: &[u8],
    bytes: usize,
    rank: usize,
    inputs: usize,
    read: impl Fn(&[u8]) -> T,
) -> Aligned<T> {
    let steps = inputs.div_ceil(LANES);
    let mut out = Aligned::zeroed(rank.div_ceil(TILE) * steps * TILE * LANES);
    for (r, row) in data.chunks_exact(inputs * bytes).enumerate() {
        let first = (r / TILE * steps * TILE + r % TILE) * LANES;
        for (k, number) in row.chunks_exact(bytes).enumerate() {
            out[first + k / LANES * TILE * LANES + k % LANES] = read(number);
        }
    }
    out
}

/// The adapters of one call, with a place for everyone's hidden numbers.
pub(super) struct Plan<'a> {
    uses: Vec<Use<'a>>,
    /// The first use of each product, and the end.
    first: Vec<usize>,
    pieces: Vec<Piece>,
    numbers: usize,
}

/// One adapter in one product.
struct Use<'a> {
    lora: &'a Lora<'a, CpuBackend>,
    /// Where its hidden numbers begin, `[rows, rank]`.
    at: usize,
}

/// What a thread computes at a time.
struct Piece {
    of: usize,
    rows: Range<usize>,
    tiles: Range<usize>,
}

impl<'a> Plan<'a> {
    /// The plan for products with these adapters; `None` if there are no adapters.
    pub(super) fn new(products: impl ExactSizeIterator<Item = &'a [Lora<'a, CpuBackend>]>) -> Option<Self> {
        let mut plan = Self { uses: Vec::new(), first: vec![0], pieces: Vec::new(), numbers: 0 };
        for loras in products {
            for lora in loras.iter().filter(|l| !l.rows.is_empty()) {
                let (rows, tiles) = (lora.rows.len(), lora.pair.tiles());
                for row in (0..rows).step_by(PIECE_ROWS) {
                    plan.pieces.extend((0..tiles).step_by(PIECE_TILES).map(|tile| Piece {
                        of: plan.uses.len(),
                        rows: row..rows.min(row + PIECE_ROWS),
                        tiles: tile..tiles.min(tile + PIECE_TILES),
                    }));
                }
                plan.uses.push(Use { lora, at: plan.numbers });
                plan.numbers += rows * lora.pair.rank;
            }
            plan.first.push(plan.uses.len());
        }
        (!plan.uses.is_empty()).then_some(plan)
    }

    /// How many hidden numbers there are.
    pub(super) fn numbers(&self) -> usize {
        self.numbers
    }

    /// For sharing out [`Self::piece`]s.
    pub(super) fn share(&self) -> Share {
        Share::new(self.pieces.len(), 1)
    }

    /// Computes the hidden numbers of piece `piece` from the input `x`.
    ///
    /// # Safety
    /// `hidden` has [`Self::numbers`] numbers, and each piece is computed once while nobody reads them.
    pub(super) unsafe fn piece(&self, isa: Isa, piece: usize, x: &Buffer, hidden: &Parts<f32>) {
        let Piece { of, rows, tiles } = &self.pieces[piece];
        let Use { lora, at } = self.uses[*of];
        let rank = lora.pair.rank;
        let mut each = |tile: usize, row: usize, sums: [f32; TILE]| {
            let len = TILE.min(rank - tile * TILE);
            // SAFETY: a row's ranks of this piece are in no other one.
            let out = unsafe { hidden.part(at + row * rank + tile * TILE, len) };
            let scale = lora.scale * lora.rows[row].scale;
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = scale * sum;
            }
        };
        let job = Inner { pair: lora.pair, x, rows: lora.rows };
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these instruction sets were detected.
            Isa::Avx2 | Isa::Avx512 => unsafe { x86::inner(job, tiles.clone(), rows.clone(), &mut each) },
            _ => job.run::<Portable>(tiles.clone(), rows.clone(), &mut each),
        }
    }

    fn of(&self, product: usize) -> &[Use<'a>] {
        &self.uses[self.first[product]..self.first[product + 1]]
    }

    /// Asks for what [`Self::add`] will read of panel `panel`.
    pub(super) fn fetch(&self, product: usize, panel: usize) {
        for u in self.of(product) {
            let Lora { pair, .. } = u.lora;
            match pair.b.slice(panel, 0, pair.rank) {
                FloatSlice::F32(w) => fetch(w),
                FloatSlice::F16(w) | FloatSlice::BF16(w) => fetch(w),
            }
        }
    }

    /// Adds what the adapters of product `product` make of the hidden numbers to a panel's sums, `[rows][16]`.
    pub(super) fn add(
        &self,
        isa: Isa,
        product: usize,
        panel: usize,
        hidden: &[f32],
        acc: &mut [[f32; PANEL]],
    ) {
        let job = Outer { uses: self.of(product), panel, hidden };
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these instruction sets were detected.
            Isa::Avx2 | Isa::Avx512 => unsafe { x86::outer(job, acc) },
            _ => job.run::<Portable>(acc),
        }
    }
}

/// The inner products of an adapter with some rows.
#[derive(Clone, Copy)]
struct Inner<'a> {
    pair: &'a LowRank,
    x: &'a Buffer,
    rows: &'a [LoraRow],
}

/// Eight weights of 16 bits as floats.
trait Widen {
    fn half(w: &[u16]) -> F32x8;
}

struct Portable;

impl Widen for Portable {
    /// For finite numbers: the exponent's bias is put right by a multiplication, which is exact.
    #[inline(always)]
    fn half(w: &[u16]) -> F32x8 {
        let mut out = [0.0; LANES];
        for (out, &w) in out.iter_mut().zip(&w[..LANES]) {
            let magnitude = f32::from_bits(((w & 0x7fff) as u32) << 13) * f32::from_bits((127 + 112) << 23);
            *out = f32::from_bits(magnitude.to_bits() | ((w & 0x8000) as u32) << 16);
        }
        F32x8(out)
    }
}

impl Inner<'_> {
    /// Calls `each(tile, row, sums)` for all of `tiles` and `rows`.
    #[inline(always)]
    fn run<W: Widen>(
        self,
        tiles: Range<usize>,
        rows: Range<usize>,
        each: &mut impl FnMut(usize, usize, [f32; TILE]),
    ) {
        let len = self.pair.inputs.div_ceil(LANES) * TILE * LANES;
        match &self.pair.a {
            Floats::F32(a) => self.passes(|t| &a[t * len..][..len], F32x8::load, tiles, rows, each),
            Floats::F16(a) => self.passes(|t| &a[t * len..][..len], W::half, tiles, rows, each),
            Floats::BF16(a) => self.passes(|t| &a[t * len..][..len], bf16s, tiles, rows, each),
        }
    }

    /// Two rows of one tile at a time, or one row of two tiles: eight sums that do not wait for each other.
    #[inline(always)]
    fn passes<'t, T: Copy + 't>(
        self,
        tile: impl Fn(usize) -> &'t [T],
        load: impl Fn(&[T]) -> F32x8 + Copy,
        tiles: Range<usize>,
        rows: Range<usize>,
        each: &mut impl FnMut(usize, usize, [f32; TILE]),
    ) {
        let x = |row: usize| self.x.row(self.rows[row].row as usize);
        let pairs = rows.len() / 2;
        for t in tiles.clone() {
            for row in (0..pairs).map(|i| rows.start + 2 * i) {
                let [[a, b]] = pass([tile(t)], [x(row), x(row + 1)], load);
                each(t, row, a);
                each(t, row + 1, b);
            }
        }
        if rows.len() % 2 == 1 {
            let row = rows.end - 1;
            let mut t = tiles.start;
            while t + 2 <= tiles.end {
                let [[a], [b]] = pass([tile(t), tile(t + 1)], [x(row)], load);
                each(t, row, a);
                each(t + 1, row, b);
                t += 2;
            }
            if t < tiles.end {
                let [[a]] = pass([tile(t)], [x(row)], load);
                each(t, row, a);
            }
        }
    }
}

/// What adapters make of hidden numbers.
#[derive(Clone, Copy)]
struct Outer<'a> {
    uses: &'a [Use<'a>],
    panel: usize,
    hidden: &'a [f32],
}

impl Outer<'_> {
    #[inline(always)]
    fn run<W: Widen>(self, acc: &mut [[f32; PANEL]]) {
        for u in self.uses {
            let Lora { pair, rows, .. } = u.lora;
            let hidden = &self.hidden[u.at..][..rows.len() * pair.rank];
            match pair.b.slice(self.panel, 0, pair.rank) {
                FloatSlice::F32(w) => add_rows(w, F32x8::load, pair.rank, rows, hidden, acc),
                FloatSlice::F16(w) => add_rows(w, W::half, pair.rank, rows, hidden, acc),
                FloatSlice::BF16(w) => add_rows(w, bf16s, pair.rank, rows, hidden, acc),
            }
        }
    }
}

/// `acc[row] += w · hidden` for `rows`, four at a time while there are so many.
#[inline(always)]
fn add_rows<T: Copy>(
    w: &[T],
    load: impl Fn(&[T]) -> F32x8 + Copy,
    rank: usize,
    rows: &[LoraRow],
    hidden: &[f32],
    acc: &mut [[f32; PANEL]],
) {
    let mut i = 0;
    while i < rows.len() {
        let (rows, hidden) = (&rows[i..], &hidden[i * rank..]);
        i += match rows.len() {
            4.. => add_to::<T, 4>(w, load, rank, rows, hidden, acc),
            2.. => add_to::<T, 2>(w, load, rank, rows, hidden, acc),
            _ => add_to::<T, 1>(w, load, rank, rows, hidden, acc),
        };
    }
}

#[inline(always)]
fn add_to<T: Copy, const M: usize>(
    w: &[T],
    load: impl Fn(&[T]) -> F32x8,
    rank: usize,
    rows: &[LoraRow],
    hidden: &[f32],
    acc: &mut [[f32; PANEL]],
) -> usize {
    let rows: &[LoraRow; M] = rows.first_chunk().expect("M rows");
    let hidden: [&[f32]; M] = std::array::from_fn(|m| &hidden[m * rank..][..rank]);
    let mut sums = [[F32x8::ZERO; 2]; M];
    for m in 0..M {
        let acc = &acc[rows[m].row as usize];
        sums[m] = [F32x8::load(&acc[..LANES]), F32x8::load(&acc[LANES..])];
    }
    for (k, w) in w.chunks_exact(PANEL).enumerate().take(rank) {
        let (first, second) = (load(&w[..LANES]), load(&w[LANES..]));
        for m in 0..M {
            let hidden = F32x8::splat(hidden[m][k]);
            sums[m] = [first.mul_add(hidden, sums[m][0]), second.mul_add(hidden, sums[m][1])];
        }
    }
    for m in 0..M {
        let acc = &mut acc[rows[m].row as usize];
        sums[m][0].store(&mut acc[..LANES]);
        sums[m][1].store(&mut acc[LANES..]);
    }
    M
}

#[inline(always)]
fn bf16s(w: &[u16]) -> F32x8 {
    let mut out = [0.0; LANES];
    for (out, &w) in out.iter_mut().zip(&w[..LANES]) {
        *out = f32::from_bits((w as u32) << 16);
    }
    F32x8(out)
}

/// The sums of tiles `w` with rows `x`. Every sum has a register of its own, added up in the order of columns, so
/// it does not matter which others are computed with it.
#[inline(always)]
fn pass<T: Copy, const N: usize, const M: usize>(
    w: [&[T]; N],
    x: [&[f32]; M],
    load: impl Fn(&[T]) -> F32x8,
) -> [[[f32; TILE]; M]; N] {
    let mut sums = [[[F32x8::ZERO; TILE]; M]; N];
    let inputs = x[0].len();
    let whole = inputs / LANES;
    let mut step = |k: usize, x: [F32x8; M]| {
        for n in 0..N {
            let w = &w[n][k * TILE * LANES..][..TILE * LANES];
            prefetch(w.as_ptr().wrapping_byte_add(AHEAD));
            if size_of::<T>() == 4 {
                prefetch(w.as_ptr().wrapping_byte_add(AHEAD + 64));
            }
            for r in 0..TILE {
                let w = load(&w[r * LANES..][..LANES]);
                for m in 0..M {
                    sums[n][m][r] = w.mul_add(x[m], sums[n][m][r]);
                }
            }
        }
    };
    for k in 0..whole {
        let mut part = [F32x8::ZERO; M];
        for m in 0..M {
            part[m] = F32x8::load(&x[m][k * LANES..][..LANES]);
        }
        step(k, part);
    }
    if whole * LANES < inputs {
        let mut part = [F32x8::ZERO; M];
        for m in 0..M {
            part[m].0[..inputs - whole * LANES].copy_from_slice(&x[m][whole * LANES..]);
        }
        step(whole, part);
    }
    let mut out = [[[0.0; TILE]; M]; N];
    for n in 0..N {
        for m in 0..M {
            for r in 0..TILE {
                out[n][m][r] = sums[n][m][r].sum();
            }
        }
    }
    out
}

/// Asks for all cache lines of `w`.
fn fetch<T>(w: &[T]) {
    for i in (0..size_of_val(w)).step_by(64) {
        prefetch(w.as_ptr().wrapping_byte_add(i));
    }
}

/// Asks for the cache line at `p`, which may be any address.
#[inline(always)]
fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may name any address, and every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::ops::Range;

    use super::{F32x8, Inner, LANES, Outer, PANEL, TILE, Widen};

    /// The same code, compiled for AVX2.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn inner(
        job: Inner<'_>,
        tiles: Range<usize>,
        rows: Range<usize>,
        each: &mut impl FnMut(usize, usize, [f32; TILE]),
    ) {
        job.run::<F16c>(tiles, rows, each);
    }

    /// As above.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn outer(job: Outer<'_>, acc: &mut [[f32; PANEL]]) {
        job.run::<F16c>(acc);
    }

    /// Only used inside [`inner`] and [`outer`].
    struct F16c;

    impl Widen for F16c {
        #[inline(always)]
        fn half(w: &[u16]) -> F32x8 {
            let w: &[u16; LANES] = w[..LANES].try_into().expect("eight weights");
            let mut out = [0.0; LANES];
            // SAFETY: the instructions are there, since one of them runs; both arrays have eight numbers.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(w.as_ptr().cast())))
            };
            F32x8(out)
        }
    }
}
