//! Sums of the squares of matrices' inputs, which tell how much each column matters: what quantizers weigh
//! errors with (an *importance matrix*).
//!
//! Matrices are told apart by where their weights lie, so operations need no names. A backend that does not
//! observe has none of this; each operation then costs one comparison more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

/// The inputs that a tensor's matrices have had.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InputSums {
    /// Inputs of one matrix.
    pub columns: usize,
    /// Sums of squares, `[matrices * columns]`: one matrix, or one for each expert or head.
    pub sums: Vec<f64>,
    /// Rows that each matrix has had.
    pub counts: Vec<u64>,
}

/// The inputs of all tensors, by the name in the file.
#[derive(Default)]
pub(super) struct Inputs(Mutex<Observed>);

#[derive(Default)]
struct Observed {
    /// The tensors by the addresses of their matrices' weights.
    names: HashMap<usize, String>,
    sums: BTreeMap<String, InputSums>,
}

impl Inputs {
    fn observed(&self) -> std::sync::MutexGuard<'_, Observed> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Remembers the tensor `name`, whose weights lie at `address`. Parts of a tensor count as the tensor.
    pub(super) fn name(&self, address: usize, name: &str) {
        let name = name.split('[').next().unwrap_or(name);
        self.observed().names.insert(address, name.to_owned());
    }

    /// Adds rows, each of one of the `count` matrices at `address`.
    pub(super) fn add<'a>(
        &self,
        address: usize,
        [count, columns]: [usize; 2],
        rows: impl Iterator<Item = (usize, &'a [f32])>,
    ) {
        let Observed { names, sums } = &mut *self.observed();
        let Some(name) = names.get(&address) else { return };
        let all = sums.entry(name.clone()).or_insert_with(|| InputSums {
            columns,
            sums: vec![0.0; count * columns],
            counts: vec![0; count],
        });
        for (index, row) in rows {
            all.counts[index] += 1;
            let sums = &mut all.sums[index * columns..][..columns];
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
        }
    }

    /// Takes what was observed so far.
    pub(super) fn take(&self) -> BTreeMap<String, InputSums> {
        std::mem::take(&mut self.observed().sums)
    }
}
