//! The products of adapters with one or more rows.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::vector::x86::{Avx2, Avx512};
use super::vector::{Two, Vector};
use super::{AHEAD, Change, LINE, TILE, Use, prefetch};
use crate::LoraRow;
use crate::cpu::Isa;
use crate::cpu::format::PANEL;
use crate::cpu::lanes::{F32x8, LANES};
use crate::cpu::matrix::{FloatSlice, Floats};

/// `a · x` for some rows of a batch.
#[derive(Clone, Copy)]
pub(super) struct Inner<'a> {
    pub(super) a: &'a Floats,
    /// The first tile of the matrix in `a`.
    pub(super) first: usize,
    /// Rows of `columns` numbers.
    pub(super) x: &'a [f32],
    pub(super) columns: usize,
    pub(super) rows: &'a [LoraRow],
}

impl Inner<'_> {
    /// Calls `each(tile, row, sums)` for all of `tiles` and `rows`.
    pub(super) fn run(
        self,
        isa: Isa,
        tiles: Range<usize>,
        rows: Range<usize>,
        mut each: impl FnMut(usize, usize, [f32; TILE]),
    ) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these instruction sets were detected.
            Isa::Avx2 | Isa::Avx512 => unsafe { self.run_avx2(tiles, rows, &mut each) },
            _ => self.run_with::<F32x8>(tiles, rows, &mut each),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn run_avx2(
        self,
        tiles: Range<usize>,
        rows: Range<usize>,
        each: &mut impl FnMut(usize, usize, [f32; TILE]),
    ) {
        self.run_with::<Avx2>(tiles, rows, each);
    }

    #[inline(always)]
    fn run_with<V: Vector<LANES>>(
        self,
        tiles: Range<usize>,
        rows: Range<usize>,
        each: &mut impl FnMut(usize, usize, [f32; TILE]),
    ) {
        match self.a {
            Floats::F32(a) => self.passes(a, V::floats, tiles, rows, each),
            Floats::F16(a) => self.passes(a, V::halves, tiles, rows, each),
            Floats::BF16(a) => self.passes(a, V::bf16s, tiles, rows, each),
        }
    }

    /// Computes two rows of one tile at a time, or one row of two tiles: eight sums that do not wait for each
    /// other.
    #[inline(always)]
    fn passes<T: Copy, V: Vector<LANES>>(
        self,
        a: &[T],
        load: impl Fn(&[T; LANES]) -> V + Copy,
        tiles: Range<usize>,
        rows: Range<usize>,
        each: &mut impl FnMut(usize, usize, [f32; TILE]),
    ) {
        let len = self.columns.div_ceil(LANES) * TILE * LANES;
        let tile = |t: usize| &a[(self.first + t) * len..][..len];
        let x = |row: usize| &self.x[self.rows[row].row as usize * self.columns..][..self.columns];
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

/// Computes the sums of tiles `w` with rows `x`. Every sum has a register of its own and is added up in the
/// order of columns, so it does not depend on the sums computed beside it.
#[inline(always)]
fn pass<T: Copy, V: Vector<LANES>, const N: usize, const M: usize>(
    w: [&[T]; N],
    x: [&[f32]; M],
    load: impl Fn(&[T; LANES]) -> V,
) -> [[[f32; TILE]; M]; N] {
    let mut sums = [[[V::splat(0.0); TILE]; M]; N];
    let whole = x[0].len() / LANES;
    for k in 0..whole {
        let mut part = [V::splat(0.0); M];
        for m in 0..M {
            part[m] = V::floats(x[m][k * LANES..].first_chunk().expect("eight columns"));
        }
        step(&mut sums, w, k, part, &load);
    }
    if whole * LANES < x[0].len() {
        let mut part = [V::splat(0.0); M];
        for m in 0..M {
            let mut rest = [0.0; LANES];
            rest[..x[m].len() - whole * LANES].copy_from_slice(&x[m][whole * LANES..]);
            part[m] = V::floats(&rest);
        }
        step(&mut sums, w, whole, part, &load);
    }
    let mut out = [[[0.0; TILE]; M]; N];
    for n in 0..N {
        for m in 0..M {
            for r in 0..TILE {
                let mut lanes = F32x8::ZERO;
                sums[n][m][r].store(&mut lanes.0);
                out[n][m][r] = lanes.sum();
            }
        }
    }
    out
}

/// Adds the products of columns `8 * k ..` to the sums.
#[inline(always)]
fn step<T: Copy, V: Vector<LANES>, const N: usize, const M: usize>(
    sums: &mut [[[V; TILE]; M]; N],
    w: [&[T]; N],
    k: usize,
    x: [V; M],
    load: &impl Fn(&[T; LANES]) -> V,
) {
    for n in 0..N {
        let w = &w[n][k * TILE * LANES..][..TILE * LANES];
        prefetch(w.as_ptr().wrapping_byte_add(AHEAD));
        if size_of::<T>() == 4 {
            prefetch(w.as_ptr().wrapping_byte_add(AHEAD + LINE));
        }
        for r in 0..TILE {
            let w = load(w[r * LANES..].first_chunk().expect("eight columns"));
            for m in 0..M {
                sums[n][m][r] = w.mul_add(x[m], sums[n][m][r]);
            }
        }
    }
}

/// The second products of adapters, `b · hidden`, for one panel.
#[derive(Clone, Copy)]
pub(super) struct Outer<'a> {
    pub(super) uses: &'a [Use<'a>],
    pub(super) panel: usize,
    pub(super) hidden: &'a [f32],
}

impl Outer<'_> {
    /// Adds the products to the panel's sums, `[rows][16]`.
    pub(super) fn run(self, isa: Isa, acc: &mut [[f32; PANEL]]) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this instruction set was detected.
            Isa::Avx2 => unsafe { self.run_avx2(acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this instruction set was detected.
            Isa::Avx512 => unsafe { self.run_avx512(acc) },
            _ => self.run_with::<Two<F32x8>>(acc),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn run_avx2(self, acc: &mut [[f32; PANEL]]) {
        self.run_with::<Two<Avx2>>(acc);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn run_avx512(self, acc: &mut [[f32; PANEL]]) {
        self.run_with::<Avx512>(acc);
    }

    #[inline(always)]
    fn run_with<V: Vector<PANEL>>(self, acc: &mut [[f32; PANEL]]) {
        for u in self.uses {
            let Change { pair, expert, to, .. } = u.change;
            let hidden = &self.hidden[u.at..][..to.len() * pair.rank];
            match pair.panel(expert, self.panel) {
                FloatSlice::F32(w) => add(w, V::floats, to, hidden, acc),
                FloatSlice::F16(w) => add(w, V::halves, to, hidden, acc),
                FloatSlice::BF16(w) => add(w, V::bf16s, to, hidden, acc),
            }
        }
    }
}

/// `acc[row] += w · hidden` for `rows`, four rows at a time while at least four are left.
#[inline(always)]
fn add<T: Copy, V: Vector<PANEL>>(
    w: &[T],
    load: impl Fn(&[T; PANEL]) -> V + Copy,
    rows: &[LoraRow],
    hidden: &[f32],
    acc: &mut [[f32; PANEL]],
) {
    let w = w.as_chunks::<PANEL>().0;
    let mut i = 0;
    while i < rows.len() {
        let (rows, hidden) = (&rows[i..], &hidden[i * w.len()..]);
        i += match rows.len() {
            4.. => add_to::<T, V, 4>(w, load, rows, hidden, acc),
            2.. => add_to::<T, V, 2>(w, load, rows, hidden, acc),
            _ => add_to::<T, V, 1>(w, load, rows, hidden, acc),
        };
    }
}

/// Computes the same for the first M rows.
#[inline(always)]
fn add_to<T: Copy, V: Vector<PANEL>, const M: usize>(
    w: &[[T; PANEL]],
    load: impl Fn(&[T; PANEL]) -> V,
    rows: &[LoraRow],
    hidden: &[f32],
    acc: &mut [[f32; PANEL]],
) -> usize {
    let hidden = &hidden[..M * w.len()];
    let mut sums = [V::splat(0.0); M];
    for m in 0..M {
        sums[m] = V::floats(&acc[rows[m].row as usize]);
    }
    for (k, column) in w.iter().enumerate() {
        let column = load(column);
        for m in 0..M {
            sums[m] = column.mul_add(V::splat(hidden[m * w.len() + k]), sums[m]);
        }
    }
    for m in 0..M {
        sums[m].store(&mut acc[rows[m].row as usize]);
    }
    M
}
