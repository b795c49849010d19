//! Decides which part has which layers.

use crate::Error;

/// The place of a tensor in a model, by which it is placed on a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The token embeddings.
    Embeddings,
    /// The output norm and the output matrix.
    Output,
    /// A tensor of a layer.
    Layer(usize),
    /// A tensor of a layer's mixture of experts: the router and the experts that it chooses.
    Experts(usize),
}

/// The part of each layer, and of the model's embeddings and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Each layer's part, ascending.
    pub layers: Vec<usize>,
    /// The part of the token embeddings.
    pub embeddings: usize,
    /// The part of the output norm and output matrix.
    pub output: usize,
    /// The part of all mixtures of experts; `None` for the part of each one's layer.
    pub experts: Option<usize>,
}

/// Sizes in bytes of the parts of a model that have to be placed.
#[derive(Debug, Clone, Default)]
pub struct Sizes {
    /// Each layer's weights without mixtures of experts, in bytes.
    pub layers: Vec<u64>,
    /// Each layer's mixture of experts, in bytes.
    pub experts: Vec<u64>,
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
    /// Mixtures of experts are on the CPU with `experts_on_cpu`, and with `None` if that brings all layers to
    /// GPUs that they do not fit on with their experts: a pass reads few of the experts, and all else.
    ///
    /// # Errors
    /// `OutOfMemory` if `gpu_layers` layers do not fit.
    pub fn new(
        sizes: &Sizes,
        free: &[u64],
        gpu_layers: Option<usize>,
        experts_on_cpu: Option<bool>,
    ) -> Result<Self, Error> {
        let whole = sizes.with_experts();
        if !sizes.has_experts() || experts_on_cpu == Some(false) {
            return Self::of_layers(&whole, free, gpu_layers);
        }
        let apart = || Ok(Self { experts: Some(0), ..Self::of_layers(sizes, free, gpu_layers)? });
        if experts_on_cpu == Some(true) {
            return apart();
        }
        let together = Self::of_layers(&whole, free, gpu_layers);
        match (&together, gpu_layers) {
            (Ok(plan), None) if plan.uses_cpu() => {
                Ok(apart().ok().filter(Self::has_all_layers_on_gpus).map_or(together?, |apart| apart))
            }
            _ => together,
        }
    }

    /// Places layers with all of their weights.
    fn of_layers(sizes: &Sizes, free: &[u64], gpu_layers: Option<usize>) -> Result<Self, Error> {
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
        Self { layers: vec![0; layers], embeddings: 0, output: 0, experts: None }
    }

    /// Returns whether the CPU has any layer, mixture of experts or end of the model.
    pub fn uses_cpu(&self) -> bool {
        !self.has_all_layers_on_gpus() || self.experts == Some(0)
    }

    fn has_all_layers_on_gpus(&self) -> bool {
        self.layers.iter().chain([&self.embeddings, &self.output]).all(|&part| part > 0)
    }

    /// The part of a tensor.
    pub fn part(&self, place: Place) -> usize {
        let layer = |layer: usize| self.layers.get(layer).copied().unwrap_or(self.output);
        match place {
            Place::Embeddings => self.embeddings,
            Place::Output => self.output,
            Place::Layer(number) => layer(number),
            Place::Experts(number) => self.experts.unwrap_or_else(|| layer(number)),
        }
    }

    /// The parts that have tensors, ascending.
    pub fn used(&self) -> Vec<usize> {
        let mut used: Vec<_> =
            self.layers.iter().copied().chain([self.embeddings, self.output]).chain(self.experts).collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// The same plan with other numbers of parts.
    pub fn renumbered(&self, number: impl Fn(usize) -> usize) -> Self {
        Self {
            layers: self.layers.iter().map(|&part| number(part)).collect(),
            embeddings: number(self.embeddings),
            output: number(self.output),
            experts: self.experts.map(number),
        }
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
    fn has_experts(&self) -> bool {
        self.experts.iter().any(|&bytes| bytes > 0)
    }

    /// The same model, whose mixtures of experts are parts of their layers.
    fn with_experts(&self) -> Self {
        let experts = self.experts.iter().chain(std::iter::repeat(&0));
        let layers = self.layers.iter().zip(experts).map(|(layer, experts)| layer + experts).collect();
        Self { layers, experts: Vec::new(), ..self.clone() }
    }

    /// Bytes of weights that are on the CPU.
    pub fn on_cpu(&self, plan: &Plan) -> u64 {
        let bytes = |place: Place, bytes: u64| if plan.part(place) == 0 { bytes } else { 0 };
        let layers = self.layers.iter().enumerate().map(|(i, &of)| bytes(Place::Layer(i), of));
        let experts = self.experts.iter().enumerate().map(|(i, &of)| bytes(Place::Experts(i), of));
        // Embeddings that serve as output are where the plan puts the output, too, and count once.
        layers.chain(experts).sum::<u64>()
            + bytes(Place::Embeddings, self.embeddings)
            + bytes(Place::Output, self.output.unwrap_or(0))
    }

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
        let layers = vec![GIB; layers];
        Sizes { layers, embeddings: GIB / 2, output: Some(GIB / 2), cache: GIB / 8, ..Sizes::default() }
    }

    #[test]
    fn what_fits_is_on_one_gpu() {
        let plan = Plan::new(&sizes(32), &[80 * GIB], None, None).unwrap();
        assert_eq!(plan, Plan { layers: vec![1; 32], embeddings: 1, output: 1, experts: None });
        assert!(!plan.uses_cpu());
    }

    #[test]
    fn gpus_share_by_what_is_free() {
        let plan = Plan::new(&sizes(32), &[80 * GIB, 40 * GIB], None, None).unwrap();
        let on = |part| plan.layers.iter().filter(|&&p| p == part).count();
        assert_eq!([on(0), on(1) + on(2)], [0, 32]);
        assert!((20..=22).contains(&on(1)), "{plan:?}");
        assert_eq!([plan.embeddings, plan.output], [1, 2]);
        assert!(plan.layers.is_sorted());
    }

    #[test]
    fn what_does_not_fit_is_the_cpus() {
        // 20 GiB less the reserve hold 16 layers with their share of the cache, and the output.
        let plan = Plan::new(&sizes(32), &[20 * GIB], None, None).unwrap();
        assert_eq!(plan.layers, [vec![0; 16], vec![1; 16]].concat());
        assert_eq!([plan.embeddings, plan.output], [0, 1]);
        // Nothing fits: the CPU gets everything.
        assert_eq!(Plan::new(&sizes(4), &[GIB], None, None).unwrap(), Plan::on_cpu(4));
    }

    #[test]
    fn as_many_layers_as_were_asked_for() {
        let plan = Plan::new(&sizes(32), &[80 * GIB], Some(10), None).unwrap();
        assert_eq!(plan.layers.iter().filter(|&&part| part == 1).count(), 10);
        assert_eq!(Plan::new(&sizes(32), &[80 * GIB], Some(0), None).unwrap(), Plan::on_cpu(32));
        assert!(!Plan::new(&sizes(32), &[80 * GIB], Some(99), None).unwrap().uses_cpu());
        match Plan::new(&sizes(32), &[20 * GIB], Some(20), None) {
            Err(Error::OutOfMemory { needed, free, .. }) => {
                assert!(needed > 22 * GIB && free == 20 * GIB, "{needed} {free}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn embeddings_that_are_the_output_are_where_it_is() {
        let tied = Sizes { output: None, ..sizes(8) };
        let plan = Plan::new(&tied, &[80 * GIB], Some(3), None).unwrap();
        assert_eq!([plan.embeddings, plan.output], [1, 1]);
    }

    #[test]
    fn experts_go_to_the_cpu_where_that_brings_all_layers_to_the_gpu() {
        let sizes = Sizes { layers: vec![GIB / 4; 32], experts: vec![GIB; 32], ..sizes(32) };
        let plan = |free: u64, gpu_layers, cpu| Plan::new(&sizes, &[free * GIB], gpu_layers, cpu).unwrap();
        let all_on_gpu = Plan { layers: vec![1; 32], embeddings: 1, output: 1, experts: None };
        let apart = Plan { experts: Some(0), ..all_on_gpu.clone() };
        assert_eq!(plan(80, None, None), all_on_gpu);
        assert_eq!(plan(80, None, Some(true)), apart);
        assert_eq!(plan(24, None, None), apart);
        assert!(apart.uses_cpu() && apart.used() == [0, 1]);
        assert_eq!([apart.part(Place::Layer(3)), apart.part(Place::Experts(3))], [1, 0]);
        // The user's word counts, and nothing is won if some layers do not fit in any case.
        let some = plan(24, None, Some(false));
        assert!(some.experts.is_none() && some.layers.contains(&0) && some.layers.contains(&1));
        assert!(plan(24, Some(8), None).experts.is_none());
        assert!(plan(9, None, None).experts.is_none());
        assert_eq!(sizes.on_cpu(&apart), 32 * GIB);
        assert_eq!(sizes.on_cpu(&all_on_gpu), 0);
        assert_eq!(Plan::new(&self::sizes(4), &[80 * GIB], None, Some(true)).unwrap().experts, None);
    }
}
