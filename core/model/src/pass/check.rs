//! Checks batches before kernels see them.

use realm_compute::{AdapterUse, Backend, Batch, PAGE_TOKENS};

use super::Runner;
use crate::Error;

impl<B: Backend> Runner<B> {
    /// Checks everything in a batch that the kernels rely on.
    pub(super) fn check(&self, batch: &Batch) -> Result<(), Error> {
        let bad = |why: String| Err(Error::InvalidBatch(why));
        let rows = batch.rows();
        if batch.positions.len() != rows {
            return bad(format!("{} positions for {rows} rows", batch.positions.len()));
        }
        let mut next = 0;
        for span in &batch.spans {
            if span.rows.start != next || span.rows.is_empty() || span.rows.end > rows {
                return bad(format!("rows {:?} where rows from {next} are due", span.rows));
            }
            next = span.rows.end;
            let positions = &batch.positions[span.rows.clone()];
            if positions.windows(2).any(|p| p[1] != p[0].wrapping_add(1)) {
                return bad(format!("positions in rows {:?} are not consecutive", span.rows));
            }
            let (tokens, past) = (&batch.tokens[span.rows.clone()], positions[0] as usize);
            self.check_span(tokens, past, |group| batch.table(span, group), span.adapter)?;
        }
        if next != rows {
            return bad(format!("rows from {next} of {rows} belong to no sequence"));
        }
        for (what, wanted) in [("output", &batch.outputs), ("hidden", &batch.hidden)] {
            if wanted.windows(2).any(|o| o[0] >= o[1]) || wanted.last().is_some_and(|&o| o as usize >= rows) {
                return bad(format!("{what} rows are not ascending rows of the batch"));
            }
        }
        Ok(())
    }

    /// Makes the checks of [`Forward::check_rows`].
    pub(super) fn check_span<'t>(
        &self,
        tokens: &[u32],
        past: usize,
        table: impl Fn(usize) -> &'t [u32],
        adapter: Option<AdapterUse>,
    ) -> Result<(), Error> {
        let bad = |why: String| Err(Error::InvalidBatch(why));
        let vocab = self.model.config.vocab;
        if let Some(token) = tokens.iter().find(|&&t| t as usize >= vocab) {
            return bad(format!("token {token} of a vocabulary of {vocab}"));
        }
        let Some(last) = (past + tokens.len()).checked_sub(1).filter(|&last| last <= u32::MAX as usize)
        else {
            return bad(format!("{} rows at position {past}", tokens.len()));
        };
        for group in 0..self.layout.groups() {
            let (table, first) = (table(group), self.layout.first_page(group, past));
            let Some(seen) = table.get(first..last / PAGE_TOKENS + 1) else {
                return bad(format!("position {last} is beyond {} pages", table.len()));
            };
            if let Some(page) = seen.iter().find(|&&p| p as usize >= self.pages) {
                return bad(format!("page {page} of {}", self.pages));
            }
        }
        let Some(used) = adapter else { return Ok(()) };
        if !self.adapters.contains_key(&used.id) {
            return bad(format!("there is no adapter {}", used.id));
        }
        if !used.scale.is_finite() {
            return bad(format!("adapter {} is scaled by {}", used.id, used.scale));
        }
        Ok(())
    }
}
