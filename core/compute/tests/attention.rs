//! Compares attention with all its options with the full score matrix in f64.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::options::Case;
use common::{Random, backends, relative_error};
use realm_compute::{Backend, CacheType, Window};

/// Compares all instruction sets with the formula, and rows in pieces with rows together.
fn check(case: &Case, bound: f64, pieces: &[usize]) {
    let want = case.want();
    let mut first: Option<Vec<f32>> = None;
    for b in backends() {
        let what = format!("{} on {}", case.words(), b.description());
        let whole = case.run(&b, case.rows);
        let error = relative_error(&whole, &want);
        assert!(error < bound, "{error:.2e}, {what}");
        for &piece in pieces {
            assert!(case.run(&b, piece) == whole, "pieces of {piece}, {what}");
        }
        assert!(first.get_or_insert_with(|| whole.clone()) == &whole, "{what}");
    }
}

#[test]
fn every_combination_of_options_equals_the_full_score_matrix() {
    let mut random = Random(31);
    for round in 0..40 {
        check(&Case::random(&mut random), 3e-6, &[1 + round % 40]);
    }
}

#[test]
fn latent_heads_of_576_are_attended_in_any_cache() {
    let mut random = Random(32);
    for (kind, bound) in [(CacheType::F32, 3e-6), (CacheType::F16, 1e-3), (CacheType::Q8_0, 2e-2)] {
        // More query heads than one task takes.
        let case = Case { kind, rotated: Some(32), ..Case::new([64, 1, 576, 35], &mut random) };
        check(&case, bound, &[7]);
    }
}

/// When a sequence decodes alone, threads share the chunks of its long context.
#[test]
fn sinks_have_one_share_in_a_long_context() {
    let mut random = Random(33);
    let case = Case::new([6, 2, 32, 600], &mut random);
    let case = Case { sinks: Some(random.floats(6, 3.0)), ..case };
    check(&case, 3e-6, &[599]);
    // A sink above all scores.
    check(&Case { sinks: Some(vec![40.0; 6]), ..case }, 3e-6, &[599]);
}

#[test]
fn a_chunk_gives_its_pages_back_like_a_window() {
    let mut random = Random(34);
    for tokens in [32, 40, 64] {
        let case = Case::new([4, 2, 16, 150], &mut random);
        check(&Case { window: Some(Window::Chunked(tokens)), ..case }, 3e-6, &[1, 33, 64]);
    }
}
