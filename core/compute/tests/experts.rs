//! Compares mixtures of experts and the matrices of heads with plain loops in f64.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::{Random, backends, blocks, buffer, relative_error};
use realm_compute::cpu::{CpuBackend, Experts, Matrix};
use realm_compute::{Activation, Backend, Error, Gating, Groups, Mixture, Routing, quant};
use realm_gguf::{Tensor, TensorInfo, TensorType};

/// Types of experts, of every family of kernels.
const TYPES: [TensorType; 12] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q4_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q4_K,
    TensorType::Q6_K,
    TensorType::IQ4_XS,
    TensorType::MXFP4,
    TensorType::NVFP4,
    TensorType::IQ2_S,
];

/// Matrices in a file's type, and what they decode to, `[count][outputs][inputs]`.
struct Weights {
    ty: TensorType,
    shape: [usize; 3],
    data: Vec<u8>,
    values: Vec<f32>,
}

impl Weights {
    fn new(ty: TensorType, shape: [usize; 3], random: &mut Random) -> Self {
        let len = shape.iter().product();
        let data = blocks(ty, len, random);
        let mut values = vec![0.0; len];
        quant::dequantize(ty, &data, &mut values).unwrap();
        Self { ty, shape, data, values }
    }

    fn with<T>(&self, make: impl FnOnce(&Tensor<'_>) -> T) -> T {
        let [count, outputs, inputs] = self.shape.map(|len| len as u64);
        let shape = if count == 1 { vec![inputs, outputs] } else { vec![inputs, outputs, count] };
        let info = TensorInfo::new("blk.0.w", shape, self.ty).unwrap();
        make(&Tensor { info: &info, data: &self.data })
    }

    /// The product of matrix `index` with `x`.
    fn product(&self, index: usize, x: &[f64]) -> Vec<f64> {
        let [_, outputs, inputs] = self.shape;
        let matrix = &self.values[index * outputs * inputs..][..outputs * inputs];
        matrix.chunks_exact(inputs).map(|w| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
    }
}

/// A mixture with made-up weights.
struct Case {
    routing: Routing,
    activation: Activation,
    accumulate: bool,
    router: Weights,
    gate: Option<Weights>,
    up: Weights,
    down: Weights,
    router_bias: Option<Vec<f32>>,
    selection_bias: Option<Vec<f32>>,
    biases: Option<[Vec<f32>; 3]>,
}

/// The weights on a backend.
struct Loaded {
    router: Matrix,
    gate: Option<Experts>,
    up: Experts,
    down: Experts,
}

impl Case {
    fn random(ty: TensorType, random: &mut Random) -> Self {
        let mut pick = |n: u64| (random.next() >> 20) % n;
        let whole = ty.block_len().max(8) as u64;
        let (hidden, inner) = (whole * (1 + pick(512 / whole)), whole * (1 + pick(300 / whole)));
        let count = 1 + pick(4);
        let experts = count * (2 + pick(5));
        let groups = (pick(2) == 0).then(|| Groups { count: count as usize, used: 1 + pick(count) as usize });
        let most = groups.map_or(experts, |groups| groups.used as u64 * (experts / count));
        let routing = Routing {
            used: 1 + pick(most.min(6)) as usize,
            gating: [Gating::Softmax, Gating::Sigmoid, Gating::SoftmaxOfChosen][pick(3) as usize],
            groups,
            normalize: pick(2) == 0,
            scale: [1.0, 2.5][pick(2) as usize],
            weights_input: pick(4) == 0,
        };
        let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 };
        let activation =
            [Activation::Silu, Activation::GeluTanh, Activation::Gelu, clamped][pick(4) as usize];
        let gated = activation == clamped || pick(3) > 0;
        let (biased, bias, selection) = (pick(2) == 0, pick(2) == 0, pick(2) == 0);
        let (accumulate, packed) = (pick(2) == 0, pick(4) == 0);
        let [experts, hidden, inner] = [experts, hidden, inner].map(|len| len as usize);
        let mut router =
            Weights::new(if packed { ty } else { TensorType::F32 }, [1, experts, hidden], random);
        if !packed {
            // Moderate scores: the sigmoids of large ones are equal.
            router.values.iter_mut().for_each(|x| *x /= (hidden as f32).sqrt());
            router.data = router.values.iter().flat_map(|x| x.to_le_bytes()).collect();
        }
        Self {
            routing,
            activation: if gated { activation } else { Activation::ReluSquared },
            accumulate,
            router,
            gate: gated.then(|| Weights::new(ty, [experts, inner, hidden], random)),
            up: Weights::new(ty, [experts, inner, hidden], random),
            down: Weights::new(ty, [experts, hidden, inner], random),
            router_bias: bias.then(|| random.floats(experts, 1.0)),
            selection_bias: selection.then(|| random.floats(experts, 0.3)),
            biases: biased.then(|| [inner, inner, hidden].map(|n| random.floats(experts * n, 0.5))),
        }
    }

    fn hidden(&self) -> usize {
        self.up.shape[2]
    }

    fn load(&self, b: &CpuBackend) -> Loaded {
        let experts = |weights: &Weights| weights.with(|tensor| b.experts(tensor)).unwrap();
        Loaded {
            router: self.router.with(|tensor| b.matrix(tensor)).unwrap(),
            gate: self.gate.as_ref().map(experts),
            up: experts(&self.up),
            down: experts(&self.down),
        }
    }

    /// Computes rows `x` on top of `before`.
    fn run(&self, b: &CpuBackend, loaded: &Loaded, x: &[f32], before: &[f32]) -> Vec<f32> {
        let Loaded { router, gate, up, down } = loaded;
        let biases = self.biases.as_ref();
        let spec = Mixture {
            router,
            router_bias: self.router_bias.as_ref(),
            routing: self.routing,
            selection_bias: self.selection_bias.as_ref(),
            gate: gate.as_ref(),
            up,
            down,
            gate_bias: biases.map(|biases| &biases[0]).filter(|_| gate.is_some()),
            up_bias: biases.map(|biases| &biases[1]),
            down_bias: biases.map(|biases| &biases[2]),
            activation: self.activation,
            accumulate: self.accumulate,
        };
        let rows = x.len() / self.hidden();
        let mut out = buffer(b, rows, self.hidden(), before);
        b.mixture(&buffer(b, rows, self.hidden(), x), &spec, &mut out).unwrap();
        out.data().to_vec()
    }

    /// A row's experts and weights.
    fn route(&self, x: &[f64]) -> Vec<(usize, f64)> {
        let Routing { used, gating, groups, normalize, scale, .. } = self.routing;
        let mut scores = self.router.product(0, x);
        let add = |scores: &mut [f64], bias: &Option<Vec<f32>>| {
            let bias = bias.iter().flatten();
            scores.iter_mut().zip(bias).for_each(|(score, &bias)| *score += f64::from(bias));
        };
        add(&mut scores, &self.router_bias);
        let softmax = |scores: &[f64]| -> Vec<f64> {
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            scores.iter().map(|score| (score - most).exp() / sum).collect()
        };
        let probabilities = match gating {
            Gating::Softmax => softmax(&scores),
            Gating::Sigmoid => scores.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect(),
            Gating::SoftmaxOfChosen => scores,
        };
        let mut keys = probabilities.clone();
        add(&mut keys, &self.selection_bias);
        if let Some(Groups { count, used }) = groups {
            let size = keys.len() / count;
            let mut ranks: Vec<(f64, usize)> = (0..count)
                .map(|group| {
                    let mut of = keys[group * size..][..size].to_vec();
                    of.sort_by(|a, b| b.total_cmp(a));
                    (of.iter().take(2).sum(), group)
                })
                .collect();
            ranks.sort_by(|a, b| b.0.total_cmp(&a.0));
            for &(_, group) in &ranks[used..] {
                keys[group * size..][..size].fill(f64::NEG_INFINITY);
            }
        }
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|&a, &b| keys[b].total_cmp(&keys[a]));
        order.truncate(used);
        let mut weights: Vec<f64> = order.iter().map(|&expert| probabilities[expert]).collect();
        if gating == Gating::SoftmaxOfChosen {
            weights = softmax(&weights);
        }
        if normalize {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        order.into_iter().zip(weights.into_iter().map(|weight| weight * f64::from(scale))).collect()
    }

    /// The result of one row.
    fn want(&self, x: &[f32], before: &[f32]) -> Vec<f64> {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let mut out: Vec<f64> =
            before.iter().map(|&x| if self.accumulate { f64::from(x) } else { 0.0 }).collect();
        for (expert, weight) in self.route(&x) {
            let (before, after) = if self.routing.weights_input { (weight, 1.0) } else { (1.0, weight) };
            let x: Vec<f64> = x.iter().map(|x| x * before).collect();
            let of = |weights: &Weights, bias: usize, x: &[f64]| {
                let mut y = weights.product(expert, x);
                if let Some(biases) = &self.biases {
                    let bias = &biases[bias][expert * y.len()..];
                    y.iter_mut().zip(bias).for_each(|(y, &bias)| *y += f64::from(bias));
                }
                y
            };
            let gate = self.gate.as_ref().map(|gate| of(gate, 0, &x));
            let up = of(&self.up, 1, &x);
            let h: Vec<f64> = (0..up.len())
                .map(|i| {
                    let act = |x: f64| match self.activation {
                        Activation::Silu => x / (1.0 + (-x).exp()),
                        Activation::ReluSquared => x.max(0.0).powi(2),
                        // Close to the exact form, to about 0.0005.
                        _ => x * 0.5 * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x * x * x)).tanh()),
                    };
                    match (&gate, self.activation) {
                        (Some(gate), Activation::ClampedSwiglu { alpha, limit }) => {
                            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
                            let g = gate[i].min(limit);
                            g / (1.0 + (-alpha * g).exp()) * (up[i].clamp(-limit, limit) + 1.0)
                        }
                        (Some(gate), _) => act(gate[i]) * up[i],
                        (None, _) => act(up[i]),
                    }
                })
                .collect();
            for (out, y) in out.iter_mut().zip(of(&self.down, 2, &h)) {
                *out += after * y;
            }
        }
        out
    }
}

#[test]
fn mixtures_equal_a_loop_over_each_rows_experts() {
    let mut random = Random(77);
    for (round, ty) in TYPES.into_iter().cycle().take(24).enumerate() {
        let case = Case::random(ty, &mut random);
        let hidden = case.hidden();
        let loaded: Vec<_> = backends().into_iter().map(|b| (case.load(&b), b)).collect();
        for rows in [1, 2 + round % 9, 20] {
            let x = random.floats(rows * hidden, 1.0);
            let before = random.floats(rows * hidden, 1.0);
            let row = |x: &[f32], row: usize| x[row * hidden..][..hidden].to_vec();
            let want: Vec<f64> = (0..rows).flat_map(|i| case.want(&row(&x, i), &row(&before, i))).collect();
            let mut first: Option<Vec<f32>> = None;
            for (loaded, b) in &loaded {
                let got = case.run(b, loaded, &x, &before);
                let error = relative_error(&got, &want);
                let bound = if ty.block_len() > 1 {
                    1e-1
                } else if case.activation == Activation::Gelu {
                    1e-3
                } else {
                    1e-5
                };
                let what = format!("{rows} rows of {ty}, {:?} on {}", case.routing, b.description());
                // The 8-bit scores of other routers can choose other experts.
                assert!(error < bound || case.router.ty.block_len() > 1, "{what}: {error:.2e}");
                assert!(first.get_or_insert_with(|| got.clone()) == &got, "{what}");
                for (i, got) in got.chunks_exact(hidden).enumerate().step_by(7) {
                    let alone = case.run(b, loaded, &row(&x, i), &row(&before, i));
                    assert!(alone == got, "row {i} alone, {what}");
                }
            }
        }
    }
}

#[test]
fn of_equal_experts_the_first_are_chosen() {
    let mut random = Random(5);
    let mut case = Case::random(TensorType::F32, &mut random);
    let experts = case.router.shape[1];
    case.router.data.fill(0);
    case.router.values.fill(0.0);
    (case.router_bias, case.selection_bias, case.accumulate) = (None, None, false);
    case.routing = Routing { used: 2.min(experts), gating: Gating::Sigmoid, groups: None, ..case.routing };
    let x = random.floats(case.hidden(), 1.0);
    let b = CpuBackend::new(2).unwrap();
    let got = case.run(&b, &case.load(&b), &x, &vec![0.0; x.len()]);
    let want = case.want(&x, &vec![0.0; x.len()]);
    let chosen: Vec<usize> =
        case.route(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()).iter().map(|c| c.0).collect();
    assert_eq!(chosen, (0..case.routing.used).collect::<Vec<_>>());
    assert!(relative_error(&got, &want) < 1e-3);
}

#[test]
fn each_head_is_multiplied_with_its_own_matrix() {
    let mut random = Random(9);
    for ty in TYPES {
        let whole = if ty.block_len() > 1 { ty.block_len() } else { 40 };
        let (heads, outputs, inputs, rows) = (3, 53, whole, 19);
        let weights = Weights::new(ty, [heads, outputs, inputs], &mut random);
        let x = random.floats(rows * heads * inputs, 1.0);
        let want: Vec<f64> = x
            .chunks_exact(inputs)
            .enumerate()
            .flat_map(|(i, x)| {
                let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                weights.product(i % heads, &x)
            })
            .collect();
        let mut first: Option<Vec<f32>> = None;
        for b in backends() {
            let w = weights.with(|tensor| b.experts(tensor)).unwrap();
            for rows in [rows, 1, 8] {
                let mut out = b.buffer(0, heads * outputs).unwrap();
                let x = buffer(&b, rows, heads * inputs, &x[..rows * heads * inputs]);
                b.each_head(&x, &w, &mut out).unwrap();
                let error = relative_error(out.data(), &want[..rows * heads * outputs]);
                let bound = if ty.block_len() == 1 { 1e-6 } else { 1.5e-2 };
                assert!(error < bound, "{ty} on {}: {error:.2e}", b.description());
                let all = first.get_or_insert_with(|| out.data().to_vec());
                assert!(out.data() == &all[..out.data().len()], "{rows} rows of {ty}, {}", b.description());
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let b = CpuBackend::new(1).unwrap();
    let mut random = Random(3);
    let weights = |shape| Weights::new(TensorType::F32, shape, &mut Random(3));
    let experts = |shape| weights(shape).with(|tensor| b.experts(tensor)).unwrap();
    let (up, down) = (experts([4, 24, 16]), experts([4, 16, 24]));
    let router = weights([1, 4, 16]).with(|tensor| b.matrix(tensor)).unwrap();
    let x = buffer(&b, 2, 16, &random.floats(32, 1.0));
    let routing = Routing {
        used: 2,
        gating: Gating::Softmax,
        groups: None,
        normalize: true,
        scale: 1.0,
        weights_input: false,
    };
    let spec = || Mixture {
        router: &router,
        router_bias: None,
        routing,
        selection_bias: None,
        gate: None,
        up: &up,
        down: &down,
        gate_bias: None,
        up_bias: None,
        down_bias: None,
        activation: Activation::Silu,
        accumulate: false,
    };
    let refused = |spec: Mixture<'_, CpuBackend>| {
        let mut out = b.buffer(1, 16).unwrap();
        assert!(matches!(b.mixture(&x, &spec, &mut out), Err(Error::InvalidArgument(_))));
    };
    b.mixture(&x, &spec(), &mut b.buffer(0, 16).unwrap()).unwrap();
    refused(Mixture { down: &up, ..spec() });
    refused(Mixture { gate: Some(&down), ..spec() });
    refused(Mixture { up_bias: Some(&vec![0.0; 24]), ..spec() });
    refused(Mixture { accumulate: true, ..spec() });
    refused(Mixture { activation: Activation::ClampedSwiglu { alpha: 1.0, limit: 1.0 }, ..spec() });
    for used in [0, 5] {
        refused(Mixture { routing: Routing { used, ..routing }, ..spec() });
    }
    for groups in [Groups { count: 3, used: 1 }, Groups { count: 4, used: 1 }, Groups { count: 2, used: 3 }] {
        refused(Mixture { routing: Routing { groups: Some(groups), ..routing }, ..spec() });
    }
    let wrong = weights([1, 5, 16]).with(|tensor| b.matrix(tensor)).unwrap();
    refused(Mixture { router: &wrong, ..spec() });
    assert!(b.each_head(&x, &up, &mut b.buffer(0, 96).unwrap()).is_err());
}
