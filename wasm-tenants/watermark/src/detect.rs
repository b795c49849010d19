//! Detects the watermark.

use std::collections::BTreeSet;

use realm_tenant::Token;
use serde::Serialize;

use crate::green::Green;

/// The result of a detection.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    tokens: usize,
    green: usize,
    z: f64,
    p: f64,
    watermarked: bool,
}

/// Counts green tokens. A repeated pair of tokens has no new information, and counts once (section 4 of the
/// paper).
pub(crate) fn detect(text: &[Token], green: &Green) -> Found {
    let pairs: BTreeSet<_> = text.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let found = pairs.iter().filter(|(previous, token)| green.contains(*previous, *token)).count();
    let (n, gamma) = (pairs.len() as f64, green.gamma);
    let z = match pairs.len() {
        0 => 0.0,
        _ => (found as f64 - gamma * n) / (n * gamma * (1.0 - gamma)).sqrt(),
    };
    // The probability that a normal variable is at least z.
    let p = 0.5 * libm::erfc(z / std::f64::consts::SQRT_2);
    Found { tokens: pairs.len(), green: found, z, p, watermarked: z > 4.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_green_tokens_is_marked_and_one_of_others_is_not() {
        let green = Green::new(3, 0.5).unwrap();
        let mut marked = vec![17];
        while marked.len() < 41 {
            let (last, n) = (marked[marked.len() - 1], marked.len());
            marked.extend(green.after(last, 1000).nth(n));
        }
        let found = detect(&marked, &green);
        // z is sqrt(40): all 40 tokens are green, where half were expected.
        assert!(found.watermarked && (found.z - 6.3246).abs() < 1e-3, "{found:?}");
        assert!(found.p > 1e-10 && found.p < 2e-10, "{found:?}");
        let plain: Vec<_> = (0..400).map(|i| i * 7919 % 1000).collect();
        assert!(!detect(&plain, &green).watermarked);
        assert!(!detect(&[], &green).watermarked);
    }
}
