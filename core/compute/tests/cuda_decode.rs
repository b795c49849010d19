//! Recorded passes of a single row, whose operations join into fewer kernels on CUDA, give the bits that the
//! same operations give one by one and among other rows. Without a GPU, tests say that they were skipped.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::{Random, blocks, contents, gpu};
use realm_compute::cuda::{Buffer, CudaBackend, Matrix, Vector};
use realm_compute::{Activation, Backend, Batch, Error, MatMul, Norm, Want};
use realm_gguf::{Tensor, TensorInfo, TensorType};

/// A network behind a norm, with matrices of `ty`.
struct Network {
    norm: Vector,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    bias: Vector,
    activation: Activation,
    widths: [usize; 2],
}

impl Network {
    fn new(b: &CudaBackend, random: &mut Random, ty: TensorType, widths: [usize; 2]) -> Self {
        let [hidden, inner] = widths;
        let mut matrix = |rows: usize, columns: usize| {
            let data = blocks(ty, rows * columns, random);
            let info = TensorInfo::new("w", vec![columns as u64, rows as u64], ty).unwrap();
            b.matrix(&Tensor { info: &info, data: &data }).unwrap()
        };
        let (gate, up, down) = (matrix(inner, hidden), matrix(inner, hidden), matrix(hidden, inner));
        let norm = b.vector(&random.floats(hidden, 1.0)).unwrap();
        let bias = b.vector(&random.floats(inner, 1.0)).unwrap();
        Self { norm, gate, up, down, bias, activation: Activation::Silu, widths }
    }

    /// `[x, normed, gate, up]` after `x += down · activation(gate · norm(x), up · norm(x))`.
    fn run(&self, b: &CudaBackend, with_bias: bool, buffers: &mut [Buffer; 4]) -> Result<(), Error> {
        let [x, normed, gate, up] = buffers;
        let bias = with_bias.then_some(&self.bias);
        b.norm(x, &Norm::rms(&self.norm, 1e-5), normed)?;
        b.matmul(
            normed,
            &mut [
                MatMul { weight: &self.gate, bias, out: gate, accumulate: false, lora: &[] },
                MatMul { weight: &self.up, bias: None, out: up, accumulate: false, lora: &[] },
            ],
        )?;
        b.gated_activation(self.activation, gate, up)?;
        let down = MatMul { weight: &self.down, bias: None, out: x, accumulate: true, lora: &[] };
        b.matmul(gate, &mut [down])
    }

    fn buffers(&self, b: &CudaBackend, rows: usize) -> [Buffer; 4] {
        let [hidden, inner] = self.widths;
        [hidden, hidden, inner, inner].map(|columns| b.buffer(rows, columns).unwrap())
    }
}

/// Operations on some buffers.
type Work<'a> = dyn Fn(&mut [Buffer; 4]) -> Result<(), Error> + 'a;

fn job<'a>(weight: &'a Matrix, out: &'a mut Buffer) -> MatMul<'a, CudaBackend> {
    MatMul { weight, bias: None, out, accumulate: false, lora: &[] }
}

/// A batch of as many sequences.
fn batch(rows: usize) -> Batch {
    let mut batch = Batch::default();
    (0..rows).for_each(|row| batch.push(&[row as u32], 0, &[[0u32]], Want::Logits));
    batch
}

/// Runs `work` of the buffers until it has been recorded and the recording has run twice, each time from
/// the same rows.
fn recorded(
    b: &CudaBackend,
    owner: u64,
    rows: &[f32],
    buffers: &mut [Buffer; 4],
    work: &Work<'_>,
) -> Vec<Vec<f32>> {
    let count = rows.len() / buffers[0].columns();
    let mut results = Vec::new();
    for round in 0..4 {
        b.write(rows, &mut buffers[0]).unwrap();
        b.pass::<Error>(owner, &batch(count), &mut || work(buffers)).unwrap();
        let now: Vec<_> = buffers.iter().map(|buffer| contents(b, buffer)).collect();
        if round > 0 {
            assert!(now == results, "a recording gives other bits than the operations one by one");
        }
        results = now;
    }
    results
}

#[test]
fn a_recorded_row_is_that_of_a_batch() {
    let Some(b) = gpu() else { return };
    let mut random = Random(41);
    let mut owner = 100;
    for ty in TensorType::ALL {
        // The last also has chunks that are not whole, where the type has such.
        let tail = if ty.block_len() == 256 { 768 } else { 832 / ty.block_len() * ty.block_len() };
        for widths in [[768, 512], [4096, 11_008], [5120, tail]] {
            if widths[1] > 1000 && !matches!(ty, TensorType::Q4_K | TensorType::Q6_K | TensorType::F16) {
                continue;
            }
            let mut network = Network::new(&b, &mut random, ty, widths);
            let activations = [Activation::Silu, Activation::GeluTanh, Activation::Gelu];
            for (activation, with_bias) in activations.into_iter().zip([false, true, false]) {
                network.activation = activation;
                let x = random.floats(9 * widths[0], 1.0);
                let mut all = network.buffers(&b, 9);
                let work = |buffers: &mut [Buffer; 4]| network.run(&b, with_bias, buffers);
                let want = recorded(&b, owner, &x, &mut all, &work);
                for rows in [1, 2] {
                    let mut few = network.buffers(&b, rows);
                    let got = recorded(&b, owner + 1, &x[..rows * widths[0]], &mut few, &work);
                    for (what, (got, want)) in ["x", "normed", "gate", "up"].iter().zip(got.iter().zip(&want))
                    {
                        let same = got[..] == want[..got.len()];
                        assert!(same, "{ty}, {widths:?}, {activation:?}: {what} of {rows} of 9 rows");
                    }
                }
                owner += 2;
            }
        }
    }
}

/// What waits to join the next operation is done by itself where that operation is another one.
#[test]
fn operations_that_do_not_join_stay_in_order() {
    let Some(b) = gpu() else { return };
    let mut random = Random(43);
    let network = Network::new(&b, &mut random, TensorType::Q4_K, [1024, 1024]);
    let x = random.floats(9 * 1024, 1.0);
    let norm = Norm::rms(&network.norm, 1e-5);
    let works: [&Work<'_>; 6] = [
        // The normalized row's source changes before its product.
        &|[x, normed, gate, _]: &mut [Buffer; 4]| {
            b.norm(x, &norm, normed)?;
            b.scale(x, 3.0)?;
            b.matmul(normed, &mut [job(&network.gate, gate)])
        },
        // Two products of one normalized row, and its floats.
        &|[x, normed, gate, up]: &mut [Buffer; 4]| {
            b.norm(x, &norm, normed)?;
            b.matmul(normed, &mut [job(&network.gate, gate)])?;
            b.matmul(normed, &mut [job(&network.up, up)])?;
            b.add(x, normed, 0.5)
        },
        // A norm at the end, and one behind a norm.
        &|[x, normed, gate, _]: &mut [Buffer; 4]| {
            b.norm(x, &norm, normed)?;
            b.matmul(x, &mut [job(&network.gate, gate)])?;
            b.norm(x, &norm, normed)
        },
        // A product that changes the row that was normalized.
        &|[x, normed, _, _]: &mut [Buffer; 4]| {
            b.norm(x, &norm, normed)?;
            b.matmul(normed, &mut [MatMul { accumulate: true, ..job(&network.gate, x) }])
        },
        // A pair that has no activation.
        &|[x, _, gate, up]: &mut [Buffer; 4]| {
            let [a, c] = [job(&network.gate, gate), job(&network.up, up)];
            b.matmul(x, &mut [a, c])?;
            b.scale(gate, 2.0)?;
            b.gated_activation(Activation::Silu, gate, up)
        },
        // A pair at the end.
        &|[x, normed, gate, up]: &mut [Buffer; 4]| {
            b.norm(x, &norm, normed)?;
            let [a, c] = [job(&network.gate, gate), job(&network.up, up)];
            b.matmul(normed, &mut [a, c])
        },
    ];
    for (i, work) in works.into_iter().enumerate() {
        let owner = 10 + 2 * i as u64;
        let zeros = |buffers: &mut [Buffer; 4]| {
            for buffer in &mut buffers[1..] {
                b.write(&vec![0.0; buffer.rows() * buffer.columns()], buffer).unwrap();
            }
        };
        let mut all = network.buffers(&b, 9);
        zeros(&mut all);
        let want = recorded(&b, owner, &x, &mut all, work);
        let mut one = network.buffers(&b, 1);
        zeros(&mut one);
        let got = recorded(&b, owner + 1, &x[..1024], &mut one, work);
        for (what, (got, want)) in ["x", "normed", "gate", "up"].iter().zip(got.iter().zip(&want)) {
            assert!(got[..] == want[..got.len()], "work {i}: {what}");
        }
    }
}
