//! Runs a model over a text and adds up the squares of its matrices' inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use realm_compute::cpu::{CpuBackend, InputSums};
use realm_compute::{Batch, CacheType, PAGE_TOKENS, Want};
use realm_gguf::Gguf;
use realm_model::{Transformer, Weights};
use realm_tokenizer::Tokenizer;

use super::Importance;
use crate::Error;

/// Tokens that are run together and see each other, as in llama.cpp's `llama-imatrix`.
pub(super) const CHUNK: usize = 512;

/// The inputs that a model's matrices had over a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    pub(super) sums: BTreeMap<String, InputSums>,
    pub(super) chunks: usize,
}

impl Inputs {
    /// Runs `model` over `text` on `threads` threads of the CPU, in chunks of 512 tokens. Calls
    /// `progress(done, total)` with tokens. The output matrix has no part in it, as in llama.cpp.
    ///
    /// # Errors
    /// [`Error::Model`] for a model that Realm does not run, and [`Error::Unsupported`] for one without a
    /// tokenizer or a text of less than one token.
    pub fn of_text(
        model: &Gguf,
        text: &str,
        threads: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let tokenizer = Tokenizer::from_metadata(model.metadata())
            .map_err(|why| Error::Unsupported(format!("importances of a text need its tokens: {why}")))?;
        let tokens = tokenizer.encode(text, false, true);
        let first = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        Self::of_tokens(model, &tokens, first, threads, progress)
    }

    /// Runs `model` over tokens; see [`of_text`](Self::of_text). The first token of each chunk is replaced by
    /// `first`, if there is one.
    ///
    /// # Errors
    /// Those of [`of_text`](Self::of_text).
    pub fn of_tokens(
        model: &Gguf,
        tokens: &[u32],
        first: Option<u32>,
        threads: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        if tokens.is_empty() {
            return Err(Error::Unsupported("importances need a text of at least one token".into()));
        }
        let backend = Arc::new(CpuBackend::observing(threads).map_err(realm_model::Error::from)?);
        let model = Arc::new(Transformer::load(Arc::clone(&backend), model, &mut |_, _| {})?);
        let groups = model.config().cache_layout().groups();
        let chunk = CHUNK.min(model.config().context_length).max(1);
        let pages = chunk.div_ceil(PAGE_TOKENS);
        let mut runner = model.runner(pages * groups, CacheType::F32)?;
        let table = |group: usize| (0..pages).map(|page| (page * groups + group) as u32).collect();
        let tables: Vec<Vec<u32>> = (0..groups).map(table).collect();
        let mut done = 0;
        for chunk in tokens.chunks(chunk) {
            let mut chunk = chunk.to_vec();
            chunk[0] = first.unwrap_or(chunk[0]);
            let mut batch = Batch::default();
            // All rows pass the last layer; the output matrix, which no row needs, is not read.
            batch.push(&chunk, 0, &tables, Want::Hidden);
            runner.forward(&batch)?;
            done += chunk.len();
            progress(done, tokens.len());
        }
        Ok(Self { sums: backend.take_inputs(), chunks: tokens.len().div_ceil(chunk) })
    }

    /// Returns the mean squares. Experts that no token has chosen get equal importances.
    pub fn importance(&self) -> Importance {
        let mean = |(name, inputs): (&String, &InputSums)| {
            let rows = inputs.sums.chunks_exact(inputs.columns).zip(&inputs.counts);
            let means = rows.flat_map(|(sums, &count)| {
                sums.iter().map(move |sum| if count > 0 { (sum / count as f64) as f32 } else { 1.0 })
            });
            (name.clone(), means.collect())
        };
        self.sums.iter().map(mean).collect()
    }
}
