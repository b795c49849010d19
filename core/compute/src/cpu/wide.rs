//! Sixteen floats at a time, in the registers of the processor at hand, for the inner loops of attention.
//!
//! As with [`super::lanes`], every instruction set runs the same operations in the same order, so that
//! results agree to the last bit. Here the registers are chosen by hand, because the compiler on its own
//! splits and spills the sums of a product.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Isa;

/// Number of lanes.
pub(crate) const WIDTH: usize = 16;

/// Sixteen floats. Only [`dispatch`] hands out implementations, so they are used only if the processor has
/// their instructions.
pub(crate) trait Wide: Copy {
    /// Number of queries whose pairs of sums fit into registers together with the operands.
    const TILE: usize;

    fn splat(x: f32) -> Self;

    /// # Safety
    /// 16 floats can be read.
    unsafe fn load(from: *const f32) -> Self;

    /// Widens 16 half floats.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load_f16(from: *const u16) -> Self;

    /// Converts 16 bytes.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load_i8(from: *const i8) -> Self;

    /// # Safety
    /// 16 floats can be written.
    unsafe fn store(self, to: *mut f32);

    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;

    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;

    /// The larger of each pair; `b` where either is NaN.
    fn max(self, b: Self) -> Self;

    /// The smaller of each pair; `b` where either is NaN.
    fn min(self, b: Self) -> Self;

    /// Rounds to the nearest integer, ties to even.
    fn round(self) -> Self;

    /// Computes `self * 2ⁿ` for integers `-126 ≤ n ≤ 127`.
    fn scale2(self, n: Self) -> Self;

    /// Returns `self`, with 0 where `x` is below `limit`.
    fn or_zero_below(self, x: Self, limit: f32) -> Self;

    /// Prefetches the cache line at an address, which may be any, if the processor has an instruction for
    /// that.
    #[inline(always)]
    fn prefetch(_at: *const u8) {}

    /// Copies the lanes to an array.
    #[inline(always)]
    fn lanes(self) -> [f32; WIDTH] {
        let mut lanes = [0.0; WIDTH];
        // SAFETY: the array has `WIDTH` floats.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }

    /// The sum of the lanes; always adds the upper half to the lower one.
    #[inline(always)]
    fn sum(self) -> f32 {
        halve(self.lanes(), |a, b| a + b)
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        halve(self.lanes(), |a, b| if a > b { a } else { b })
    }

    /// `e^x` to about 2 units in the last place, as [`super::lanes::F32x8::exp`].
    #[inline(always)]
    fn exp(self) -> Self {
        let x = Self::splat(-87.3).max(Self::splat(88.3).min(self));
        let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(Self::splat(-0.693_359_4), x);
        let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.mul_add(r, Self::splat(c));
        }
        let p = p.mul_add(r.mul(r), r).add(Self::splat(1.0));
        p.scale2(n).or_zero_below(self, -87.3)
    }

    /// `tanh(x) = 1 - 2 / (e^2x + 1)`.
    #[inline(always)]
    fn tanh(self) -> Self {
        let e = self.add(self).exp();
        Self::splat(1.0).sub(Self::splat(2.0).div(e.add(Self::splat(1.0))))
    }
}

/// Combines the upper half of the lanes with the lower one until one is left.
#[inline(always)]
fn halve(mut lanes: [f32; WIDTH], f: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// Code that is compiled for each instruction set.
pub(crate) trait Kernel {
    /// Must be `#[inline(always)]`, like everything it calls, so that it is compiled with the features of the
    /// calling function. A closure that works with `V` would not be.
    fn run<V: Wide>(self);
}

/// Runs a kernel with the instruction set's registers.
pub(crate) fn dispatch(isa: Isa, kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2(kernel: impl Kernel) {
        kernel.run::<Avx2>();
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
    fn avx512(kernel: impl Kernel) {
        kernel.run::<Avx512>();
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` other than `Scalar` exists only where the processor has it.
        Isa::Avx2 => unsafe { avx2(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` other than `Scalar` exists only where the processor has it.
        Isa::Avx512 => unsafe { avx512(kernel) },
        _ => kernel.run::<Portable>(),
    }
}

/// Plain Rust: defines the results, and becomes NEON on Arm.
#[derive(Clone, Copy)]
struct Portable([f32; WIDTH]);

#[allow(
    clippy::needless_range_loop,
    reason = "plain loops are inlined for sure, so that they are compiled for the caller's instruction set"
)]
impl Portable {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = [0.0; WIDTH];
        for i in 0..WIDTH {
            out[i] = f(self.0[i], b.0[i]);
        }
        Self(out)
    }
}

#[allow(
    clippy::needless_range_loop,
    reason = "plain loops are inlined for sure, so that they are compiled for the caller's instruction set"
)]
impl Wide for Portable {
    const TILE: usize = 3;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; WIDTH])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; WIDTH]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[u16; WIDTH]>().read_unaligned() };
        let mut out = [0.0; WIDTH];
        for i in 0..WIDTH {
            out[i] = widen(halves[i]);
        }
        Self(out)
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[i8; WIDTH]>().read_unaligned() };
        let mut out = [0.0; WIDTH];
        for i in 0..WIDTH {
            out[i] = bytes[i] as f32;
        }
        Self(out)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        let mut out = [0.0; WIDTH];
        for i in 0..WIDTH {
            out[i] = self.0[i].mul_add(b.0[i], c.0[i]);
        }
        Self(out)
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.zip(b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.zip(b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self) -> Self {
        self.zip(self, |x, _| x.round_ties_even())
    }

    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        // 2ⁿ by writing the exponent.
        self.zip(n, |x, n| x * f32::from_bits(((n as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn or_zero_below(self, x: Self, limit: f32) -> Self {
        self.zip(x, |e, x| if x < limit { 0.0 } else { e })
    }

    #[inline(always)]
    fn lanes(self) -> [f32; WIDTH] {
        self.0
    }
}

/// Converts a half float to a float without branches: shifts it into place, then scales by the difference of
/// the exponents' offsets, which is exact for subnormals too.
#[inline(always)]
fn widen(half: u16) -> f32 {
    let sign = (half as u32 & 0x8000) << 16;
    let magnitude = (half as u32 & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let bits = if magnitude >= 0x0f80_0000 { magnitude | 0x7f80_0000 } else { finite };
    f32::from_bits(bits | sign)
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx2(__m256, __m256);

// SAFETY of all calls below: `dispatch` uses the type only where the processor has the instructions; callers
// promise that the memory can be read and written.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all stands above")]
impl Wide for Avx2 {
    const TILE: usize = 3;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        let x = unsafe { _mm256_set1_ps(x) };
        Self(x, x)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        unsafe {
            let halves = (_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(8).cast()));
            Self(_mm256_cvtph_ps(halves.0), _mm256_cvtph_ps(halves.1))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        unsafe {
            let bytes = (_mm_loadl_epi64(from.cast()), _mm_loadl_epi64(from.add(8).cast()));
            let integers = (_mm256_cvtepi8_epi32(bytes.0), _mm256_cvtepi8_epi32(bytes.1));
            Self(_mm256_cvtepi32_ps(integers.0), _mm256_cvtepi32_ps(integers.1))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { Self(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { Self(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) }
    }

    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        unsafe {
            let one = _mm256_set1_epi32(127);
            let a = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n.0), one));
            let b = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n.1), one));
            Self(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)).mul(self)
        }
    }

    #[inline(always)]
    fn or_zero_below(self, x: Self, limit: f32) -> Self {
        unsafe {
            let limit = _mm256_set1_ps(limit);
            let below = (_mm256_cmp_ps::<_CMP_LT_OQ>(x.0, limit), _mm256_cmp_ps::<_CMP_LT_OQ>(x.1, limit));
            Self(_mm256_andnot_ps(below.0, self.0), _mm256_andnot_ps(below.1, self.1))
        }
    }

    #[inline(always)]
    fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let x = _mm256_add_ps(self.0, self.1);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe {
            let x = _mm256_max_ps(self.0, self.1);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx512(__m512);

// SAFETY of all calls below: `dispatch` uses the type only where the processor has the instructions; callers
// promise that the memory can be read and written.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all stands above")]
impl Wide for Avx512 {
    const TILE: usize = 6;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        unsafe { Self(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { Self(_mm512_add_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { Self(_mm512_sub_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { Self(_mm512_mul_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { Self(_mm512_div_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { Self(_mm512_max_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { Self(_mm512_min_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { Self(_mm512_roundscale_ps::<NEAREST>(self.0)) }
    }

    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        unsafe { Self(_mm512_scalef_ps(self.0, n.0)) }
    }

    #[inline(always)]
    fn or_zero_below(self, x: Self, limit: f32) -> Self {
        unsafe {
            let keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(limit));
            Self(_mm512_maskz_mov_ps(keep, self.0))
        }
    }

    #[inline(always)]
    fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe { Avx2(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)).sum() }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe { Avx2(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)).largest() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every function of [`Wide`] on some numbers.
    struct All<'a> {
        x: [f32; WIDTH],
        out: &'a mut Vec<u32>,
    }

    impl Kernel for All<'_> {
        #[inline(always)]
        fn run<V: Wide>(self) {
            let bytes = self.x.map(|x| x as i8);
            let halves = self.x.map(|x| half::f16::from_f32(x).to_bits());
            // SAFETY: arrays of 16.
            let (x, b, h) = unsafe {
                (V::load(self.x.as_ptr()), V::load_i8(bytes.as_ptr()), V::load_f16(halves.as_ptr()))
            };
            let y = x.mul_add(b, V::splat(0.3)).add(h);
            for x in [x, b, h, y, x.sub(b), x.mul(h), x.div(y), x.max(b), y.min(h), y.round()] {
                self.out.extend(x.lanes().map(f32::to_bits));
            }
            for x in [x.exp(), x.tanh(), h.exp(), V::splat(x.sum()), V::splat(y.largest())] {
                self.out.extend(x.lanes().map(f32::to_bits));
            }
        }
    }

    #[test]
    fn instruction_sets_agree_to_the_last_bit() {
        for i in 0..2_000i32 {
            let x = std::array::from_fn(|lane| {
                (i * 16 + lane as i32 - 16_000) as f32 * 0.007 * (1 + lane) as f32
            });
            let results: Vec<Vec<u32>> = Isa::available()
                .into_iter()
                .map(|isa| {
                    let mut out = Vec::new();
                    dispatch(isa, All { x, out: &mut out });
                    out
                })
                .collect();
            assert!(results.iter().all(|r| *r == results[0]), "of {x:?}");
        }
    }

    #[test]
    fn half_floats_are_widened_exactly() {
        for bits in 0..=u16::MAX {
            let half = half::f16::from_bits(bits);
            assert!(
                half.is_nan() && widen(bits).is_nan() || half.to_f32().to_bits() == widen(bits).to_bits()
            );
        }
    }

    #[test]
    fn exp_and_tanh_are_accurate() {
        for i in -9_000..9_000 {
            let x = i as f32 * 0.01;
            let want = (x as f64).exp();
            if x > -87.0 && x < 88.0 {
                let got = Portable::splat(x).exp().0[3] as f64;
                assert!((got / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, not {want}");
            }
            let tanh = Portable::splat(x).tanh().0[0] as f64;
            assert!((tanh - (x as f64).tanh()).abs() < 3e-7, "tanh({x}) = {tanh}");
        }
        assert_eq!(Portable::splat(f32::NEG_INFINITY).exp().0[0], 0.0);
    }
}
