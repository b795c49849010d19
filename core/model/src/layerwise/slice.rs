//! The part of an operation that one call computes.

use std::ops::Range;

use crate::Work;

/// The most numbers that one slice makes, so that those of a tensor that were made together can be changed
/// together.
const MOST_NUMBERS: usize = 1 << 18;

/// The part of an operation that one call computes: the rows after those of earlier calls, as many as may be
/// computed at once.
///
/// ```
/// use realm_model::{Slice, Work};
///
/// // Each row moves 10 numbers, and numbers cost 1 each: 3 rows for a limit of 30.
/// let price = |work: Work| work.numbers as f64;
/// let mut slice = Slice::new(4, 30.0, &price);
/// assert_eq!(slice.take(100, 10, |rows| Work::moved(10 * rows)), 4..7);
/// assert_eq!((slice.done(), slice.cost(), slice.is_last()), (7, 30.0, false));
/// ```
pub struct Slice<'a> {
    done: usize,
    whole: usize,
    most: f64,
    price: &'a dyn Fn(Work) -> f64,
    cost: f64,
}

impl<'a> Slice<'a> {
    /// Creates a slice of an operation of which `done` rows are done. The slice may cost `most`, or more if
    /// it is a single row. `price` gives the cost of work.
    pub fn new(done: usize, most: f64, price: &'a dyn Fn(Work) -> f64) -> Self {
        Self { done, whole: 0, most, price, cost: 0.0 }
    }

    /// Takes the next rows of an operation of `whole` rows, each of which makes `width` numbers. `work` gives
    /// the work in a number of rows.
    pub fn take(&mut self, whole: usize, width: usize, work: impl Fn(usize) -> Work) -> Range<usize> {
        let from = self.done;
        let (mut low, mut high) = (1, (whole - from).min((MOST_NUMBERS / width.max(1)).max(1)).max(1));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if (self.price)(work(middle)) <= self.most { low = middle } else { high = middle - 1 }
        }
        let rows = from..(from + low).min(whole);
        self.charge(work(rows.len()));
        self.advance(whole, rows)
    }

    /// Takes these rows of an operation of `whole` rows, whatever they cost.
    pub(super) fn advance(&mut self, whole: usize, rows: Range<usize>) -> Range<usize> {
        (self.done, self.whole) = (rows.end, whole);
        rows
    }

    /// Adds to the cost of the slice.
    pub fn charge(&mut self, work: Work) {
        self.cost += (self.price)(work);
    }

    /// The number of rows of the operation that are done once this slice is computed.
    pub fn done(&self) -> usize {
        self.done
    }

    /// The cost of the slice.
    pub fn cost(&self) -> f64 {
        self.cost
    }

    /// Returns whether the operation is done once this slice is computed.
    pub fn is_last(&self) -> bool {
        self.done >= self.whole
    }
}
