//! The integer products in plain code. This code defines the result: the other instruction sets compute the
//! same integers and run the same float operations in the same order, so they agree to the last bit.

use super::tile::Tile;
use crate::cpu::activations::Activations;
use crate::cpu::format::{BLOCK, Format, GROUP, PANEL, SUPER, Scales};

/// Adds the products of a tile, whose first column is `first`, with row `row` of the activations to `acc`.
pub(crate) fn product(
    format: &Format,
    tile: &Tile,
    a: &Activations,
    row: usize,
    first: usize,
    acc: &mut [f32; PANEL],
) {
    let codes = &a.codes[row * a.columns + first..][..tile.columns];
    match format.scales {
        Scales::Block { min } => {
            for (b, codes) in codes.chunks_exact(BLOCK).enumerate() {
                let at = (row * a.columns + first) / BLOCK + b;
                for (p, acc) in acc.iter_mut().enumerate() {
                    let sum = dot(format, tile, codes, b * BLOCK, p);
                    *acc = (sum as f32).mul_add(tile.scales[b * PANEL + p] * a.scales[at], *acc);
                    if min {
                        *acc = tile.mins[b * PANEL + p].mul_add(a.sums[at], *acc);
                    }
                }
            }
        }
        Scales::Twin => {
            for (b, codes) in codes.chunks_exact(BLOCK).enumerate() {
                let at = (row * a.columns + first) / BLOCK + b;
                for (p, acc) in acc.iter_mut().enumerate() {
                    let (first, second) = codes.split_at(BLOCK / 2);
                    let sum = dot(format, tile, first, b * BLOCK, p) as f32;
                    let scaled = sum * tile.scales[b * PANEL + p];
                    let sum = dot(format, tile, second, b * BLOCK + BLOCK / 2, p) as f32;
                    let scaled = sum.mul_add(tile.mins[b * PANEL + p], scaled);
                    *acc = scaled.mul_add(a.scales[at], *acc);
                }
            }
        }
        Scales::Super { sub, min } => {
            for (b, codes) in codes.chunks_exact(SUPER).enumerate() {
                let at = (row * a.columns + first) / SUPER + b;
                for (p, acc) in acc.iter_mut().enumerate() {
                    let (mut sum, mut mins) = (0, 0);
                    for (s, codes) in codes.chunks_exact(sub).enumerate() {
                        let s = b * (SUPER / sub) + s;
                        let scale = tile.sub_scales[(s * PANEL + p) * 2] as i32;
                        sum += scale * dot(format, tile, codes, s * sub, p);
                        if min {
                            let codes: i32 = codes.iter().map(|&c| c as i32).sum();
                            mins += codes * tile.sub_mins[(s / 2 * PANEL + p) * 2 + s % 2] as i32;
                        }
                    }
                    let d = a.scales[at];
                    *acc = (sum as f32).mul_add(tile.scales[b * PANEL + p] * d, *acc);
                    if min {
                        *acc = (mins as f32).mul_add(-(tile.mins[b * PANEL + p] * d), *acc);
                    }
                }
            }
        }
    }
}

/// The integer product of activation codes with the weights of panel row `p` from the tile's column `first`
/// on.
fn dot(format: &Format, tile: &Tile, codes: &[i8], first: usize, p: usize) -> i32 {
    let mut sum = 0;
    for (k, &code) in codes.iter().enumerate() {
        let byte = tile.codes[(first + k) / 4 * GROUP + 4 * p + k % 4];
        let weight =
            if format.codes.signed() { byte as i8 as i32 } else { byte as i32 - format.center as i32 };
        sum += weight * code as i32;
    }
    sum
}
