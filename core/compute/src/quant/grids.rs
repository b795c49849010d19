//! The codebooks of the IQ types: each entry is a point of a lattice of 8 or 4 magnitudes.

/// Entries of 16 bits, in this order: 256 of IQ2_XXS, 512 of IQ2_XS, 1024 of IQ2_S, 256 of IQ3_XXS, 512 of
/// IQ3_S, 2048 of IQ1_S and IQ1_M. Bits `2 k ..` of an entry of 8 numbers, or `3 k ..` of one of 4, say which
/// magnitude number `k` has. The points are ggml's.
pub(crate) static ENTRIES: &[u8; 9216] = include_bytes!("grids.bin");

/// A codebook.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    first: usize,
    len: usize,
}

pub(crate) const IQ2_XXS: Grid = Grid { first: 0, len: 256 };
pub(crate) const IQ2_XS: Grid = Grid { first: 256, len: 512 };
pub(crate) const IQ2_S: Grid = Grid { first: 768, len: 1024 };
pub(crate) const IQ3_XXS: Grid = Grid { first: 1792, len: 256 };
pub(crate) const IQ3_S: Grid = Grid { first: 2048, len: 512 };
pub(crate) const IQ1: Grid = Grid { first: 2560, len: 2048 };

impl Grid {
    fn entry(&self, index: usize) -> usize {
        let at = 2 * (self.first + index % self.len);
        u16::from_le_bytes([ENTRIES[at], ENTRIES[at + 1]]) as usize
    }

    /// Which magnitudes the 8 numbers of entry `index` have.
    pub(crate) fn eight(&self, index: usize) -> [u8; 8] {
        let entry = self.entry(index);
        std::array::from_fn(|k| (entry >> (2 * k) & 3) as u8)
    }

    /// Which magnitudes the 8 numbers of two entries of 4 have.
    pub(crate) fn fours(&self, indices: [usize; 2]) -> [u8; 8] {
        let entries = indices.map(|index| self.entry(index));
        std::array::from_fn(|k| (entries[k / 4] >> (k % 4 * 3) & 7) as u8)
    }
}

/// The signs of 8 numbers from 7 bits: a set bit means minus, and the eighth makes their number even.
pub(crate) const fn even_signs(bits: u32) -> u8 {
    let bits = bits & 127;
    (bits | (bits.count_ones() & 1) << 7) as u8
}
