//! Vectorized passes over all logits of a row, for sampling a token.
//!
//! Every instruction set runs the same operations in the same order, so that a seed gives the same text with
//! each. None of them is a fused multiply-add, which is a slow call on processors that lack the instruction.

use std::sync::OnceLock;

use super::Isa;
use super::lanes::versions;

/// The best instruction set. The backend has already refused an unknown name in `REALM_CPU`.
fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| Isa::choose().unwrap_or(Isa::Scalar))
}

/// `e^x` for `x` up to 0, to about 2 units in the last place (Cephes' `expf`); 0 below -87.3.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding this leaves the nearest whole number in the last bits.
    const ROUND: f32 = 12_582_912.0;
    const LEAST: f32 = -87.3;
    let clamped = if x > LEAST { x } else { LEAST };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * (r * r) + r + 1.0;
    let power = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x < LEAST { 0.0 } else { p * f32::from_bits(power) }
}

#[inline(always)]
fn weigh_body(logits: &[f32], temperature: f32, weights: &mut [f32]) {
    let mut most = f32::NEG_INFINITY;
    largest_body(logits, &mut most);
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = exp((logit - most) / temperature);
    }
}
versions! {
    fn weigh_with(logits: &[f32], temperature: f32, weights: &mut [f32]) = weigh_body
}

/// Fills `weights` with the weight of each token relative to the likeliest,
/// `e^((logit - largest) / temperature)`: from 0 to 1.
pub fn weigh(logits: &[f32], temperature: f32, weights: &mut Vec<f32>) {
    weights.resize(logits.len(), 0.0);
    weigh_with(isa(), logits, temperature, weights);
}

#[inline(always)]
fn largest_body(values: &[f32], most: &mut f32) {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    *most = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
}
versions! {
    fn largest_with(values: &[f32], most: &mut f32) = largest_body
}

/// The largest number; -infinity if `values` is empty. Skips NaN.
pub fn largest(values: &[f32]) -> f32 {
    let mut most = f32::NEG_INFINITY;
    largest_with(isa(), values, &mut most);
    most
}

#[inline(always)]
fn sum_body(values: &[f32], total: &mut f64) {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0; 16];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane += f64::from(value);
        }
    }
    let rest = rest.iter().map(|&value| f64::from(value));
    *total = lanes.into_iter().chain(rest).fold(0.0, |total, value| total + value);
}
versions! {
    fn sum_with(values: &[f32], total: &mut f64) = sum_body
}

/// The sum of all numbers.
pub fn sum(values: &[f32]) -> f64 {
    let mut total = 0.0;
    sum_with(isa(), values, &mut total);
    total
}

#[inline(always)]
fn mean_body(weights: &[f32], logits: &[f32], mean: &mut f64) {
    let term = |weight: f32, logit: f32| {
        f64::from(weight) * f64::from(if logit > f32::NEG_INFINITY { logit } else { 0.0 })
    };
    let ((blocks, rest), (logit_blocks, logit_rest)) = (weights.as_chunks::<8>(), logits.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (weights, logits) in blocks.iter().zip(logit_blocks) {
        for ((lane, &weight), &logit) in lanes.iter_mut().zip(weights).zip(logits) {
            *lane += term(weight, logit);
        }
    }
    let rest = rest.iter().zip(logit_rest).map(|(&weight, &logit)| term(weight, logit));
    let mut total = 0.0;
    sum_body(weights, &mut total);
    *mean = lanes.into_iter().chain(rest).fold(0.0, |sum, term| sum + term) / total;
}
versions! {
    fn mean_with(weights: &[f32], logits: &[f32], mean: &mut f64) = mean_body
}

/// The weighted mean of logits. Logits of -infinity have no weight.
pub fn mean(weights: &[f32], logits: &[f32]) -> f64 {
    let mut mean = 0.0;
    mean_with(isa(), weights, logits, &mut mean);
    mean
}

#[inline(always)]
fn nearest_first_body(logits: &[f32], to: f64, keys: &mut [u32]) {
    for (key, &logit) in keys.iter_mut().zip(logits) {
        // Bits of non-negative floats order like the numbers.
        *key = ((to - f64::from(logit)).abs() as f32).to_bits() << 1;
    }
}
versions! {
    fn nearest_first_with(logits: &[f32], to: f64, keys: &mut [u32]) = nearest_first_body
}

/// Fills `keys` with numbers that are smaller the nearer a logit is to the value `to`.
pub fn nearest_first(logits: &[f32], to: f64, keys: &mut Vec<u32>) {
    keys.resize(logits.len(), 0);
    nearest_first_with(isa(), logits, to, keys);
}

/// Returns a key that is smaller the larger a logit is, in the order of `f32::total_cmp`.
#[inline(always)]
pub fn key_of_largest_first(logit: f32) -> u32 {
    let bits = logit.to_bits();
    // Flip all bits but the sign if the sign bit is 0.
    bits ^ (!((bits.cast_signed() >> 31).cast_unsigned()) & (u32::MAX >> 1))
}

#[inline(always)]
fn largest_first_body(logits: &[f32], keys: &mut [u32]) {
    for (key, &logit) in keys.iter_mut().zip(logits) {
        *key = key_of_largest_first(logit);
    }
}
versions! {
    fn largest_first_with(logits: &[f32], keys: &mut [u32]) = largest_first_body
}

/// Fills `keys` with each logit's [`key_of_largest_first`].
pub fn largest_first(logits: &[f32], keys: &mut Vec<u32>) {
    keys.resize(logits.len(), 0);
    largest_first_with(isa(), logits, keys);
}

#[inline(always)]
fn keep_body(last: (u32, u32), keys: &[u32], tokens: &[u32], logits: &mut [f32]) {
    for ((logit, &key), &token) in logits.iter_mut().zip(keys).zip(tokens) {
        let kept = (key < last.0) | ((key == last.0) & (token <= last.1));
        *logit = if kept { *logit } else { f32::NEG_INFINITY };
    }
}
versions! {
    fn keep_with(last: (u32, u32), keys: &[u32], tokens: &[u32], logits: &mut [f32]) = keep_body
}

/// Sets all logits to -infinity that come after the pair `last` of key and token in order.
pub fn keep(last: (u32, u32), keys: &[u32], tokens: &[u32], logits: &mut [f32]) {
    keep_with(isa(), last, keys, tokens, logits);
}

#[inline(always)]
fn keep_heavy_body(least: f32, weights: &[f32], logits: &mut [f32]) {
    for (logit, &weight) in logits.iter_mut().zip(weights) {
        *logit = if weight >= least { *logit } else { f32::NEG_INFINITY };
    }
}
versions! {
    fn keep_heavy_with(least: f32, weights: &[f32], logits: &mut [f32]) = keep_heavy_body
}

/// Sets all logits to -infinity whose weight is less than `least`.
pub fn keep_heavy(least: f32, weights: &[f32], logits: &mut [f32]) {
    keep_heavy_with(isa(), least, weights, logits);
}

#[inline(always)]
fn clear_body(logits: &[f32], weights: &mut [f32], left: &mut u32) {
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        let kept = logit > f32::NEG_INFINITY;
        *left += u32::from(kept);
        *weight = if kept { *weight } else { 0.0 };
    }
}
versions! {
    fn clear_with(logits: &[f32], weights: &mut [f32], left: &mut u32) = clear_body
}

/// Sets the weight of every logit of -infinity to 0; returns the number of the other logits.
pub fn clear(logits: &[f32], weights: &mut [f32]) -> usize {
    let mut left = 0;
    clear_with(isa(), logits, weights, &mut left);
    left as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made-up numbers.
    fn numbers(len: usize, scale: f32) -> Vec<f32> {
        (0..len as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 * scale)
            .collect()
    }

    #[test]
    fn it_is_the_exponential() {
        for x in numbers(50_000, -87.2).into_iter().chain(numbers(50_000, -1.0)) {
            let wanted = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) - wanted).abs() <= wanted * 2.5e-7,
                "{} of {x} instead of {wanted}",
                exp(x)
            );
        }
        assert_eq!([0.0, -0.0, -88.0, f32::NEG_INFINITY, f32::MIN].map(exp), [1.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn instruction_sets_agree_to_the_last_bit() {
        for len in [0, 1, 7, 8, 17, 1000] {
            let mut logits = numbers(len, 30.0);
            logits.iter_mut().step_by(5).for_each(|logit| *logit = f32::NEG_INFINITY);
            let all: Vec<_> = Isa::available()
                .into_iter()
                .map(|isa| {
                    let (mut weights, mut keys) = (vec![0.0; len], vec![0; len]);
                    let (mut total, mut mean, mut most) = (0.0, 0.0, 0.0);
                    weigh_with(isa, &logits, 0.7, &mut weights);
                    sum_with(isa, &weights, &mut total);
                    mean_with(isa, &weights, &logits, &mut mean);
                    largest_with(isa, &logits, &mut most);
                    nearest_first_with(isa, &logits, mean, &mut keys);
                    let bits: Vec<u32> = weights.iter().map(|weight| weight.to_bits()).collect();
                    (bits, keys, total.to_bits(), mean.to_bits(), most.to_bits())
                })
                .collect();
            assert!(all.iter().all(|one| *one == all[0]), "{len} numbers");
        }
    }

    #[test]
    fn larger_logits_come_first() {
        let mut logits = vec![f32::NEG_INFINITY, -3.0, -1e-40, -0.0, 0.0, 1e-40, 2.0, f32::INFINITY];
        let mut keys = Vec::new();
        logits.reverse();
        largest_first(&logits, &mut keys);
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    }
}
