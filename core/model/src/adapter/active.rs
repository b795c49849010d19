//! The adapters of a batch and the rows that use them.

use std::collections::HashMap;
use std::sync::Arc;

use realm_compute::{Backend, Batch, Lora, LoraRow};

use super::{Adapter, Change};
use crate::names::LayerTensor;

/// The adapters of one batch, each with all its rows from all sequences.
pub(crate) struct Active<'a, B: Backend> {
    uses: Vec<(&'a Adapter<B>, Vec<LoraRow>)>,
}

impl<'a, B: Backend> Active<'a, B> {
    /// Groups the rows of `batch` by adapter. All ids must be in `adapters`. Spans of scale 0 use no adapter.
    pub(crate) fn new(adapters: &'a HashMap<u32, Arc<Adapter<B>>>, batch: &Batch) -> Self {
        let mut uses: Vec<(&Adapter<B>, Vec<LoraRow>)> = Vec::new();
        for span in &batch.spans {
            let Some(used) = span.adapter.filter(|used| used.scale != 0.0) else { continue };
            let Some(adapter) = adapters.get(&used.id) else { continue };
            let rows = span.rows.clone().map(|row| LoraRow { row: row as u32, scale: used.scale });
            match uses.iter_mut().find(|(other, _)| std::ptr::eq(*other, &**adapter)) {
                Some((_, all)) => all.extend(rows),
                None => uses.push((&**adapter, rows.collect())),
            }
        }
        Self { uses }
    }

    /// Renumbers the rows after a gather that keeps only the rows `kept`, ascending.
    pub(crate) fn gather(&mut self, kept: &[u32]) {
        for (_, rows) in &mut self.uses {
            let moved = rows.iter().filter_map(|r| {
                let row = kept.binary_search(&r.row).ok()? as u32;
                Some(LoraRow { row, ..*r })
            });
            *rows = moved.collect();
        }
        self.uses.retain(|(_, rows)| !rows.is_empty());
    }

    /// Returns the changes of a layer's matrix.
    pub(crate) fn layer(&self, layer: usize, tensor: LayerTensor) -> Vec<Lora<'_, B>> {
        self.changes(|adapter| adapter.change(layer, tensor))
    }

    /// Returns the changes of the output matrix.
    pub(crate) fn output(&self) -> Vec<Lora<'_, B>> {
        self.changes(Adapter::output)
    }

    fn changes<'s>(&'s self, of: impl Fn(&'s Adapter<B>) -> Option<&'s Change<B>>) -> Vec<Lora<'s, B>> {
        let lora = |(adapter, rows): &'s (&'a Adapter<B>, Vec<LoraRow>)| {
            let change = of(adapter)?;
            Some(Lora { pair: &change.pair, scale: change.scale, rows })
        };
        self.uses.iter().filter_map(lora).collect()
    }
}
