//! The codebooks of the IQ types: each entry is a point of a lattice of 8 or 4 magnitudes.

/// Entries of 16 bits, in this order: 256 of IQ2_XXS, 512 of IQ2_XS, 1024 of IQ2_S, 256 of IQ3_XXS, 512 of
/// IQ3_S, 2048 of IQ1_S and IQ1_M. Bits `2 k ..` of an entry of 8 numbers, or `3 k ..` of one of 4, say which
/// magnitude number `k` has. The points are ggml's.
static ENTRIES: &[u8; 9216] = include_bytes!("grids.bin");

/// A codebook.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    first: usize,
    len: usize,
    magnitudes: [i8; 8],
}

const fn two_bits(first: usize, len: usize, m: [i8; 3]) -> Grid {
    Grid { first, len, magnitudes: [m[0], m[1], m[2], 0, 0, 0, 0, 0] }
}

pub(crate) const IQ2_XXS: Grid = two_bits(0, 256, [8, 25, 43]);
pub(crate) const IQ2_XS: Grid = two_bits(256, 512, [8, 25, 43]);
pub(crate) const IQ2_S: Grid = two_bits(768, 1024, [8, 25, 43]);
pub(crate) const IQ3_XXS: Grid = Grid { first: 1792, len: 256, magnitudes: [4, 12, 20, 28, 36, 44, 52, 62] };
pub(crate) const IQ3_S: Grid = Grid { first: 2048, len: 512, magnitudes: [1, 3, 5, 7, 9, 11, 13, 15] };
pub(crate) const IQ1: Grid = two_bits(2560, 2048, [-1, 0, 1]);

impl Grid {
    fn entry(&self, index: usize) -> usize {
        let at = 2 * (self.first + index % self.len);
        u16::from_le_bytes([ENTRIES[at], ENTRIES[at + 1]]) as usize
    }

    /// The 8 numbers of entry `index`.
    pub(crate) fn eight(&self, index: usize) -> [i8; 8] {
        let entry = self.entry(index);
        std::array::from_fn(|k| self.magnitudes[entry >> (2 * k) & 3])
    }

    /// The 8 numbers of two entries of 4.
    pub(crate) fn fours(&self, indices: [usize; 2]) -> [i8; 8] {
        let entries = indices.map(|index| self.entry(index));
        std::array::from_fn(|k| self.magnitudes[entries[k / 4] >> (k % 4 * 3) & 7])
    }
}

/// The signs of 8 numbers from 7 bits: a set bit means minus, and the eighth makes their number even.
pub(crate) const fn even_signs(bits: u32) -> u8 {
    let bits = bits & 127;
    (bits | (bits.count_ones() & 1) << 7) as u8
}

/// Negates the numbers whose bit is set.
pub(crate) fn negate(numbers: [i8; 8], signs: u8) -> [i8; 8] {
    std::array::from_fn(|k| if signs >> k & 1 == 1 { -numbers[k] } else { numbers[k] })
}
