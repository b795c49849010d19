//! Mixtures of experts with made-up weights, for every backend.

use realm_compute::{Activation, Backend, Gating, GroupRank, Groups, Lora, LoraRow, Mixture, Routing, quant};
use realm_gguf::{Tensor, TensorInfo, TensorType};

use super::{Random, blocks, buffer, contents};

/// Matrices in a file's type, and what they decode to, `[count][outputs][inputs]`.
pub(crate) struct Weights {
    pub(crate) ty: TensorType,
    pub(crate) shape: [usize; 3],
    pub(crate) data: Vec<u8>,
    pub(crate) values: Vec<f32>,
}

impl Weights {
    pub(crate) fn new(ty: TensorType, shape: [usize; 3], random: &mut Random) -> Self {
        let len = shape.iter().product();
        let data = blocks(ty, len, random);
        let mut values = vec![0.0; len];
        quant::dequantize(ty, &data, &mut values).unwrap();
        Self { ty, shape, data, values }
    }

    pub(crate) fn with<T>(&self, make: impl FnOnce(&Tensor<'_>) -> T) -> T {
        let [count, outputs, inputs] = self.shape.map(|len| len as u64);
        let shape = if count == 1 { vec![inputs, outputs] } else { vec![inputs, outputs, count] };
        let info = TensorInfo::new("blk.0.w", shape, self.ty).unwrap();
        make(&Tensor { info: &info, data: &self.data })
    }

    /// As [`Self::with`], with a third dimension also for one matrix.
    pub(crate) fn with_all<T>(&self, make: impl FnOnce(&Tensor<'_>) -> T) -> T {
        let [count, outputs, inputs] = self.shape.map(|len| len as u64);
        let info = TensorInfo::new("blk.0.w", vec![inputs, outputs, count], self.ty).unwrap();
        make(&Tensor { info: &info, data: &self.data })
    }

    /// The product of matrix `index` with `x`.
    pub(crate) fn product(&self, index: usize, x: &[f64]) -> Vec<f64> {
        let [_, outputs, inputs] = self.shape;
        let matrix = &self.values[index * outputs * inputs..][..outputs * inputs];
        matrix.chunks_exact(inputs).map(|w| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
    }
}

/// A mixture with made-up weights.
pub(crate) struct Case {
    pub(crate) routing: Routing,
    pub(crate) activation: Activation,
    pub(crate) accumulate: bool,
    pub(crate) router: Weights,
    pub(crate) gate: Option<Weights>,
    pub(crate) up: Weights,
    pub(crate) down: Weights,
    pub(crate) router_bias: Option<Vec<f32>>,
    pub(crate) selection_bias: Option<Vec<f32>>,
    pub(crate) biases: Option<[Vec<f32>; 3]>,
    pub(crate) adapters: Vec<Adapter>,
}

/// Low-rank changes of gates, ups and downs, each `a` and `b`, and the factor on them.
pub(crate) struct Adapter {
    pub(crate) pairs: [Option<[Weights; 2]>; 3],
    pub(crate) scale: f32,
}

impl Adapter {
    /// Makes an adapter for a mixture. `of` says which of its matrices it changes.
    pub(crate) fn new(ty: TensorType, case: &Case, rank: usize, of: [bool; 3], random: &mut Random) -> Self {
        let [experts, inner, hidden] = case.up.shape;
        let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
        let mut index = 0;
        let pairs = shapes.map(|[outputs, inputs]| {
            let wanted = of[index] && (index > 0 || case.gate.is_some());
            index += 1;
            wanted.then(|| {
                [[experts, rank, inputs], [experts, outputs, rank]]
                    .map(|shape| Weights::new(ty, shape, random))
            })
        });
        Self { pairs, scale: 0.5 }
    }
}

/// The adapters' pairs on a backend, of gates, ups and downs.
pub(crate) type Pairs<B> = Vec<[Option<<B as Backend>::LowRank>; 3]>;

/// The weights on a backend.
pub(crate) struct Loaded<B: Backend> {
    router: B::Matrix,
    gate: Option<B::Experts>,
    up: B::Experts,
    down: B::Experts,
    router_bias: Option<B::Vector>,
    selection_bias: Option<B::Vector>,
    biases: Option<[B::Vector; 3]>,
}

impl Case {
    pub(crate) fn random(ty: TensorType, random: &mut Random) -> Self {
        let mut pick = |n: u64| (random.next() >> 20) % n;
        let whole = ty.block_len().max(8) as u64;
        let (hidden, inner) = (whole * (1 + pick(512 / whole)), whole * (1 + pick(300 / whole)));
        let count = 1 + pick(4);
        let experts = count * (2 + pick(5));
        let groups = (pick(2) == 0).then(|| Groups {
            count: count as usize,
            used: 1 + pick(count) as usize,
            rank: GroupRank::BestTwo,
        });
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
            adapters: Vec::new(),
        }
    }

    /// Loads the adapters.
    pub(crate) fn pairs<B: Backend>(&self, b: &B) -> Pairs<B> {
        let load = |pair: &[Weights; 2]| {
            pair[0].with_all(|a| pair[1].with_all(|second| b.low_rank(a, second))).unwrap()
        };
        self.adapters
            .iter()
            .map(|adapter| adapter.pairs.each_ref().map(|pair| pair.as_ref().map(load)))
            .collect()
    }

    /// Computes rows `x` on top of `before`, of which row `i` uses the adapter `uses[i]`, with its number
    /// over 8 added to a factor of 1.
    pub(crate) fn run_adapted<B: Backend>(
        &self,
        b: &B,
        (loaded, pairs): (&Loaded<B>, &Pairs<B>),
        x: &[f32],
        before: &[f32],
        uses: &[Option<usize>],
    ) -> Vec<f32> {
        let rows = |adapter: usize| -> Vec<LoraRow> {
            let of = uses.iter().enumerate().filter(|(_, used)| **used == Some(adapter));
            of.map(|(row, _)| LoraRow { row: row as u32, scale: 1.0 + adapter as f32 / 8.0 }).rev().collect()
        };
        let rows: Vec<Vec<LoraRow>> = (0..self.adapters.len()).map(rows).collect();
        let of = |which: usize| -> Vec<Lora<'_, B>> {
            let each = pairs.iter().zip(&self.adapters).zip(&rows);
            each.filter_map(|((pairs, adapter), rows)| {
                Some(Lora { pair: pairs[which].as_ref()?, scale: adapter.scale, rows })
            })
            .collect()
        };
        let [gate, up, down] = [0, 1, 2].map(of);
        let spec = Mixture { gate_lora: &gate, up_lora: &up, down_lora: &down, ..self.spec(loaded) };
        let mut out = buffer(b, uses.len(), self.hidden(), before);
        b.mixture(&buffer(b, uses.len(), self.hidden(), x), &spec, &mut out).unwrap();
        contents(b, &out)
    }

    pub(crate) fn hidden(&self) -> usize {
        self.up.shape[2]
    }

    pub(crate) fn load<B: Backend>(&self, b: &B) -> Loaded<B> {
        let experts = |weights: &Weights| weights.with(|tensor| b.experts(tensor)).unwrap();
        let vector = |values: &Vec<f32>| b.vector(values).unwrap();
        Loaded {
            router: self.router.with(|tensor| b.matrix(tensor)).unwrap(),
            gate: self.gate.as_ref().map(experts),
            up: experts(&self.up),
            down: experts(&self.down),
            router_bias: self.router_bias.as_ref().map(vector),
            selection_bias: self.selection_bias.as_ref().map(vector),
            biases: self.biases.as_ref().map(|biases| biases.each_ref().map(vector)),
        }
    }

    /// The operation's parameters.
    pub(crate) fn spec<'a, B: Backend>(&self, loaded: &'a Loaded<B>) -> Mixture<'a, B> {
        let biases = loaded.biases.as_ref();
        Mixture {
            router: &loaded.router,
            router_bias: loaded.router_bias.as_ref(),
            routing: self.routing,
            selection_bias: loaded.selection_bias.as_ref(),
            gate: loaded.gate.as_ref(),
            up: &loaded.up,
            down: &loaded.down,
            gate_bias: biases.map(|biases| &biases[0]).filter(|_| loaded.gate.is_some()),
            up_bias: biases.map(|biases| &biases[1]),
            down_bias: biases.map(|biases| &biases[2]),
            activation: self.activation,
            gate_lora: &[],
            up_lora: &[],
            down_lora: &[],
            accumulate: self.accumulate,
        }
    }

    /// Computes rows `x` on top of `before`.
    pub(crate) fn run<B: Backend>(&self, b: &B, loaded: &Loaded<B>, x: &[f32], before: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.hidden();
        let mut out = buffer(b, rows, self.hidden(), before);
        b.mixture(&buffer(b, rows, self.hidden(), x), &self.spec(loaded), &mut out).unwrap();
        contents(b, &out)
    }

    /// A row's experts and weights.
    pub(crate) fn route(&self, x: &[f64]) -> Vec<(usize, f64)> {
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
        if let Some(Groups { count, used, rank }) = groups {
            let size = keys.len() / count;
            let mut ranks: Vec<(f64, usize)> = (0..count)
                .map(|group| {
                    let mut of = keys[group * size..][..size].to_vec();
                    of.sort_by(|a, b| b.total_cmp(a));
                    (of.iter().take(if rank == GroupRank::Best { 1 } else { 2 }).sum(), group)
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
    pub(crate) fn want(&self, x: &[f32], before: &[f32]) -> Vec<f64> {
        self.want_adapted(x, before, None)
    }

    /// The result of one row with an adapter.
    pub(crate) fn want_adapted(&self, x: &[f32], before: &[f32], adapter: Option<usize>) -> Vec<f64> {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let mut out: Vec<f64> =
            before.iter().map(|&x| if self.accumulate { f64::from(x) } else { 0.0 }).collect();
        for (expert, weight) in self.route(&x) {
            let (before, after) = if self.routing.weights_input { (weight, 1.0) } else { (1.0, weight) };
            let x: Vec<f64> = x.iter().map(|x| x * before).collect();
            let of = |weights: &Weights, bias: usize, x: &[f64]| {
                let mut y = weights.product(expert, x);
                let used = adapter.map(|index| (index, &self.adapters[index]));
                if let Some((index, Adapter { pairs, scale })) = used
                    && let Some([a, b]) = &pairs[bias]
                {
                    let scale = f64::from(*scale) * (1.0 + index as f64 / 8.0);
                    let change = b.product(expert, &a.product(expert, x));
                    y.iter_mut().zip(change).for_each(|(y, change)| *y += scale * change);
                }
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
