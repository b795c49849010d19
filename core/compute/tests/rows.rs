//! Compares the row-by-row operations with plain loops in f64.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::{Random, backends, buffer, contents, relative_error};
use realm_compute::cpu::CpuBackend;
use realm_compute::{Activation, Backend, Columns, Error, Norm, NormKind};

/// Widths with and without a remainder of the vectors' lanes.
const WIDTHS: [usize; 6] = [1, 7, 8, 40, 129, 1024];

fn norm_f64(x: &[f32], kind: NormKind, weight: Option<&Vec<f32>>, bias: Option<&Vec<f32>>) -> Vec<f64> {
    let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let n = x.len() as f64;
    let mean = if kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
    let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let of = |p: Option<&Vec<f32>>, i: usize, or: f64| p.map_or(or, |p| f64::from(p[i]));
    let factor = 1.0 / (square + 1e-5).sqrt();
    x.iter().enumerate().map(|(i, x)| (x - mean) * factor * of(weight, i, 1.0) + of(bias, i, 0.0)).collect()
}

#[test]
fn norms_of_every_kind_equal_the_formula() {
    let mut random = Random(21);
    for width in WIDTHS {
        for (kind, weighted, biased) in [NormKind::Rms, NormKind::Layer]
            .into_iter()
            .flat_map(|kind| (0..4).map(move |i| (kind, i & 1 > 0, i & 2 > 0)))
        {
            let rows = 5;
            // An offset that the mean takes away.
            let x: Vec<f32> = random.floats(rows * width, 1.0).iter().map(|x| x + 3.0).collect();
            let delta = random.floats(rows * width, 2.0);
            let (weight, bias) = (random.floats(width, 1.0), random.floats(width, 1.0));
            let (weight, bias) = (weighted.then_some(&weight), biased.then_some(&bias));
            let normed = |x: &[f32]| -> Vec<f64> {
                x.chunks_exact(width).flat_map(|x| norm_f64(x, kind, weight, bias)).collect()
            };
            let want = normed(&x);
            let sums: Vec<f64> = normed(&delta).iter().zip(&x).map(|(d, &x)| d + f64::from(x)).collect();
            let mut first: Option<[Vec<f32>; 2]> = None;
            for b in backends() {
                let norm = Norm { kind, weight, bias, eps: 1e-5 };
                let (mut a, mut out) = (buffer(&b, rows, width, &x), b.buffer(0, width).unwrap());
                b.norm(&a, &norm, &mut out).unwrap();
                b.add_norm(&mut a, &buffer(&b, rows, width, &delta), &norm).unwrap();
                let got = [contents(&b, &out), contents(&b, &a)];
                for (got, want) in got.iter().zip([&want, &sums]) {
                    let off =
                        got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).abs()).fold(0.0, f64::max);
                    assert!(off < 3e-5, "{kind:?} of {width} on {}: {off:.1e}", b.description());
                }
                assert!(first.get_or_insert_with(|| got.clone()) == &got, "{kind:?}, {}", b.description());
            }
        }
    }
}

#[test]
fn activations_with_and_without_a_gate_equal_the_formula() {
    let mut random = Random(22);
    let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 2.0 };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for width in WIDTHS {
        let (rows, scale) = (3, 2.0);
        let (gate, up) = (random.floats(rows * width, scale), random.floats(rows * width, scale));
        for activation in
            [Activation::Silu, Activation::GeluTanh, Activation::ReluSquared, Activation::Sigmoid, clamped]
        {
            let act = |x: f64| match activation {
                Activation::Silu => x * sigmoid(x),
                Activation::GeluTanh => {
                    x * 0.5 * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x * x * x)).tanh())
                }
                Activation::ReluSquared => x.max(0.0).powi(2),
                Activation::Sigmoid => sigmoid(x),
                _ => x.min(2.0) * sigmoid(1.702 * x.min(2.0)),
            };
            let gates = gate.iter().map(|&x| act(f64::from(x)));
            let alone: Vec<f64> = gates.clone().collect();
            let want: Vec<f64> = gates
                .zip(&up)
                .map(|(gate, &up)| {
                    let up = f64::from(up);
                    gate * if activation == clamped { up.clamp(-2.0, 2.0) + 1.0 } else { up }
                })
                .collect();
            for b in backends() {
                let (mut x, up) = (buffer(&b, rows, width, &gate), buffer(&b, rows, width, &up));
                b.gated_activation(activation, &mut x, &up).unwrap();
                assert!(relative_error(x.data(), &want) < 1e-6, "{activation:?} on {}", b.description());
                let mut x = buffer(&b, rows, width, &gate);
                if activation == clamped {
                    let refused = b.activation(activation, &mut x);
                    assert!(matches!(refused, Err(Error::InvalidArgument(_))));
                    continue;
                }
                b.activation(activation, &mut x).unwrap();
                assert!(relative_error(x.data(), &alone) < 1e-6, "{activation:?} on {}", b.description());
            }
        }
    }
}

#[test]
fn sums_and_factors_are_exact() {
    let mut random = Random(23);
    for width in WIDTHS {
        let (x, delta) = (random.floats(4 * width, 1.0), random.floats(4 * width, 1.0));
        let gates = random.floats(4, 2.0);
        for b in backends() {
            let mut a = buffer(&b, 4, width, &x);
            b.add(&mut a, &buffer(&b, 4, width, &delta), 0.22).unwrap();
            let want: Vec<f32> = x.iter().zip(&delta).map(|(x, d)| x + 0.22 * d).collect();
            assert_eq!(a.data(), want);
            b.scale(&mut a, 3.0).unwrap();
            assert_eq!(a.data(), want.iter().map(|x| x * 3.0).collect::<Vec<_>>());
            let mut a = buffer(&b, 4, width, &x);
            b.scale_rows(&buffer(&b, 4, 1, &gates), &mut a).unwrap();
            let factor = |i: usize| 1.0 / (1.0 + (-f64::from(gates[i / width])).exp());
            let want: Vec<f64> = x.iter().enumerate().map(|(i, &x)| f64::from(x) * factor(i)).collect();
            assert!(relative_error(a.data(), &want) < 1e-6);
        }
    }
}

#[test]
fn pieces_of_rows_are_split_and_joined() {
    let b = CpuBackend::new(2).unwrap();
    let x: Vec<f32> = (0..3 * 10).map(|i| i as f32).collect();
    let x = buffer(&b, 3, 10, &x);
    let mut out = b.buffer(3, 8).unwrap();
    // Columns 1, 2 and 6, 7 become columns 0, 1 and 4, 5.
    let some = Columns { count: 2, width: 2, from: 1, from_step: 5, to: 0, to_step: 4 };
    b.copy_columns(&x, &some, &mut out).unwrap();
    // Columns 0 and 9 become columns 2 and 6.
    b.copy_columns(&x, &Columns { count: 2, width: 1, from: 0, from_step: 9, to: 2, to_step: 4 }, &mut out)
        .unwrap();
    for (row, out) in out.data().chunks_exact(8).enumerate() {
        let of = [1.0, 2.0, 0.0, 6.0, 7.0, 9.0].map(|column| 10.0 * row as f32 + column);
        assert_eq!([out[0], out[1], out[2], out[4], out[5], out[6]], of);
    }
    for wrong in [Columns { from: 4, ..some }, Columns { to: 3, ..some }, Columns { count: 3, ..some }] {
        assert!(b.copy_columns(&x, &wrong, &mut out).is_err(), "{wrong:?}");
    }
    let huge = Columns { to_step: usize::MAX, ..some };
    assert!(b.copy_columns(&x, &huge, &mut out).is_err());
}
