//! Products of an unpacked tile with up to four rows of activations.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{NARROW_BLOCK, WIDE_BLOCK};
use crate::cpu::activations::Activations;
use crate::cpu::format::{BLOCK, Codes, Format, GROUP, PANEL, SUPER, Scales};
use crate::cpu::matmul::tile::Tile;

/// Adds the products of a tile, whose first column is `first`, with rows `row .. row + M` of the activations
/// to `acc`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn product<const M: usize>(
    format: &Format,
    tile: &Tile,
    a: &Activations,
    row: usize,
    first: usize,
    acc: &mut [[f32; PANEL]],
) {
    assert!(acc.len() == M && row + M <= a.rows && first + tile.columns <= a.columns);
    assert!(tile.columns.is_multiple_of(format.record_columns()) && a.block == format.record_columns());
    // SAFETY: the kernels read `tile.columns` columns of the tile and of M rows of the activations; both were
    // prepared for that many columns, and the assertions above check rows and columns.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; M];
        for (sum, acc) in sums.iter_mut().zip(&*acc) {
            *sum = [_mm256_loadu_ps(acc.as_ptr()), _mm256_loadu_ps(acc.as_ptr().add(8))];
        }
        let job = Job { tile, a, row, first };
        match (format.codes, format.scales) {
            (Codes::I8 | Codes::Table(_), Scales::Block { .. }) => job.signed_block(&mut sums),
            (Codes::I8 | Codes::Table(_), Scales::Super { sub: 16, .. }) => {
                job.signed_super::<M, 16>(&mut sums)
            }
            (Codes::I8 | Codes::Table(_), Scales::Super { .. }) => job.signed_super::<M, 32>(&mut sums),
            (_, Scales::Twin) => job.signed_twin(&mut sums),
            (Codes::U2, Scales::Block { .. }) => job.unsigned_block::<M, 1, 8, false>(&mut sums),
            (Codes::U2, Scales::Super { min: false, .. }) => {
                job.unsigned_super::<M, 1, 4, 32, false>(&mut sums);
            }
            (Codes::U5 | Codes::Float4, Scales::Block { min: false }) => {
                job.unsigned_block::<M, 16, 8, false>(&mut sums)
            }
            (Codes::U5, Scales::Block { min: true }) => job.unsigned_block::<M, 0, 4, true>(&mut sums),
            (_, Scales::Block { min: false }) => job.unsigned_block::<M, 8, 8, false>(&mut sums),
            (_, Scales::Block { min: true }) => job.unsigned_block::<M, 0, 8, true>(&mut sums),
            (Codes::U6, Scales::Super { .. }) => job.unsigned_super::<M, 32, 4, 16, false>(&mut sums),
            (Codes::U3, Scales::Super { .. }) => job.unsigned_super::<M, 4, 4, 16, false>(&mut sums),
            (Codes::U5, Scales::Super { .. }) => job.unsigned_super::<M, 0, 4, 32, true>(&mut sums),
            (Codes::U2, Scales::Super { .. }) => job.unsigned_super::<M, 0, 4, 16, true>(&mut sums),
            (_, Scales::Super { .. }) => job.unsigned_super::<M, 0, 8, 32, true>(&mut sums),
        }
        for (sum, acc) in sums.iter().zip(acc) {
            _mm256_storeu_ps(acc.as_mut_ptr(), sum[0]);
            _mm256_storeu_ps(acc.as_mut_ptr().add(8), sum[1]);
        }
    }
}

/// M rows by 16 outputs.
pub(super) type Sums<const M: usize> = [[__m256; 2]; M];

struct Job<'a> {
    tile: &'a Tile,
    a: &'a Activations,
    row: usize,
    first: usize,
}

/// Loads four activation bytes, or two 16-bit ones, into every lane.
///
/// # Safety
/// Four bytes can be read at `p`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn broadcast<T>(p: *const T) -> __m256i {
    // SAFETY: by the caller's promise.
    unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
}

/// `acc[h] += w[h] · x`: one group of four columns. `OP` 0 multiplies unsigned with signed bytes into 16-bit
/// lanes, `OP` 1 signed 16-bit numbers into 32-bit lanes. `x` is read at `x + OFFSET` bytes and broadcast.
///
/// Written in assembly: from intrinsics, LLVM unrolls the groups of a block, loads all weights first, adds up
/// in a tree and spills, which was measured at half the speed. Here sums stay in their registers.
///
/// # Safety
/// Four bytes can be read at `x + OFFSET`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn step<const OP: usize, const OFFSET: usize>(acc: &mut [__m256i; 2], w: [__m256i; 2], x: *const u8) {
    macro_rules! step {
        ($multiply:literal, $add:literal) => {
            // SAFETY: reads four bytes at `x + OFFSET`, the caller's promise, and changes only its operands.
            unsafe {
                asm!(
                    "vpbroadcastd {x}, dword ptr [{p} + {offset}]",
                    concat!($multiply, " {t}, {w0}, {x}"),
                    concat!($multiply, " {x}, {w1}, {x}"),
                    concat!($add, " {a0}, {a0}, {t}"),
                    concat!($add, " {a1}, {a1}, {x}"),
                    p = in(reg) x,
                    offset = const OFFSET,
                    x = out(ymm_reg) _,
                    t = out(ymm_reg) _,
                    w0 = in(ymm_reg) w[0],
                    w1 = in(ymm_reg) w[1],
                    a0 = inout(ymm_reg) acc[0],
                    a1 = inout(ymm_reg) acc[1],
                    options(pure, readonly, nostack, preserves_flags),
                )
            }
        };
    }
    if OP == 0 { step!("vpmaddubsw", "vpaddw") } else { step!("vpmaddwd", "vpaddd") }
}

/// Multiplies four groups of weights from `w` on with the activations from `x[m]` on.
///
/// # Safety
/// Four groups can be read at `w`, 16 bytes at each `x`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn four_steps<const M: usize, const OP: usize>(
    acc: &mut [[__m256i; 2]; M],
    w: *const u8,
    x: &[*const u8; M],
) {
    macro_rules! group {
        ($g:literal) => {
            // SAFETY: by the caller's promise.
            unsafe {
                let w = w.add($g * GROUP).cast::<__m256i>();
                let w = [_mm256_load_si256(w), _mm256_load_si256(w.add(1))];
                for m in 0..M {
                    step::<OP, { 4 * $g }>(&mut acc[m], w, x[m]);
                }
            }
        };
    }
    group!(0);
    group!(1);
    group!(2);
    group!(3);
}

impl Job<'_> {
    /// # Safety
    /// The tile and the activations have the sizes that [`product`] asserts. The functions below have the
    /// same contract.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn unsigned_block<const M: usize, const CENTER: i16, const CHAIN: usize, const MIN: bool>(
        &self,
        sums: &mut Sums<M>,
    ) {
        let Job { tile, a, row, first } = *self;
        let ones = _mm256_set1_epi16(1);
        // SAFETY: by the caller's promise.
        unsafe {
            for b in 0..tile.columns / BLOCK {
                let w = tile.codes.as_ptr().add(b * NARROW_BLOCK);
                let at = |m: usize| (row + m) * a.columns + first + b * BLOCK;
                let mut total = [[_mm256_setzero_si256(); 2]; M];
                for chain in 0..8 / CHAIN {
                    let mut acc = [[_mm256_setzero_si256(); 2]; M];
                    if CENTER != 0 {
                        for (m, acc) in acc.iter_mut().enumerate() {
                            let lanes = broadcast(a.lane_sums.as_ptr().add(at(m) / BLOCK * 2));
                            *acc = [_mm256_mullo_epi16(lanes, _mm256_set1_epi16(-CENTER)); 2];
                        }
                    }
                    for g in (chain * CHAIN..(chain + 1) * CHAIN).step_by(4) {
                        let x = std::array::from_fn(|m| a.codes.as_ptr().add(at(m) + 4 * g).cast());
                        four_steps::<M, 0>(&mut acc, w.add(g * GROUP), &x);
                    }
                    for (total, acc) in total.iter_mut().zip(&acc) {
                        for h in 0..2 {
                            let wide = _mm256_madd_epi16(acc[h], ones);
                            total[h] = if chain == 0 { wide } else { _mm256_add_epi32(total[h], wide) };
                        }
                    }
                }
                self.finish_block::<M, MIN>(b, &total, sums);
            }
        }
    }

    /// `sums += total * d_w * d_a (+ min_w * sum_a)` for block `b` of the tile.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn finish_block<const M: usize, const MIN: bool>(
        &self,
        b: usize,
        total: &[[__m256i; 2]; M],
        sums: &mut Sums<M>,
    ) {
        let Job { tile, a, row, first } = *self;
        // SAFETY: by the promise of `unsigned_block`.
        unsafe {
            for h in 0..2 {
                let d = _mm256_load_ps(tile.scales.as_ptr().add(b * PANEL + 8 * h));
                let min = _mm256_load_ps(tile.mins.as_ptr().add(b * PANEL + 8 * h));
                for m in 0..M {
                    let at = ((row + m) * a.columns + first) / BLOCK + b;
                    let scale = _mm256_mul_ps(d, _mm256_broadcast_ss(&*a.scales.as_ptr().add(at)));
                    sums[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[m][h]), scale, sums[m][h]);
                    if MIN {
                        let sum = _mm256_broadcast_ss(&*a.sums.as_ptr().add(at));
                        sums[m][h] = _mm256_fmadd_ps(min, sum, sums[m][h]);
                    }
                }
            }
        }
    }

    /// Returns the products of `COLUMNS` columns of widened signed codes, from number `i` of that many on.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn signed_dot<const M: usize, const COLUMNS: usize>(&self, i: usize) -> [[__m256i; 2]; M] {
        let Job { tile, a, row, first } = *self;
        let mut acc = [[_mm256_setzero_si256(); 2]; M];
        // SAFETY: by the promise of `unsigned_block`; `wide` was filled for signed codes.
        unsafe {
            let w =
                tile.codes.as_ptr().add(i * COLUMNS / BLOCK * WIDE_BLOCK + i * COLUMNS % BLOCK * 2 * PANEL);
            for g in (0..COLUMNS / 2).step_by(4) {
                let x = std::array::from_fn(|m| {
                    a.wide.as_ptr().add((row + m) * a.columns + first + i * COLUMNS + 2 * g).cast()
                });
                four_steps::<M, 1>(&mut acc, w.add(g * GROUP), &x);
            }
        }
        acc
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn signed_block<const M: usize>(&self, sums: &mut Sums<M>) {
        for b in 0..self.tile.columns / BLOCK {
            // SAFETY: by the promise of `unsigned_block`.
            unsafe {
                let total = self.signed_dot::<M, BLOCK>(b);
                self.finish_block::<M, false>(b, &total, sums);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn signed_twin<const M: usize>(&self, sums: &mut Sums<M>) {
        for b in 0..self.tile.columns / BLOCK {
            // SAFETY: by the promise of `unsigned_block`.
            unsafe {
                let dots = [self.signed_dot::<M, 16>(2 * b), self.signed_dot::<M, 16>(2 * b + 1)];
                for h in 0..2 {
                    let d = [&self.tile.scales, &self.tile.mins]
                        .map(|scales| _mm256_load_ps(scales.as_ptr().add(b * PANEL + 8 * h)));
                    for m in 0..M {
                        let at = ((self.row + m) * self.a.columns + self.first) / BLOCK + b;
                        let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[0][m][h]), d[0]);
                        let scaled = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[1][m][h]), d[1], scaled);
                        let scale = _mm256_broadcast_ss(&*self.a.scales.as_ptr().add(at));
                        sums[m][h] = _mm256_fmadd_ps(scaled, scale, sums[m][h]);
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn signed_super<const M: usize, const SUB: usize>(&self, sums: &mut Sums<M>) {
        for s in 0..self.tile.columns / SUPER {
            // SAFETY: by the promise of `unsigned_block`.
            unsafe {
                let mut total = [[_mm256_setzero_si256(); 2]; M];
                for i in s * (SUPER / SUB)..(s + 1) * (SUPER / SUB) {
                    let dot = self.signed_dot::<M, SUB>(i);
                    for h in 0..2 {
                        // Each row's scale stands twice in 16 bits; load one of the two, widened with its
                        // sign.
                        let scale = self.tile.sub_scales.as_ptr().add((i * PANEL + 8 * h) * 2);
                        let scale = _mm256_srai_epi32::<16>(_mm256_load_si256(scale.cast()));
                        for m in 0..M {
                            let product = _mm256_mullo_epi32(dot[m][h], scale);
                            total[m][h] = _mm256_add_epi32(total[m][h], product);
                        }
                    }
                }
                self.finish_super::<M>(s, &total, sums);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn unsigned_super<
        const M: usize,
        const CENTER: i16,
        const CHAIN: usize,
        const SUB: usize,
        const MIN: bool,
    >(
        &self,
        sums: &mut Sums<M>,
    ) {
        let Job { tile, a, row, first } = *self;
        // SAFETY: by the promise of `unsigned_block`.
        unsafe {
            for s in 0..tile.columns / SUPER {
                let at = |m: usize| (row + m) * a.columns + first + s * SUPER;
                let mut total = [[_mm256_setzero_si256(); 2]; M];
                for chain in 0..SUPER / 4 / CHAIN {
                    let mut acc = [[_mm256_setzero_si256(); 2]; M];
                    if CENTER != 0 {
                        for (m, acc) in acc.iter_mut().enumerate() {
                            let lanes = broadcast(a.lane_sums.as_ptr().add((at(m) / 16 + chain) * 2));
                            *acc = [_mm256_mullo_epi16(lanes, _mm256_set1_epi16(-CENTER)); 2];
                        }
                    }
                    for g in (chain * CHAIN..(chain + 1) * CHAIN).step_by(4) {
                        let x = std::array::from_fn(|m| a.codes.as_ptr().add(at(m) + 4 * g).cast());
                        let w = tile.codes.as_ptr().add((s * (SUPER / 4) + g) * GROUP);
                        four_steps::<M, 0>(&mut acc, w, &x);
                    }
                    let sub = s * (SUPER / SUB) + chain * CHAIN * 4 / SUB;
                    let scale = tile.sub_scales.as_ptr().add(sub * PANEL * 2).cast::<__m256i>();
                    let scale = [_mm256_load_si256(scale), _mm256_load_si256(scale.add(1))];
                    for (total, acc) in total.iter_mut().zip(&acc) {
                        for h in 0..2 {
                            total[h] = _mm256_add_epi32(total[h], _mm256_madd_epi16(acc[h], scale[h]));
                        }
                    }
                }
                self.finish_super::<M>(s, &total, sums);
                if MIN {
                    self.finish_mins::<M, SUB>(s, sums);
                }
            }
        }
    }

    /// `sums += total * d_w * d_a` for the tile's 256 columns `s`.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn finish_super<const M: usize>(&self, s: usize, total: &[[__m256i; 2]; M], sums: &mut Sums<M>) {
        let Job { tile, a, row, first } = *self;
        // SAFETY: by the promise of `unsigned_block`.
        unsafe {
            for h in 0..2 {
                let d = _mm256_load_ps(tile.scales.as_ptr().add(s * PANEL + 8 * h));
                for m in 0..M {
                    let at = ((row + m) * a.columns + first) / SUPER + s;
                    let scale = _mm256_mul_ps(d, _mm256_broadcast_ss(&*a.scales.as_ptr().add(at)));
                    sums[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[m][h]), scale, sums[m][h]);
                }
            }
        }
    }

    /// `sums -= (Σ min · Σ a) * dmin_w * d_a` for the tile's 256 columns `s`.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn finish_mins<const M: usize, const SUB: usize>(&self, s: usize, sums: &mut Sums<M>) {
        let Job { tile, a, row, first } = *self;
        let sub_sums = if SUB == 16 { &a.sums16 } else { &a.sums32 };
        let pairs = SUPER / SUB / 2;
        // SAFETY: by the promise of `unsigned_block`.
        unsafe {
            for h in 0..2 {
                let mut total = [_mm256_setzero_si256(); M];
                for pair in 0..pairs {
                    let min = tile.sub_mins.as_ptr().add(((s * pairs + pair) * PANEL + 8 * h) * 2);
                    let min = _mm256_load_si256(min.cast());
                    for (m, total) in total.iter_mut().enumerate() {
                        let at = ((row + m) * a.columns + first + s * SUPER) / SUB + 2 * pair;
                        let sums = broadcast(sub_sums.as_ptr().add(at));
                        *total = _mm256_add_epi32(*total, _mm256_madd_epi16(min, sums));
                    }
                }
                let d = _mm256_load_ps(tile.mins.as_ptr().add(s * PANEL + 8 * h));
                for m in 0..M {
                    let at = ((row + m) * a.columns + first) / SUPER + s;
                    let scale = _mm256_mul_ps(d, _mm256_broadcast_ss(&*a.scales.as_ptr().add(at)));
                    sums[m][h] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(total[m]), scale, sums[m][h]);
                }
            }
        }
    }
}
