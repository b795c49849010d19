//! The largest of many logits.

/// The number of logits that are checked together. Most blocks hold no larger logit, and the compiler checks
/// several at once.
const BLOCK: usize = 64;

/// Returns the `k` largest logits with their tokens, largest first and of equal ones the lower id first. NaN
/// is never among them.
pub fn top(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let k = k.min(logits.len());
    if k == 0 {
        return Vec::new();
    }
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let most = (4 * k).max(256);
    let mut kept: Vec<(u32, f32)> = Vec::with_capacity(most.min(logits.len()));
    // Logits below the k-th largest so far are skipped.
    let mut floor = f32::NEG_INFINITY;
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        if !block.iter().fold(false, |any, &logit| any | (logit >= floor)) {
            continue;
        }
        for (i, &logit) in block.iter().enumerate() {
            // NaN is below everything.
            if logit < floor || logit.is_nan() {
                continue;
            }
            kept.push(((index * BLOCK + i) as u32, logit));
            if kept.len() == most {
                kept.select_nth_unstable_by(k - 1, order);
                kept.truncate(k);
                floor = kept[k - 1].1;
            }
        }
    }
    kept.sort_unstable_by(order);
    kept.truncate(k);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_is_what_sorting_gives() {
        let mut values: Vec<f32> = (0..5000u32).map(|i| (i.wrapping_mul(2654435761) >> 20) as f32).collect();
        values[17] = f32::NAN;
        values[18] = f32::NEG_INFINITY;
        for k in [0, 1, 2, 40, 300, 5000, 9000] {
            let mut sorted: Vec<(u32, f32)> =
                (0..).zip(values.iter().copied()).filter(|l| !l.1.is_nan()).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(k);
            assert_eq!(top(&values, k), sorted, "k = {k}");
        }
    }
}
