//! Floats in registers, with three kinds of weights to load.
//!
//! The kernels are written once for these. Plain arrays, which the compiler turns into registers elsewhere in
//! this backend, are not enough here: the compiler sees that neighboring sums have neighboring weights and
//! transposes them back and forth, which doubles the time.

use crate::cpu::format::PANEL;
use crate::cpu::lanes::{F32x8, LANES};

/// N floats.
pub(super) trait Vector<const N: usize>: Copy {
    fn splat(x: f32) -> Self;
    fn floats(w: &[f32; N]) -> Self;
    /// Converts half floats, which must be finite.
    fn halves(w: &[u16; N]) -> Self;
    fn bf16s(w: &[u16; N]) -> Self;
    /// Computes `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn store(self, out: &mut [f32; N]);
}

/// A panel's 16 numbers in two registers.
#[derive(Clone, Copy)]
pub(super) struct Two<V>(V, V);

impl<V: Vector<LANES>> Two<V> {
    #[inline(always)]
    fn load<T>(w: &[T; PANEL], load: impl Fn(&[T; LANES]) -> V) -> Self {
        let halves = w.as_chunks::<LANES>().0;
        Self(load(&halves[0]), load(&halves[1]))
    }
}

impl<V: Vector<LANES>> Vector<PANEL> for Two<V> {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(V::splat(x), V::splat(x))
    }

    #[inline(always)]
    fn floats(w: &[f32; PANEL]) -> Self {
        Self::load(w, V::floats)
    }

    #[inline(always)]
    fn halves(w: &[u16; PANEL]) -> Self {
        Self::load(w, V::halves)
    }

    #[inline(always)]
    fn bf16s(w: &[u16; PANEL]) -> Self {
        Self::load(w, V::bf16s)
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(self.0.mul_add(b.0, c.0), self.1.mul_add(b.1, c.1))
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; PANEL]) {
        let halves = out.as_chunks_mut::<LANES>().0;
        self.0.store(&mut halves[0]);
        self.1.store(&mut halves[1]);
    }
}

impl Vector<LANES> for F32x8 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        F32x8::splat(x)
    }

    #[inline(always)]
    fn floats(w: &[f32; LANES]) -> Self {
        F32x8(*w)
    }

    /// A multiplication, which is exact, corrects the exponent's bias.
    #[inline(always)]
    fn halves(w: &[u16; LANES]) -> Self {
        F32x8(w.map(|w| {
            let magnitude = f32::from_bits(((w & 0x7fff) as u32) << 13) * f32::from_bits((127 + 112) << 23);
            f32::from_bits(magnitude.to_bits() | ((w & 0x8000) as u32) << 16)
        }))
    }

    #[inline(always)]
    fn bf16s(w: &[u16; LANES]) -> Self {
        F32x8(w.map(|w| f32::from_bits((w as u32) << 16)))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        F32x8::mul_add(self, b, c)
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        *out = self.0;
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, PANEL, Vector};

    /// Eight floats in an AVX register. Only for functions that are compiled for AVX2, FMA and F16C and run
    /// where the processor has them: all `unsafe` blocks below rely on that, and on references to eight
    /// numbers.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(in super::super) struct Avx2(__m256);

    impl Vector<LANES> for Avx2 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see [`Avx2`].
            Self(unsafe { _mm256_set1_ps(x) })
        }

        #[inline(always)]
        fn floats(w: &[f32; LANES]) -> Self {
            // SAFETY: see [`Avx2`].
            Self(unsafe { _mm256_loadu_ps(w.as_ptr()) })
        }

        #[inline(always)]
        fn halves(w: &[u16; LANES]) -> Self {
            // SAFETY: see [`Avx2`].
            Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(w.as_ptr().cast())) })
        }

        #[inline(always)]
        fn bf16s(w: &[u16; LANES]) -> Self {
            // SAFETY: see [`Avx2`]. A bf16 is the upper half of an f32.
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(w.as_ptr().cast()));
                Self(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)))
            }
        }

        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: see [`Avx2`].
            Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }

        #[inline(always)]
        fn store(self, out: &mut [f32; LANES]) {
            // SAFETY: see [`Avx2`].
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), self.0) };
        }
    }

    /// Sixteen floats in an AVX-512 register. Same conditions as [`Avx2`], for AVX-512 F.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(in super::super) struct Avx512(__m512);

    impl Vector<PANEL> for Avx512 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see [`Avx512`].
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        fn floats(w: &[f32; PANEL]) -> Self {
            // SAFETY: see [`Avx512`].
            Self(unsafe { _mm512_loadu_ps(w.as_ptr()) })
        }

        #[inline(always)]
        fn halves(w: &[u16; PANEL]) -> Self {
            // SAFETY: see [`Avx512`].
            Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(w.as_ptr().cast())) })
        }

        #[inline(always)]
        fn bf16s(w: &[u16; PANEL]) -> Self {
            // SAFETY: see [`Avx512`].
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(w.as_ptr().cast()));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
            }
        }

        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: see [`Avx512`].
            Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }

        #[inline(always)]
        fn store(self, out: &mut [f32; PANEL]) {
            // SAFETY: see [`Avx512`].
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) };
        }
    }
}
