//! The work on one page: the products of queries and keys and of weights and values, and the running softmax
//! between them.
//!
//! Both products use one kernel, which multiplies the numbers of several queries with the rows of a page.
//! Keys and values are widened in registers during the multiplication. Only if there are more queries than
//! fit into registers at once are they widened to memory first.

use super::super::cache::{BLOCK, Numbers};
use super::super::wide::{WIDTH, Wide};
use super::State;
use crate::PAGE_TOKENS;

/// Columns that a product works on at a time: two registers.
const STRIP: usize = 2 * WIDTH;

/// The running softmax of a query over the pages of a chunk.
#[derive(Clone, Copy)]
pub(super) struct Running {
    /// The row's position.
    pub(super) position: usize,
    /// The largest score so far.
    max: f32,
    /// Factor for earlier sums after this page.
    factor: f32,
    /// Sum of the exponentials.
    sum: [f32; WIDTH],
}

impl Running {
    pub(super) fn new(position: usize) -> Self {
        Self { position, max: f32::NEG_INFINITY, factor: 1.0, sum: [0.0; WIDTH] }
    }

    /// Returns the state after the last page.
    #[inline(always)]
    pub(super) fn state<V: Wide>(&self) -> State {
        // SAFETY: of 16 numbers.
        State { max: self.max, sum: unsafe { V::load(self.sum.as_ptr()) }.sum() }
    }

    /// Turns a page's scores, `[32]`, plus the number to add to each, into exponentials and advances. Tokens
    /// outside `from..to` are masked.
    #[inline(always)]
    pub(super) fn softmax<V: Wide>(
        &mut self,
        scores: &mut [f32],
        offset: f32,
        soft_cap: Option<f32>,
        from: usize,
        to: usize,
    ) {
        assert!(scores.len() == PAGE_TOKENS && to <= PAGE_TOKENS);
        self.factor = 1.0;
        if from >= to {
            scores.fill(0.0);
            return;
        }
        for at in [0, WIDTH] {
            // SAFETY: of 32 numbers.
            unsafe {
                let mut x = V::load(scores.as_ptr().add(at)).add(V::splat(offset));
                if let Some(cap) = soft_cap {
                    x = x.div(V::splat(cap)).tanh().mul(V::splat(cap));
                }
                x.store(scores.as_mut_ptr().add(at));
            }
        }
        scores[..from].fill(f32::NEG_INFINITY);
        scores[to..].fill(f32::NEG_INFINITY);
        // SAFETY: of 32 numbers.
        let x = unsafe { [V::load(scores.as_ptr()), V::load(scores.as_ptr().add(WIDTH))] };
        let largest = x[0].max(x[1]).largest();
        if largest > self.max {
            // The first page's factor is e^-inf, 0, and multiplies sums that are 0.
            self.factor = V::splat(self.max - largest).exp().lanes()[0];
            self.max = largest;
        }
        let max = V::splat(self.max);
        // (Not a closure: a closure would be compiled without the processor's instructions.)
        let e = [x[0].sub(max).exp(), x[1].sub(max).exp()];
        // SAFETY: of 32 numbers.
        unsafe {
            let sum = V::load(self.sum.as_ptr()).mul(V::splat(self.factor));
            sum.add(e[0]).add(e[1]).store(self.sum.as_mut_ptr());
            e[0].store(scores.as_mut_ptr());
            e[1].store(scores.as_mut_ptr().add(WIDTH));
        }
    }
}

/// The part that a query's scores of a page have in common: its product with the offset that was subtracted
/// from all keys.
#[inline(always)]
pub(super) fn common_score<V: Wide>(query: &[f32], keys: Numbers<'_>) -> f32 {
    let Numbers::Q8 { offsets, .. } = keys else { return 0.0 };
    let mut sum = V::splat(0.0);
    for (query, offsets) in query.chunks(WIDTH).zip(offsets.chunks_exact(WIDTH)) {
        let mut padded = [0.0; WIDTH];
        padded[..query.len()].copy_from_slice(query);
        // SAFETY: 16 numbers each.
        unsafe { sum = V::load(padded.as_ptr()).mul_add(V::load_f16(offsets.as_ptr()), sum) };
    }
    sum.sum()
}

/// `c[q] = factor[q] * c[q] + a[q] · b`, or without factors `c[q] = a[q] · b`. `a` is `[queries][inner]`, `b`
/// the first `rows` rows of `numbers`, `[rows][width]` with `rows ≤ inner`, `c` `[queries][width]`; `width`
/// is a multiple of 32. With `KEYS` the numbers are a page's keys, `[head_dim][32]`, otherwise its values,
/// `[32][padded]`. `ahead` is the data that will be read next, in the same layout, to prefetch. `space` has
/// room for `b`.
#[allow(clippy::too_many_arguments, reason = "kernels have many operands")]
#[inline(always)]
pub(super) fn product<V: Wide, const KEYS: bool>(
    [inner, rows, width]: [usize; 3],
    a: &[f32],
    numbers: Numbers<'_>,
    ahead: Numbers<'_>,
    c: &mut [f32],
    running: Option<&[Running]>,
    space: &mut [f32],
) {
    let queries = a.len() / inner;
    let read = rows * width;
    assert!(
        rows <= inner && width.is_multiple_of(STRIP) && c.len() >= queries * width && space.len() >= read
    );
    assert!(running.is_none_or(|r| r.len() >= queries));
    match numbers {
        Numbers::F32(b) => assert!(b.len() >= read),
        Numbers::F16(b) => assert!(b.len() >= read),
        Numbers::Q8 { codes: b, scales, .. } => {
            let blocks = if KEYS { rows.div_ceil(BLOCK) } else { width / BLOCK };
            assert!(b.len() >= read && scales.len() >= blocks * PAGE_TOKENS);
        }
    }
    let size = Size { inner, rows, width };
    // With more queries than one tile takes, widen the numbers once for all of them.
    let tile = queries <= V::TILE;
    let ahead = match ahead {
        Numbers::F32(ahead) => ahead.as_ptr().cast(),
        Numbers::F16(ahead) => ahead.as_ptr().cast(),
        Numbers::Q8 { codes: ahead, .. } => ahead.as_ptr().cast::<u8>(),
    };
    // SAFETY: the assertions above check every length.
    unsafe {
        let floats = match numbers {
            Numbers::F32(b) => b.as_ptr(),
            Numbers::F16(b) => {
                let b = Halves(b.as_ptr(), width);
                if tile {
                    return tiles::<V, _>(size, a, b, ahead, c, running);
                }
                widen::<V, _>(size, b, space)
            }
            Numbers::Q8 { codes, scales, .. } if KEYS => {
                let b = Keys { codes: codes.as_ptr(), scales: scales.as_ptr() };
                if tile {
                    return tiles::<V, _>(size, a, b, ahead, c, running);
                }
                widen::<V, _>(size, b, space)
            }
            Numbers::Q8 { codes, scales, .. } => {
                let b = Values { codes: codes.as_ptr(), scales: scales.as_ptr(), width };
                if tile {
                    return tiles::<V, _>(size, a, b, ahead, c, running);
                }
                widen::<V, _>(size, b, space)
            }
        };
        tiles::<V, _>(size, a, Floats(floats, width), ahead, c, running);
    }
}

#[derive(Clone, Copy)]
struct Size {
    inner: usize,
    rows: usize,
    width: usize,
}

/// Rows of numbers that are converted to floats when they are loaded.
trait Rows<V: Wide>: Copy {
    /// Bytes of a number.
    const BYTES: usize;

    /// Data needed to load 32 rows of 32 columns, such as scales.
    type Block: Copy;

    /// # Safety
    /// The rows and columns exist.
    unsafe fn block(self, first_row: usize, column: usize) -> Self::Block;

    /// Loads row `first_row + row` from the block's column plus 16 times `half`.
    ///
    /// # Safety
    /// Same contract as `block`.
    unsafe fn load(self, block: &Self::Block, first_row: usize, row: usize, column: usize, half: usize) -> V;
}

#[derive(Clone, Copy)]
struct Floats(*const f32, usize);

impl<V: Wide> Rows<V> for Floats {
    const BYTES: usize = 4;
    type Block = ();

    #[inline(always)]
    unsafe fn block(self, _: usize, _: usize) {}

    #[inline(always)]
    unsafe fn load(self, _: &(), first_row: usize, row: usize, column: usize, half: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(self.0.add((first_row + row) * self.1 + column + half * WIDTH)) }
    }
}

#[derive(Clone, Copy)]
struct Halves(*const u16, usize);

impl<V: Wide> Rows<V> for Halves {
    const BYTES: usize = 2;
    type Block = ();

    #[inline(always)]
    unsafe fn block(self, _: usize, _: usize) {}

    #[inline(always)]
    unsafe fn load(self, _: &(), first_row: usize, row: usize, column: usize, half: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(self.0.add((first_row + row) * self.1 + column + half * WIDTH)) }
    }
}

/// Keys in 8 bits: a row holds one number of each of 32 tokens, each with its own scale.
#[derive(Clone, Copy)]
struct Keys {
    codes: *const i8,
    scales: *const u16,
}

impl<V: Wide> Rows<V> for Keys {
    const BYTES: usize = 1;
    type Block = [V; 2];

    #[inline(always)]
    unsafe fn block(self, first_row: usize, _: usize) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let scales = self.scales.add(first_row / BLOCK * PAGE_TOKENS);
            [V::load_f16(scales), V::load_f16(scales.add(WIDTH))]
        }
    }

    #[inline(always)]
    unsafe fn load(self, scales: &[V; 2], first_row: usize, row: usize, _: usize, half: usize) -> V {
        // SAFETY: the caller's promise.
        let codes = unsafe { V::load_i8(self.codes.add((first_row + row) * PAGE_TOKENS + half * WIDTH)) };
        codes.mul(scales[half])
    }
}

/// Values in 8 bits: a row is a token, with a scale for every 32 numbers.
#[derive(Clone, Copy)]
struct Values {
    codes: *const i8,
    scales: *const u16,
    width: usize,
}

impl<V: Wide> Rows<V> for Values {
    const BYTES: usize = 1;
    type Block = [f32; PAGE_TOKENS];

    #[inline(always)]
    unsafe fn block(self, _: usize, column: usize) -> [f32; PAGE_TOKENS] {
        let mut out = [0.0; PAGE_TOKENS];
        // SAFETY: the caller's promise.
        unsafe {
            let scales = self.scales.add(column / BLOCK * PAGE_TOKENS);
            V::load_f16(scales).store(out.as_mut_ptr());
            V::load_f16(scales.add(WIDTH)).store(out.as_mut_ptr().add(WIDTH));
        }
        out
    }

    #[inline(always)]
    unsafe fn load(
        self,
        scales: &[f32; PAGE_TOKENS],
        first_row: usize,
        row: usize,
        column: usize,
        half: usize,
    ) -> V {
        // SAFETY: the caller's promise; a page has no more than 32 tokens, and a block no more than 32 rows.
        unsafe {
            let codes = V::load_i8(self.codes.add((first_row + row) * self.width + column + half * WIDTH));
            codes.mul(V::splat(*scales.get_unchecked(row)))
        }
    }
}

/// Widens all rows to `space`.
///
/// # Safety
/// `b` has the rows and columns, and `space` room for them.
#[inline(always)]
unsafe fn widen<V: Wide, R: Rows<V>>(size: Size, b: R, space: &mut [f32]) -> *const f32 {
    let to = space.as_mut_ptr();
    for first in (0..size.rows).step_by(BLOCK) {
        for column in (0..size.width).step_by(STRIP) {
            // SAFETY: the caller's promise.
            unsafe {
                let block = b.block(first, column);
                for row in 0..BLOCK.min(size.rows - first) {
                    let to = to.add((first + row) * size.width + column);
                    b.load(&block, first, row, column, 0).store(to);
                    b.load(&block, first, row, column, 1).store(to.add(WIDTH));
                }
            }
        }
    }
    to
}

/// Multiplies as many queries at a time as fit into registers.
///
/// # Safety
/// `a` is of whole queries, `b` has the rows and columns, `c` room for the results.
#[inline(always)]
unsafe fn tiles<V: Wide, R: Rows<V>>(
    size: Size,
    a: &[f32],
    b: R,
    ahead: *const u8,
    c: &mut [f32],
    running: Option<&[Running]>,
) {
    let queries = a.len() / size.inner;
    let count = queries.div_ceil(V::TILE);
    for i in 0..count {
        let (first, end) = (i * queries / count, (i + 1) * queries / count);
        let running = running.map(|r| &r[first..end]);
        // SAFETY: the caller's promise; there are `end - first` queries from `first` on.
        unsafe {
            let (a, c) = (a.as_ptr().add(first * size.inner), c.as_mut_ptr().add(first * size.width));
            match end - first {
                1 => tile::<V, R, 1>(size, a, b, ahead, c, running),
                2 => tile::<V, R, 2>(size, a, b, ahead, c, running),
                3 => tile::<V, R, 3>(size, a, b, ahead, c, running),
                4 if V::TILE > 3 => tile::<V, R, 4>(size, a, b, ahead, c, running),
                5 if V::TILE > 3 => tile::<V, R, 5>(size, a, b, ahead, c, running),
                6 if V::TILE > 3 => tile::<V, R, 6>(size, a, b, ahead, c, running),
                _ => {}
            }
        }
    }
}

/// [`tiles`] for T queries: 2 T registers of sums.
///
/// # Safety
/// Same contract as [`tiles`].
#[inline(always)]
unsafe fn tile<V: Wide, R: Rows<V>, const T: usize>(
    Size { inner, rows, width }: Size,
    a: *const f32,
    b: R,
    ahead: *const u8,
    c: *mut f32,
    running: Option<&[Running]>,
) {
    for column in (0..width).step_by(STRIP) {
        let mut sums = [[V::splat(0.0); 2]; T];
        if let Some(running) = running {
            for (q, (sums, running)) in sums.iter_mut().zip(running).enumerate() {
                for (half, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    let old = unsafe { V::load(c.add(q * width + column + half * WIDTH)) };
                    *sum = old.mul(V::splat(running.factor));
                }
            }
        }
        for first in (0..rows).step_by(BLOCK) {
            // SAFETY: the caller's promise.
            unsafe {
                let block = b.block(first, column);
                for row in 0..BLOCK.min(rows - first) {
                    let next = ((first + row) * width + column) * R::BYTES;
                    for line in (0..STRIP * R::BYTES).step_by(64) {
                        V::prefetch(ahead.wrapping_add(next + line));
                    }
                    let b = [b.load(&block, first, row, column, 0), b.load(&block, first, row, column, 1)];
                    for (q, sums) in sums.iter_mut().enumerate() {
                        let a = V::splat(*a.add(q * inner + first + row));
                        sums[0] = a.mul_add(b[0], sums[0]);
                        sums[1] = a.mul_add(b[1], sums[1]);
                    }
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { sum.store(c.add(q * width + column + half * WIDTH)) };
            }
        }
    }
}
