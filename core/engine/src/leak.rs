//! A measure of how much one number reveals about another, for tests of side channels between tenants.

use std::collections::HashMap;

/// Rounds of a test: 30 for every change, 200 in the nightly run.
pub(crate) fn rounds() -> usize {
    if std::env::var_os("REALM_LONG").is_some() { 200 } else { 30 }
}

/// Returns a generator of numbers below its argument. The same seed gives the same numbers.
pub(crate) fn random(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % below as u64) as usize
    }
}

/// Mutual information of pairs, in bits, estimated from their frequencies. The estimate is never below the
/// true value, and above it for few pairs; [`by_chance`] gives the excess that chance alone explains.
fn information(pairs: &[(usize, usize)]) -> f64 {
    let (mut both, mut left, mut right) = (HashMap::new(), HashMap::new(), HashMap::new());
    for &(x, y) in pairs {
        *both.entry((x, y)).or_insert(0.0) += 1.0;
        *left.entry(x).or_insert(0.0) += 1.0;
        *right.entry(y).or_insert(0.0) += 1.0;
    }
    let all = pairs.len() as f64;
    both.iter()
        .map(|(&(x, y), n): (&(usize, usize), &f64)| n / all * (n * all / (left[&x] * right[&y])).log2())
        .sum()
}

/// The information that the same numbers reveal in a random order, at the 99th percentile of 500 orders.
fn by_chance(pairs: &[(usize, usize)]) -> f64 {
    let mut random = random(1);
    let mut pairs = pairs.to_vec();
    let mut orders: Vec<f64> = (0..500)
        .map(|_| {
            for i in (1..pairs.len()).rev() {
                let j = random(i + 1);
                (pairs[i].1, pairs[j].1) = (pairs[j].1, pairs[i].1);
            }
            information(&pairs)
        })
        .collect();
    orders.sort_by(f64::total_cmp);
    orders[orders.len() * 99 / 100]
}

/// Panics if observations reveal more about a secret than chance would. Takes pairs of a secret and its
/// observation.
pub(crate) fn assert_tells_nothing(pairs: &[(usize, usize)]) {
    let (leaked, chance) = (information(pairs), by_chance(pairs));
    assert!(leaked <= chance + 1e-9, "{leaked:.2} bits, and chance gives {chance:.2}: {pairs:?}");
}

#[test]
fn what_tells_something_is_found_and_what_tells_nothing_is_not() {
    let mut random = random(5);
    let secrets: Vec<usize> = (0..30).map(|_| random(9)).collect();
    let pairs =
        |seen: &mut dyn FnMut(usize) -> usize| secrets.iter().map(|&s| (s, seen(s))).collect::<Vec<_>>();
    assert_tells_nothing(&pairs(&mut |_| 7));
    assert_tells_nothing(&pairs(&mut |_| random(9)));
    let leaks =
        |pairs: Vec<(usize, usize)>| std::panic::catch_unwind(|| assert_tells_nothing(&pairs)).is_err();
    assert!(leaks(pairs(&mut |secret| 64 - secret)));
    assert!(leaks(pairs(&mut |secret| usize::from(secret > 4))), "one bit is enough");
    assert!((information(&[(0, 0), (1, 1), (0, 0), (1, 1)]) - 1.0).abs() < 1e-9);
}
