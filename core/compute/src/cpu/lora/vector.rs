//! Eight floats in a register, with three kinds of weights to load.
//!
//! The kernels are written once for [`Vector`]. Plain arrays, from which the compiler makes registers elsewhere in this
//! backend, will not do here: it sees that neighbouring sums have neighbouring weights, and transposes them back and
//! forth for twice the time.

use crate::cpu::lanes::{F32x8, LANES};

pub(super) trait Vector: Copy {
    const ZERO: Self;
    fn splat(x: f32) -> Self;
    fn floats(w: &[f32; LANES]) -> Self;
    /// From half floats, which are finite.
    fn halves(w: &[u16; LANES]) -> Self;
    fn bf16s(w: &[u16; LANES]) -> Self;
    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn lanes(self) -> F32x8;
}

impl Vector for F32x8 {
    const ZERO: Self = F32x8::ZERO;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        F32x8::splat(x)
    }

    #[inline(always)]
    fn floats(w: &[f32; LANES]) -> Self {
        F32x8(*w)
    }

    /// The exponent's bias is put right by a multiplication, which is exact.
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
    fn lanes(self) -> F32x8 {
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::{F32x8, LANES, Vector};

    /// Only for functions that are compiled for AVX2, FMA and F16C and run where these are: that is what all `unsafe`
    /// blocks below rely on, beside references to eight numbers.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(in super::super) struct Avx2(__m256);

    impl Vector for Avx2 {
        // SAFETY: all bits 0 are eight zeros.
        const ZERO: Self = Self(unsafe { std::mem::zeroed() });

        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see [`Avx2`].
            Self(unsafe { _mm256_set1_ps(x) })
        }

        #[inline(always)]
        fn floats(w: &[f32; LANES]) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_loadu_ps(w.as_ptr()) })
        }

        #[inline(always)]
        fn halves(w: &[u16; LANES]) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(w.as_ptr().cast())) })
        }

        #[inline(always)]
        fn bf16s(w: &[u16; LANES]) -> Self {
            // SAFETY: as above. A bf16 is the upper half of an f32.
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(w.as_ptr().cast()));
                Self(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)))
            }
        }

        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }

        #[inline(always)]
        fn lanes(self) -> F32x8 {
            let mut out = [0.0; LANES];
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), self.0) };
            F32x8(out)
        }
    }
}
