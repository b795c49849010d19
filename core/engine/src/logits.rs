//! The logits after a token, for a program that chooses the next one itself.

use realm_model::{KeptRow, TopK};

use crate::Error;
use crate::sampling::{Sampler, TokenMask, argmax, finite, first_of_largest};

/// The logits after a token, `[vocabulary]`. Where a device has computed them, only the likeliest tokens are
/// on the host, which mostly suffice to choose from; the others are fetched on demand, at any time. Every
/// method returns the same values, bit for bit, wherever the logits are.
pub struct Logits {
    vocabulary: usize,
    place: Place,
}

enum Place {
    Host(Vec<f32>),
    Device { row: Box<dyn KeptRow>, top_k: Vec<f32> },
}

impl Logits {
    /// Wraps logits that are on the host.
    pub fn new(values: Vec<f32>) -> Self {
        Self { vocabulary: values.len(), place: Place::Host(values) }
    }

    pub(crate) fn on_device(vocabulary: usize, row: Box<dyn KeptRow>, top_k: TopK<'_>) -> Self {
        Self { vocabulary, place: Place::Device { row, top_k: top_k.to_row() } }
    }

    /// The number of tokens in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Returns the likeliest tokens if the others are still on the device.
    fn fetched(&self) -> Option<TopK<'_>> {
        match &self.place {
            Place::Host(_) => None,
            Place::Device { top_k, .. } => Some(TopK::new(top_k)),
        }
    }

    /// Returns all logits, `[vocabulary]`, and fetches them from the device if need be.
    ///
    /// # Errors
    /// `Model` if the device could not be read.
    pub fn values(&mut self) -> Result<&mut Vec<f32>, Error> {
        if let Place::Device { row, .. } = &self.place {
            let mut values = Vec::new();
            row.read(&mut values).map_err(|e| Error::Model(e.to_string()))?;
            self.place = Place::Host(values);
        }
        match &mut self.place {
            Place::Host(values) => Ok(values),
            Place::Device { .. } => unreachable!("they were just brought to the host"),
        }
    }

    /// Returns the vector of logits if they are on the host, for reuse of its memory.
    pub fn into_memory(self) -> Option<Vec<f32>> {
        match self.place {
            Place::Host(values) => Some(values),
            Place::Device { .. } => None,
        }
    }

    /// Returns one token's logit; `None` for a token outside the vocabulary.
    ///
    /// # Errors
    /// Same as [`values`](Self::values).
    pub fn get(&mut self, token: u32) -> Result<Option<f32>, Error> {
        let found = self.fetched().and_then(|l| l.iter().find(|&(other, _)| other == token));
        match found {
            Some((_, logit)) => Ok(Some(logit)),
            None if token as usize >= self.vocabulary => Ok(None),
            None => Ok(self.values()?.get(token as usize).copied()),
        }
    }

    /// Returns the likeliest token; of equally likely ones, the one with the lowest id.
    ///
    /// # Errors
    /// Same as [`values`](Self::values), and `NotFinite` for NaN.
    pub fn argmax(&mut self) -> Result<u32, Error> {
        let found = self.fetched().and_then(|l| first_of_largest(l.iter(), l.last()));
        match found {
            Some(token) => Ok(token),
            None => {
                let values = self.values()?;
                finite(values, || "the next token".into())?;
                Ok(argmax(values))
            }
        }
    }

    /// Returns the `k` likeliest tokens, likeliest first and of equal ones the one with the lower id first,
    /// if they are known without fetching the others.
    pub fn top_k(&self, k: usize) -> Option<Vec<(u32, f32)>> {
        let few: Vec<_> = self.fetched()?.iter().take(k).collect();
        (few.len() == k).then_some(few)
    }

    /// Chooses a token, among those in `mask` if there is one, and leaves the logits as they are. Returns
    /// `None` if every token is banned or has a logit of -infinity.
    ///
    /// # Errors
    /// Same as [`values`](Self::values).
    pub fn sample(&mut self, sampler: &mut Sampler, mask: Option<&TokenMask>) -> Result<Option<u32>, Error> {
        if let Some(token) = self.fetched().and_then(|l| sampler.sample_top_k(l, mask)) {
            return Ok(Some(token));
        }
        let values = self.values()?;
        finite(values, || "the next token".into())?;
        match mask {
            Some(_) => Ok(sampler.sample_masked(values, mask)),
            None => {
                let token = sampler.sample(values);
                let possible = values.get(token as usize).is_some_and(|&logit| logit > f32::NEG_INFINITY);
                Ok(possible.then_some(token))
            }
        }
    }
}
