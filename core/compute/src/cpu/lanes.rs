//! Eight floats at a time, in plain Rust.
//!
//! Norms, rotations and activations are written once with these; [`versions!`] compiles it again for each
//! instruction set, where the compiler turns an array of eight floats into a register. Every instruction set
//! runs the same operations in the same order (`mul_add` is an exact fused multiply-add even if it is a
//! library call), so results agree to the last bit.

/// Number of lanes.
pub(crate) const LANES: usize = 8;

/// Eight floats.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct F32x8(pub(crate) [f32; LANES]);

#[allow(
    clippy::needless_range_loop,
    reason = "plain loops are inlined for sure, so that they are compiled for the caller's instruction set"
)]
impl F32x8 {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);

    #[inline(always)]
    pub(crate) fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    /// Loads the first eight numbers of `x`.
    #[inline(always)]
    pub(crate) fn load(x: &[f32]) -> Self {
        let mut lanes = [0.0; LANES];
        lanes.copy_from_slice(&x[..LANES]);
        Self(lanes)
    }

    #[inline(always)]
    pub(crate) fn store(self, out: &mut [f32]) {
        out[..LANES].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            out[i] = f(self.0[i], b.0[i]);
        }
        Self(out)
    }

    #[inline(always)]
    pub(crate) fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            out[i] = f(self.0[i]);
        }
        Self(out)
    }

    #[inline(always)]
    pub(crate) fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }

    #[inline(always)]
    pub(crate) fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }

    #[inline(always)]
    pub(crate) fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }

    #[inline(always)]
    pub(crate) fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }

    #[inline(always)]
    pub(crate) fn max(self, b: Self) -> Self {
        self.zip(b, |a, b| if a > b { a } else { b })
    }

    /// Computes `self * b + c`, rounded once.
    #[inline(always)]
    pub(crate) fn mul_add(self, b: Self, c: Self) -> Self {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            out[i] = self.0[i].mul_add(b.0[i], c.0[i]);
        }
        Self(out)
    }

    /// The sum of the lanes, added as a tree.
    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    /// The largest lane.
    #[inline(always)]
    pub(crate) fn largest(self) -> f32 {
        self.0.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
    }

    /// `e^x` to about 2 units in the last place. Cephes' `expf` (Moshier): `x = n ln 2 + r`, a polynomial of
    /// degree 6 on `|r| ≤ ln 2 / 2`, times 2ⁿ. Below -87.3 it is 0; above 88.3 it saturates there.
    #[inline(always)]
    pub(crate) fn exp(self) -> Self {
        let x = self.map(|x| if x > 88.3 { 88.3 } else { x }).map(|x| if x < -87.3 { -87.3 } else { x });
        let n = x.map(|x| (x * std::f32::consts::LOG2_E).round_ties_even());
        let r = n.mul_add(Self::splat(-0.693_359_4), x);
        let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.mul_add(r, Self::splat(c));
        }
        let p = p.mul_add(r.mul(r), r).add(Self::splat(1.0));
        // 2ⁿ, -126 ≤ n ≤ 127, by writing the exponent.
        let scale = n.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32));
        let e = p.mul(scale);
        self.zip(e, |x, e| if x < -87.3 { 0.0 } else { e })
    }

    /// `tanh(x) = 1 - 2 / (e^2x + 1)`.
    #[inline(always)]
    pub(crate) fn tanh(self) -> Self {
        let e = self.add(self).exp();
        Self::splat(1.0).sub(Self::splat(2.0).div(e.add(Self::splat(1.0))))
    }
}

/// Declares `fn name(isa, args)` that runs `body(args)`, compiled for the instruction set.
///
/// `body` and what it calls must be `#[inline(always)]`, so that they are compiled with the features of the
/// function they end up in.
macro_rules! versions {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "kernels have many operands")]
        pub(crate) fn $name(isa: $crate::cpu::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
            fn avx512($($arg: $ty),*) {
                $body($($arg),*)
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` other than `Scalar` exists only where the processor has it.
                $crate::cpu::Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` other than `Scalar` exists only where the processor has it.
                $crate::cpu::Isa::Avx512 => unsafe { avx512($($arg),*) },
                _ => $body($($arg),*),
            }
        }
    };
}
pub(crate) use versions;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_are_accurate() {
        for i in -9_000..9_000 {
            let x = i as f32 * 0.01;
            let got = F32x8::splat(x).exp().0[3] as f64;
            let want = (x as f64).exp();
            if x > -87.0 && x < 88.0 {
                assert!((got / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, not {want}");
            }
            let tanh = F32x8::splat(x).tanh().0[0] as f64;
            assert!((tanh - (x as f64).tanh()).abs() < 3e-7, "tanh({x}) = {tanh}");
        }
        assert_eq!(F32x8::splat(f32::NEG_INFINITY).exp().0[0], 0.0);
    }
}
