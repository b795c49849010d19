//! One vector for a text, from the model's last hidden states.

use std::str::FromStr;

use super::Rows;
use crate::answer::Reply;
use crate::sampling::not_finite;
use crate::{Error, MemoryCharge};

/// The hidden states that make up the vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all tokens' states.
    Mean,
    /// The state of the last token.
    Last,
    /// The state of the first token.
    Cls,
}

impl Pooling {
    /// Returns `"mean"`, `"last"` or `"cls"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Last => "last",
            Self::Cls => "cls",
        }
    }
}

impl FromStr for Pooling {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let why = || Error::InvalidArgument(format!("pooling is 'mean', 'last' or 'cls', not '{name}'"));
        [Self::Mean, Self::Last, Self::Cls]
            .into_iter()
            .find(|pooling| pooling.as_str() == name)
            .ok_or_else(why)
    }
}

/// Adds up hidden states.
pub(crate) struct Embed {
    pooling: Pooling,
    /// Divides by the length, so that a dot product is the cosine.
    normalize: bool,
    sum: Vec<f64>,
    rows: usize,
    reply: Reply<Vec<f32>>,
}

impl Embed {
    pub(crate) fn new(pooling: Pooling, normalize: bool, reply: Reply<Vec<f32>>) -> Self {
        Self { pooling, normalize, sum: Vec::new(), rows: 0, reply }
    }

    /// Returns whether every token's state is needed.
    pub(super) fn every_row(&self) -> bool {
        self.pooling != Pooling::Last
    }

    pub(super) fn advance(&mut self, results: &Rows<'_>) {
        for row in results.hidden.chunks_exact(results.width) {
            match self.pooling {
                Pooling::Cls if self.rows > 0 => {}
                Pooling::Last | Pooling::Cls => self.sum = row.iter().map(|&x| x.into()).collect(),
                Pooling::Mean => {
                    self.sum.resize(row.len(), 0.0);
                    self.sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                }
            }
            self.rows += 1;
        }
    }

    pub(super) fn restart(&mut self) {
        self.sum.clear();
        self.rows = 0;
    }

    /// Sends the answer and puts it on the account of `charge`.
    pub(super) fn finish(&mut self, charge: MemoryCharge) -> bool {
        let length = match (self.normalize, self.pooling) {
            (true, _) => self.sum.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE),
            (false, Pooling::Mean) => self.rows.max(1) as f64,
            (false, _) => 1.0,
        };
        let vector: Vec<f32> = self.sum.iter().map(|x| (x / length) as f32).collect();
        let finite = vector.iter().all(|x| x.is_finite());
        let vector = if finite { Ok(vector) } else { Err(not_finite("the text's hidden states")) };
        self.reply.send(vector, self.sum.len() * size_of::<f32>(), charge);
        true
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    pub(super) fn fail(&self, error: Error) {
        self.reply.fail(error);
    }
}
