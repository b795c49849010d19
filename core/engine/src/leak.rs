//! How much one number tells of another: what tests of channels between tenants measure.

use std::collections::HashMap;

/// Rounds of a test: few for every change, many in the nightly one.
pub(crate) fn rounds() -> usize {
    if std::env::var_os("REALM_LONG").is_some() { 200 } else { 30 }
}

/// Numbers below what is asked for, the same for the same seed.
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

/// Mutual information of pairs, in bits, as their frequencies have it. It is never less than what there is, and for few pairs
/// more: what chance alone would give is in [`by_chance`].
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

/// What the same numbers in any other order tell, in 99 of 100 orders.
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

/// Panics if what was seen tells more of the secret than chance would: pairs of a secret and what was seen of it.
pub(crate) fn assert_tells_nothing(pairs: &[(usize, usize)]) {
    let (told, chance) = (information(pairs), by_chance(pairs));
    assert!(told <= chance + 1e-9, "{told:.2} bits, and chance gives {chance:.2}: {pairs:?}");
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
