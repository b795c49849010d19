//! Compares the adapters' part of products with plain arithmetic.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::{Random, backends, blocks, buffer, matrix_f64, product, relative_error};
use realm_compute::cpu::{CpuBackend, LowRank};
use realm_compute::{Backend, Lora, LoraRow, MatMul};
use realm_gguf::{Tensor, TensorInfo, TensorType};

const OUTPUTS: usize = 40;

/// An adapter's two matrices as bytes.
struct Pair {
    ty: TensorType,
    rank: usize,
    inputs: usize,
    a: Vec<u8>,
    b: Vec<u8>,
}

impl Pair {
    fn new(ty: TensorType, rank: usize, inputs: usize, random: &mut Random) -> Self {
        let (a, b) = (blocks(ty, rank * inputs, random), blocks(ty, OUTPUTS * rank, random));
        Self { ty, rank, inputs, a, b }
    }

    fn upload(&self, b: &CpuBackend) -> LowRank {
        let info = |columns, rows| TensorInfo::new("t", vec![columns as u64, rows as u64], self.ty).unwrap();
        let (a_info, b_info) = (info(self.inputs, self.rank), info(self.rank, OUTPUTS));
        let tensors = [Tensor { info: &a_info, data: &self.a }, Tensor { info: &b_info, data: &self.b }];
        b.low_rank(&tensors[0], &tensors[1]).unwrap()
    }

    /// Computes `b · a · x` in f64.
    fn apply(&self, x: &[f32]) -> Vec<f64> {
        let hidden = matrix_f64(self.ty, &self.a, self.rank, self.inputs, x);
        let mut out = Vec::new();
        for hidden in hidden.chunks_exact(self.rank) {
            let mut weights = vec![0.0; OUTPUTS * self.rank];
            realm_compute::quant::dequantize(self.ty, &self.b, &mut weights).unwrap();
            out.extend(
                weights
                    .chunks_exact(self.rank)
                    .map(|w| hidden.iter().zip(w).map(|(&h, &w)| h * w as f64).sum::<f64>()),
            );
        }
        out
    }
}

/// Multiplies with a weight and adapters, each with its rows.
fn adapted(
    b: &CpuBackend,
    ty: TensorType,
    weight: &[u8],
    x: &[f32],
    adapters: &[(&Pair, f32, Vec<LoraRow>)],
) -> Vec<f32> {
    let inputs = adapters[0].0.inputs;
    let info = TensorInfo::new("w", vec![inputs as u64, OUTPUTS as u64], ty).unwrap();
    let weight = b.matrix(&Tensor { info: &info, data: weight }).unwrap();
    let pairs: Vec<_> = adapters.iter().map(|(pair, ..)| pair.upload(b)).collect();
    let lora: Vec<_> = pairs
        .iter()
        .zip(adapters)
        .map(|(pair, (_, scale, rows))| Lora { pair, scale: *scale, rows })
        .collect();
    let rows = x.len() / inputs;
    let x = buffer(b, rows, inputs, x);
    let mut out = b.buffer(rows, OUTPUTS).unwrap();
    let job = MatMul { weight: &weight, bias: None, out: &mut out, accumulate: false, lora: &lora };
    b.matmul(&x, &mut [job]).unwrap();
    out.data().to_vec()
}

fn rows(rows: impl IntoIterator<Item = u32>, scale: f32) -> Vec<LoraRow> {
    rows.into_iter().map(|row| LoraRow { row, scale }).collect()
}

#[test]
fn an_adapter_adds_its_product_to_its_rows_and_to_no_others() {
    let mut random = Random(21);
    for ty in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        // Widths and ranks that fill no register, and those of real models.
        for (inputs, rank) in [(37, 1), (64, 3), (576, 8), (1536, 16), (72, 70)] {
            let weight = blocks(TensorType::F32, OUTPUTS * inputs, &mut random);
            let pair = Pair::new(ty, rank, inputs, &mut random);
            let x = random.floats(7 * inputs, 1.0);
            let mut want = matrix_f64(TensorType::F32, &weight, OUTPUTS, inputs, &x);
            let added = pair.apply(&x);
            for row in [1, 5, 6] {
                for i in row * OUTPUTS..(row + 1) * OUTPUTS {
                    want[i] += 0.75 * added[i];
                }
            }
            for b in backends() {
                let got = adapted(&b, TensorType::F32, &weight, &x, &[(&pair, 1.5, rows([6, 1, 5], 0.5))]);
                let error = relative_error(&got, &want);
                assert!(error < 1e-6, "{ty}, rank {rank} of {inputs} on {}: {error:.2e}", b.description());
            }
        }
    }
}

#[test]
fn rows_with_adapters_have_the_same_bits_in_any_company_and_on_every_instruction_set() {
    let mut random = Random(22);
    let inputs = 512;
    for (ty, weight_ty) in [
        (TensorType::F32, TensorType::F32),
        (TensorType::F16, TensorType::Q4_1),
        (TensorType::BF16, TensorType::Q4_K),
    ] {
        let weight = blocks(weight_ty, OUTPUTS * inputs, &mut random);
        let pairs: Vec<_> = [16, 8, 5].map(|rank| Pair::new(ty, rank, inputs, &mut random)).into();
        let x = random.floats(80 * inputs, 1.0);
        // Row 79 has no adapter, row 3 another scale.
        let mut first = rows((0..40).step_by(3), 1.0);
        first[1].scale = 0.25;
        let uses =
            [(&pairs[0], 2.0, first), (&pairs[1], 0.5, rows([1], 3.0)), (&pairs[2], 1.0, rows(40..79, 1.0))];
        let all = backends();
        let together = adapted(&all[0], weight_ty, &weight, &x, &uses);
        let plain = product(&all[0], weight_ty, &weight, OUTPUTS, inputs, &x);
        assert!(together[79 * OUTPUTS..] == plain[79 * OUTPUTS..] && together[..OUTPUTS] != plain[..OUTPUTS]);
        for b in &all {
            assert!(adapted(b, weight_ty, &weight, &x, &uses) == together, "{ty} on {}", b.description());
            for (pair, scale, rows) in &uses {
                for r in rows {
                    let (x, row) = (&x[r.row as usize * inputs..][..inputs], r.row as usize);
                    let lone = LoraRow { row: 0, scale: r.scale };
                    let alone = adapted(b, weight_ty, &weight, x, &[(pair, *scale, vec![lone])]);
                    let same = alone == together[row * OUTPUTS..][..OUTPUTS];
                    assert!(same, "{ty}, row {row} on {}", b.description());
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut random = Random(23);
    let b = CpuBackend::new(1).unwrap();
    let tensor = |shape: &[u64], ty| TensorInfo::new("t", shape.to_vec(), ty).unwrap();
    for (a, c, why) in [
        (tensor(&[64, 4], TensorType::F32), tensor(&[8, 16], TensorType::F32), "does not fit"),
        (tensor(&[64, 4], TensorType::Q8_0), tensor(&[4, 16], TensorType::F32), "Q8_0"),
        (tensor(&[64, 4], TensorType::F32), tensor(&[4, 16, 2], TensorType::F32), "does not fit"),
        (tensor(&[64, 4, 2, 2], TensorType::F32), tensor(&[4, 16], TensorType::F32), "not of matrices"),
        (tensor(&[64], TensorType::F32), tensor(&[4, 16], TensorType::F32), "does not fit"),
    ] {
        let data = [vec![0; a.bytes()], vec![0; c.bytes()]];
        let result = b.low_rank(&Tensor { info: &a, data: &data[0] }, &Tensor { info: &c, data: &data[1] });
        let error = result.err().expect("an error").to_string();
        assert!(error.contains(why), "{error}");
    }
    // An adapter of another width, and a row that does not exist.
    let weight_data = blocks(TensorType::F32, OUTPUTS * 64, &mut random);
    let info = tensor(&[64, OUTPUTS as u64], TensorType::F32);
    let weight = b.matrix(&Tensor { info: &info, data: &weight_data }).unwrap();
    let x = buffer(&b, 2, 64, &random.floats(128, 1.0));
    for (inputs, row) in [(32, 0), (64, 2)] {
        let pair = Pair::new(TensorType::F32, 4, inputs, &mut random).upload(&b);
        let mut out = b.buffer(2, OUTPUTS).unwrap();
        let lora = [Lora { pair: &pair, scale: 1.0, rows: &rows([row], 1.0) }];
        let job = MatMul { weight: &weight, bias: None, out: &mut out, accumulate: false, lora: &lora };
        b.matmul(&x, &mut [job]).unwrap_err();
    }
}
