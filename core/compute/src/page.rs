//! The meaning of a page's bytes, for code that checks bytes from outside.

use half::f16;

/// The kind of numbers in a run of bytes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageNumber {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Integers, or bytes that no kernel reads: any value is valid.
    Code,
}

/// The layout of a page as [`Backend::export_page`](crate::Backend::export_page) writes it: runs of numbers
/// of one kind, each with its length in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PageFormat {
    runs: Vec<(PageNumber, usize)>,
}

impl PageFormat {
    /// Repeats `runs`, each a kind and a number of bytes, `times` times.
    pub fn repeated(runs: &[(PageNumber, usize)], times: usize) -> Self {
        let mut format = Self::default();
        (0..times).for_each(|_| runs.iter().for_each(|&run| format.push(run)));
        format
    }

    /// Appends another format.
    pub fn append(&mut self, other: &Self) {
        other.runs.iter().for_each(|&run| self.push(run));
    }

    fn push(&mut self, (kind, bytes): (PageNumber, usize)) {
        match self.runs.last_mut() {
            Some(last) if last.0 == kind => last.1 += bytes,
            _ => self.runs.push((kind, bytes)),
        }
    }

    /// Bytes per page.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.1).sum()
    }

    /// Returns whether a page has the right size and all its floats are finite. Kernels multiply masked
    /// numbers with 0, so an infinity in a page would become NaN for the next sequence that uses the page.
    pub fn is_finite(&self, page: &[u8]) -> bool {
        let mut rest = page;
        self.runs.iter().all(|&(kind, bytes)| {
            let Some((now, later)) = rest.split_at_checked(bytes) else { return false };
            rest = later;
            match kind {
                PageNumber::F32 => {
                    let (floats, odd) = now.as_chunks();
                    odd.is_empty() && floats.iter().all(|&x| f32::from_le_bytes(x).is_finite())
                }
                PageNumber::F16 => {
                    let (floats, odd) = now.as_chunks();
                    odd.is_empty() && floats.iter().all(|&x| f16::from_le_bytes(x).is_finite())
                }
                PageNumber::Code => true,
            }
        }) && rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_found_wherever_floats_are() {
        let format = PageFormat::repeated(&[(PageNumber::Code, 4), (PageNumber::F16, 4)], 2);
        assert_eq!(format.bytes(), 16);
        let page = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0x3c, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0x3c];
        assert!(format.is_finite(&page));
        assert!(!format.is_finite(&page[..15]) && !format.is_finite(&[&page[..], &[0]].concat()));
        for (at, high) in [(5, 0x7c), (15, 0xfc), (7, 0x7e)] {
            let mut bad = page;
            bad[at] = high;
            assert!(!format.is_finite(&bad), "{at}");
        }
        let floats = PageFormat::repeated(&[(PageNumber::F32, 8)], 1);
        assert!(floats.is_finite(&[1; 8]));
        assert!(!floats.is_finite(&[[0; 4], f32::NEG_INFINITY.to_le_bytes()].concat()));
    }
}
