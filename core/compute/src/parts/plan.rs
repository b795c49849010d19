//! Decides which part has which layers.

use crate::Error;

/// The part of each layer, and of the model's embeddings and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Each layer's part, ascending.
    pub layers: Vec<usize>,
    /// The part of the token embeddings.
    pub embeddings: usize,
    /// The part of the output norm and output matrix.
    pub output: usize,
}

/// Sizes in bytes of the parts of a model that have to be placed.
#[derive(Debug, Clone, Default)]
pub struct Sizes {
    /// Each layer's weights, in bytes.
    pub layers: Vec<u64>,
    /// The token embeddings, in bytes.
    pub embeddings: u64,
    /// The output matrix, in bytes; `None` if the embeddings serve as output.
    pub output: Option<u64>,
    /// One layer's share of the smallest useful KV cache, in bytes.
    pub cache: u64,
}

/// Bytes that a GPU needs beside weights and KV cache, for activations and kernels.
const RESERVED: u64 = 640 << 20;

impl Plan {
    /// Places the last `gpu_layers` layers and the output on GPUs with `free` bytes each, and everything else
    /// on the CPU; with `None`, as many layers as fit. Each GPU gets layers in proportion to its free memory.
    /// Part 0 is always the CPU; the GPUs follow.
    ///
    /// # Errors
    /// `OutOfMemory` if `gpu_layers` layers do not fit.
    pub fn new(sizes: &Sizes, free: &[u64], gpu_layers: Option<usize>) -> Result<Self, Error> {
        let all = sizes.layers.len();
        let room: Vec<u64> = free.iter().map(|free| free.saturating_sub(RESERVED + free / 32)).collect();
        let fitting = |layers: usize| {
            let even = Self::fill(sizes, &room, all - layers, true);
            even.or_else(|| Self::fill(sizes, &room, all - layers, false))
        };
        match gpu_layers {
            Some(wanted) => {
                let wanted = wanted.min(all);
                let needed = sizes.of_layers(all - wanted) + sizes.of_ends(wanted == all);
                fitting(wanted).ok_or_else(|| Error::OutOfMemory {
                    what: format!("{wanted} of {all} layers and the least of a KV cache"),
                    needed: needed + RESERVED * free.len() as u64,
                    free: free.iter().sum(),
                })
            }
            None => Ok((0..=all).rev().find_map(fitting).unwrap_or_else(|| Self::on_cpu(all))),
        }
    }

    fn on_cpu(layers: usize) -> Self {
        Self { layers: vec![0; layers], embeddings: 0, output: 0 }
    }

    /// Returns whether the CPU has any layer or end of the model.
    pub fn uses_cpu(&self) -> bool {
        self.layers.iter().chain([&self.embeddings, &self.output]).any(|&part| part == 0)
    }

    /// Places layers from `first` on in the GPUs' `room`. Each GPU is filled to its share or, if not `even`,
    /// until no further layer fits.
    fn fill(sizes: &Sizes, room: &[u64], first: usize, even: bool) -> Option<Self> {
        let all = sizes.layers.len();
        let mut plan = Self::on_cpu(all);
        if first == all {
            return Some(plan);
        }
        let ends = sizes.of_ends(first == 0);
        let total = sizes.of_layers(first) + ends;
        let share = |gpu: usize| {
            let of_all = room[gpu] as u128 * u128::from(total)
                / room.iter().map(|&r| u128::from(r)).sum::<u128>().max(1);
            if even && gpu + 1 < room.len() { (of_all as u64).min(room[gpu]) } else { room[gpu] }
        };
        // Embeddings that are separate from the output go where the first layer is.
        let before = if first == 0 && sizes.output.is_some() { sizes.embeddings } else { 0 };
        let (mut gpu, mut used) = (0, before);
        for layer in first..all {
            let bytes = sizes.layers[layer] + sizes.cache;
            // Round to the nearest layer: half a layer more or less than the share.
            while used + if even { bytes / 2 } else { bytes } > share(gpu) {
                (gpu, used) = (gpu + 1, 0);
                if gpu == room.len() {
                    return None;
                }
            }
            used += bytes;
            if used > room[gpu] {
                return None;
            }
            plan.layers[layer] = gpu + 1;
        }
        used += ends - before;
        plan.output = gpu + 1;
        plan.embeddings = match sizes.output {
            None => plan.output,
            Some(_) => plan.layers[0],
        };
        (used <= room[gpu]).then_some(plan)
    }
}

impl Sizes {
    fn of_layers(&self, first: usize) -> u64 {
        self.layers[first..].iter().map(|bytes| bytes + self.cache).sum()
    }

    /// Bytes of the model's ends that are on GPUs.
    fn of_ends(&self, with_first_layer: bool) -> u64 {
        match self.output {
            None => self.embeddings,
            Some(output) if with_first_layer => self.embeddings + output,
            Some(output) => output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sizes(layers: usize) -> Sizes {
        Sizes { layers: vec![GIB; layers], embeddings: GIB / 2, output: Some(GIB / 2), cache: GIB / 8 }
    }

    #[test]
    fn what_fits_is_on_one_gpu() {
        let plan = Plan::new(&sizes(32), &[80 * GIB], None).unwrap();
        assert_eq!(plan, Plan { layers: vec![1; 32], embeddings: 1, output: 1 });
        assert!(!plan.uses_cpu());
    }

    #[test]
    fn gpus_share_by_what_is_free() {
        let plan = Plan::new(&sizes(32), &[80 * GIB, 40 * GIB], None).unwrap();
        let on = |part| plan.layers.iter().filter(|&&p| p == part).count();
        assert_eq!([on(0), on(1) + on(2)], [0, 32]);
        assert!((20..=22).contains(&on(1)), "{plan:?}");
        assert_eq!([plan.embeddings, plan.output], [1, 2]);
        assert!(plan.layers.is_sorted());
    }

    #[test]
    fn what_does_not_fit_is_the_cpus() {
        // 20 GiB less the reserve hold 16 layers with their share of the cache, and the output.
        let plan = Plan::new(&sizes(32), &[20 * GIB], None).unwrap();
        assert_eq!(plan.layers, [vec![0; 16], vec![1; 16]].concat());
        assert_eq!([plan.embeddings, plan.output], [0, 1]);
        // Nothing fits: the CPU gets everything.
        assert_eq!(Plan::new(&sizes(4), &[GIB], None).unwrap(), Plan::on_cpu(4));
    }

    #[test]
    fn as_many_layers_as_were_asked_for() {
        let plan = Plan::new(&sizes(32), &[80 * GIB], Some(10)).unwrap();
        assert_eq!(plan.layers.iter().filter(|&&part| part == 1).count(), 10);
        assert_eq!(Plan::new(&sizes(32), &[80 * GIB], Some(0)).unwrap(), Plan::on_cpu(32));
        assert!(!Plan::new(&sizes(32), &[80 * GIB], Some(99)).unwrap().uses_cpu());
        match Plan::new(&sizes(32), &[20 * GIB], Some(20)) {
            Err(Error::OutOfMemory { needed, free, .. }) => {
                assert!(needed > 22 * GIB && free == 20 * GIB, "{needed} {free}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn embeddings_that_are_the_output_are_where_it_is() {
        let tied = Sizes { output: None, ..sizes(8) };
        let plan = Plan::new(&tied, &[80 * GIB], Some(3)).unwrap();
        assert_eq!([plan.embeddings, plan.output], [1, 1]);
    }
}
