//! The values that codes stand for, before scales.

/// A set of values, in units of a block's scale.
pub(super) trait Levels: Copy {
    /// The lowest value.
    const LOW: f32;
    /// The highest value.
    const HIGH: f32;
    /// Distance of the candidates at which a search of scales places a block's largest number.
    const STEP: f32;

    /// Returns the value nearest to `v`.
    fn nearest(v: f32) -> f32;
}

/// All integers from `LOW` to `HIGH`.
#[derive(Clone, Copy)]
pub(super) struct Integers<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Levels for Integers<LOW, HIGH> {
    const LOW: f32 = LOW as f32;
    const HIGH: f32 = HIGH as f32;
    const STEP: f32 = 0.1;

    #[inline(always)]
    fn nearest(v: f32) -> f32 {
        round(v.clamp(Self::LOW, Self::HIGH))
    }
}

/// The values of IQ4_NL and IQ4_XS.
pub(super) const IQ4: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

/// See [`IQ4`].
#[derive(Clone, Copy)]
pub(super) struct Iq4;

impl Levels for Iq4 {
    const LOW: f32 = IQ4[0];
    const HIGH: f32 = IQ4[15];
    const STEP: f32 = 1.0;

    #[inline(always)]
    fn nearest(v: f32) -> f32 {
        // The sum of the gaps below `v` is a chain of selections, which vectorizes.
        let mut value = IQ4[0];
        for pair in IQ4.windows(2) {
            value = if v > (pair[0] + pair[1]) / 2.0 { pair[1] } else { value };
        }
        value
    }
}

/// Twice the magnitudes of E2M1, the 4-bit floats of MXFP4; the code of a negative one has bit 3 set.
pub(super) const FP4: [f32; 8] = [0., 1., 2., 3., 4., 6., 8., 12.];

/// See [`FP4`].
#[derive(Clone, Copy)]
pub(super) struct Fp4;

impl Levels for Fp4 {
    const LOW: f32 = -FP4[7];
    const HIGH: f32 = FP4[7];
    const STEP: f32 = 1.0;

    #[inline(always)]
    fn nearest(v: f32) -> f32 {
        let mut magnitude = 0.0;
        for pair in FP4.windows(2) {
            magnitude = if v.abs() > (pair[0] + pair[1]) / 2.0 { pair[1] } else { magnitude };
        }
        f32::copysign(magnitude, v)
    }
}

/// Rounds to the nearest integer, halves to even; for magnitudes below 2^22. Unlike `f32::round`, it is two
/// additions on every processor.
#[inline(always)]
pub(super) fn round(v: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (v + SHIFT) - SHIFT
}
