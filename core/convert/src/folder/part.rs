//! A part of a tensor that holds several matrices: gates and ways up of all experts, keys and values of all
//! heads.

/// Some of the rows of each matrix of a tensor. The tensor is `[matrices * rows, columns]` or
/// `[matrices, rows, columns]`, with the outermost dimension first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Number of matrices.
    pub(super) matrices: usize,
    /// Swaps rows and columns of each matrix before rows are chosen.
    pub(super) swapped: bool,
    /// The first row that is chosen.
    pub(super) first: usize,
    /// Number of rows that are chosen.
    pub(super) count: usize,
    /// From one chosen row to the next.
    pub(super) step: usize,
    /// Swaps rows and columns of what was chosen.
    pub(super) swapped_after: bool,
}

impl Part {
    /// All rows of each of `matrices` matrices of `rows` rows.
    pub(super) fn all(matrices: usize, rows: usize) -> Self {
        Self { matrices, swapped: false, first: 0, count: rows, step: 1, swapped_after: false }
    }

    /// Rows and columns of a stored matrix.
    fn stored(&self, shape: &[usize]) -> Option<(usize, usize)> {
        match *shape {
            [rows, columns] if rows.is_multiple_of(self.matrices.max(1)) => {
                Some((rows / self.matrices, columns))
            }
            [matrices, rows, columns] if matrices == self.matrices => Some((rows, columns)),
            _ => None,
        }
    }

    /// Rows and columns of a matrix from which rows are chosen.
    fn chosen_from(&self, shape: &[usize]) -> Option<(usize, usize)> {
        let (rows, columns) = self.stored(shape)?;
        Some(if self.swapped { (columns, rows) } else { (rows, columns) })
    }

    /// Checks that a tensor of this shape has the part.
    pub(super) fn check(&self, shape: &[usize]) -> Result<(), String> {
        let (first, count, step) = (self.first, self.count, self.step);
        let fits = self.chosen_from(shape).is_some_and(|(rows, _)| {
            self.matrices > 0
                && count > 0
                && step > 0
                && (count - 1).checked_mul(step).is_some_and(|last| last.saturating_add(first) < rows)
        });
        if fits {
            return Ok(());
        }
        let matrices = self.matrices;
        Err(format!(
            "has the shape {shape:?}; {matrices} matrices with row {first} and {count} in steps of {step} are needed"
        ))
    }

    /// The shape of the part of a tensor of the shape `shape`, which [`check`](Self::check) accepts. It has a
    /// dimension for matrices if the tensor has, or if what was chosen is swapped.
    pub(super) fn shape(&self, shape: &[usize]) -> Vec<usize> {
        let (_, columns) = self.chosen_from(shape).unwrap_or_default();
        let (rows, columns) = if self.swapped_after { (columns, self.count) } else { (self.count, columns) };
        if shape.len() == 2 && self.matrices == 1 {
            vec![rows, columns]
        } else {
            vec![self.matrices, rows, columns]
        }
    }

    /// Calls `each` with the place of each number of the part, in order.
    pub(super) fn each(&self, shape: &[usize], mut each: impl FnMut(usize)) {
        let Some((rows, columns)) = self.stored(shape) else { return };
        let place = |matrix: usize, row: usize, column: usize| {
            let (row, column) = if self.swapped { (column, row) } else { (row, column) };
            (matrix * rows + row) * columns + column
        };
        let width = if self.swapped { rows } else { columns };
        let row = |i: usize| self.first + i * self.step;
        for matrix in 0..self.matrices {
            if self.swapped_after {
                for column in 0..width {
                    (0..self.count).for_each(|i| each(place(matrix, row(i), column)));
                }
            } else {
                for i in 0..self.count {
                    (0..width).for_each(|column| each(place(matrix, row(i), column)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(part: Part, shape: &[usize]) -> Vec<usize> {
        part.check(shape).unwrap();
        let mut places = Vec::new();
        part.each(shape, |at| places.push(at));
        assert_eq!(places.len(), part.shape(shape).iter().product::<usize>());
        places
    }

    #[test]
    fn parts_are_the_rows_of_every_matrix() {
        let second = Part { first: 1, count: 1, ..Part::all(2, 2) };
        assert_eq!(places(second, &[4, 3]), [3, 4, 5, 9, 10, 11]);
        assert_eq!(second.shape(&[4, 3]), [2, 1, 3]);
        let turned = Part { swapped_after: true, ..Part::all(2, 2) };
        assert_eq!(places(turned, &[2, 2, 3])[..6], [0, 3, 1, 4, 2, 5]);
        assert_eq!(turned.shape(&[2, 2, 3]), [2, 3, 2]);
        let every_second = Part { swapped: true, first: 1, count: 2, step: 2, ..Part::all(1, 0) };
        assert_eq!(places(every_second, &[1, 2, 4]), [1, 5, 3, 7]);
        assert_eq!(every_second.shape(&[1, 2, 4]), [1, 2, 2]);
    }

    #[test]
    fn a_tensor_without_the_part_is_refused() {
        let part = Part { first: 1, count: 2, ..Part::all(2, 0) };
        for shape in [&[4, 3][..], &[5, 3], &[3, 4, 3], &[4]] {
            assert!(part.check(shape).is_err(), "{shape:?}");
        }
        assert!(Part { step: usize::MAX, ..part }.check(&[8, 3]).is_err());
        assert!(part.check(&[6, 3]).is_ok());
    }
}
