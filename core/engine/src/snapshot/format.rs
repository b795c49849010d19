//! A sequence as bytes: its tokens, and the keys and values that were computed for them.
//!
//! Layout, little-endian: the magic `RLMSEQ02`; a digest of the model, the device and the cache (32 bytes);
//! the number of tokens (u32), of cached tokens (u32), of page entries (u32) and bytes in a page (u32); the
//! adapter's scale (f32) and the length of its name in bytes (u32), 0 without one; the name; the tokens (u32
//! each); for every page entry a byte that says whether its contents follow; the contents; and the signature
//! of everything before it (HMAC-SHA256, 32 bytes).
//!
//! The bytes come from outside Realm and may be forged. Without a signature by the engine's key they are
//! refused. If the caller restores them as foreign, everything that a forward pass would trust is checked
//! here, on the caller's thread.

use hmac::Mac;
use realm_compute::{CacheLayout, PAGE_TOKENS, PageFormat};
use realm_model::{Forward, Weights};
use sha2::{Digest, Sha256};

use super::Snapshot;
use super::key::SnapshotKey;
use crate::adapter::Applied;
use crate::{EngineConfig, Error};

const MAGIC: &[u8; 8] = b"RLMSEQ02";
const NUMBERS: usize = MAGIC.len() + 32;
const HEADER: usize = NUMBERS + 6 * 4;
const SIGNATURE: usize = 32;

/// The format that all saved sequences of an engine have in common.
pub(crate) struct SnapshotFormat {
    key: SnapshotKey,
    /// A digest of everything that has to be the same where a sequence is restored.
    fingerprint: [u8; 32],
    layout: CacheLayout,
    page: PageFormat,
    vocabulary: usize,
}

/// The most characters of an adapter's name that an error shows.
const SHOWN: usize = 64;

impl SnapshotFormat {
    pub(crate) fn new(
        weights: &dyn Weights,
        runner: &dyn Forward,
        config: &EngineConfig,
    ) -> Result<Self, Error> {
        let (layout, page) = (runner.layout().clone(), runner.page_format());
        // Each kind of device writes pages in its own order.
        let device = weights.device().split(' ').next().unwrap_or_default().to_owned();
        let all = format!("{device} {} {PAGE_TOKENS} {layout:?} {page:?}", config.cache_type);
        let fingerprint = Sha256::new_with_prefix(weights.identity()).chain_update(all).finalize().into();
        let key = match &config.snapshot_key {
            Some(key) => key.clone(),
            None => SnapshotKey::random()?,
        };
        Ok(Self { key, fingerprint, layout, page, vocabulary: weights.config().vocab })
    }

    /// Returns a sequence's bytes, signed.
    pub(crate) fn write(&self, snapshot: &Snapshot, adapter: Option<&Applied>) -> Result<Vec<u8>, Error> {
        let (name, scale) = adapter.map_or(("", 0.0), Applied::name_and_scale);
        let (Snapshot { tokens, cached, pages }, page_bytes) = (snapshot, self.page.bytes());
        let contents: usize = pages.iter().flatten().map(Vec::len).sum();
        let most = HEADER + name.len() + 4 * tokens.len() + pages.len() + contents + SIGNATURE;
        let mut out = Vec::with_capacity(most);
        out.extend(MAGIC);
        out.extend(self.fingerprint);
        for number in [tokens.len(), *cached, pages.len(), page_bytes] {
            out.extend((number as u32).to_le_bytes());
        }
        out.extend(scale.to_le_bytes());
        out.extend((name.len() as u32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        out.extend(pages.iter().map(|page| u8::from(page.is_some())));
        pages.iter().flatten().for_each(|page| out.extend_from_slice(page));
        let signature = self.key.mac()?.chain_update(&out).finalize().into_bytes();
        out.extend(signature);
        Ok(out)
    }

    /// Refuses bytes that were not signed with the engine's key, or were altered since.
    pub(crate) fn authenticate(&self, bytes: &[u8]) -> Result<(), Error> {
        let (signed, signature) = split(bytes)?;
        // Compares in constant time.
        self.key.mac()?.chain_update(signed).verify_slice(signature).map_err(|_| {
            let why = "it was altered, or saved where the key is another one. Where saved sequences outlive a realm, give both the same \
                       `snapshot_key`; what comes from elsewhere is restored by `restore_foreign_sequence`, without trust";
            Error::InvalidArgument(format!("this saved sequence is not signed with this realm's key: {why}"))
        })
    }

    /// Reads bytes that [`write`](Self::write) wrote, for a sequence that uses `adapter`. `fits` refuses
    /// lengths. The numbers in `foreign` pages are checked, too.
    pub(crate) fn read(
        &self,
        bytes: &[u8],
        adapter: Option<&Applied>,
        foreign: bool,
        fits: impl Fn(usize) -> Result<(), Error>,
    ) -> Result<Snapshot, Error> {
        let (signed, _) = split(bytes)?;
        let (header, rest) = signed.split_at_checked(HEADER).ok_or_else(|| bad("it ends too early"))?;
        if header[MAGIC.len()..NUMBERS] != self.fingerprint {
            return Err(bad("it was made with another model, device or cache type"));
        }
        let (numbers, _) = header[NUMBERS..].as_chunks::<4>();
        let number = |i: usize| u32::from_le_bytes(numbers[i]) as usize;
        let [len, cached, entries, page_bytes] = [0, 1, 2, 3].map(number);
        let (scale, name) = (f32::from_le_bytes(numbers[4]), number(5));
        let whole = cached.div_ceil(PAGE_TOKENS);
        if cached > len {
            return Err(bad(&format!("{cached} of its {len} tokens are said to be cached")));
        }
        if entries != self.layout.groups() * whole {
            return Err(bad(&format!(
                "it has {entries} pages for {cached} cached tokens in {} groups of layers",
                self.layout.groups()
            )));
        }
        if page_bytes != self.page.bytes() {
            return Err(bad(&format!("its pages have {page_bytes} bytes, not {}", self.page.bytes())));
        }
        let mut rest = rest;
        let mut take = |n: usize| -> Result<&[u8], Error> {
            let (now, later) = rest.split_at_checked(n).ok_or_else(|| bad("it ends too early"))?;
            rest = later;
            Ok(now)
        };
        self.check_adapter(take(name)?, scale, cached, adapter)?;
        fits(len)?;
        let (tokens, _) = take(4 * len)?.as_chunks();
        let present = take(entries)?;
        self.check_present(present, cached)?;
        let contents = take(present.iter().filter(|&&p| p == 1).count() * page_bytes)?;
        if !rest.is_empty() {
            return Err(bad("it goes on after its end"));
        }
        let tokens: Vec<u32> = tokens.iter().map(|&token| u32::from_le_bytes(token)).collect();
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            let why = format!("token {token} is not in the vocabulary of {} tokens", self.vocabulary);
            return Err(bad(&why));
        }
        let mut contents = contents.chunks_exact(page_bytes.max(1));
        let mut pages = Vec::with_capacity(entries);
        for &present in present {
            let page = if present == 1 { contents.next() } else { None };
            if foreign && page.is_some_and(|page| !self.page.is_finite(page)) {
                return Err(bad("a page holds what is no finite number"));
            }
            pages.push(page.map(<[u8]>::to_vec));
        }
        Ok(Snapshot { tokens, cached, pages })
    }

    /// Refuses a sequence that was saved with another adapter than it is restored with.
    fn check_adapter(
        &self,
        name: &[u8],
        scale: f32,
        cached: usize,
        adapter: Option<&Applied>,
    ) -> Result<(), Error> {
        let (wanted, by) = adapter.map_or(("", 0.0), Applied::name_and_scale);
        if name == wanted.as_bytes() && scale.to_bits() == by.to_bits() {
            return match adapter {
                Some(_) if cached > 0 => Err(bad("it holds what an adapter computed")),
                _ => Ok(()),
            };
        }
        let described = |name: &str, scale: f32| match name {
            "" => "without an adapter".to_owned(),
            name => format!("with the adapter `{name}`, scaled by {scale}"),
        };
        // The name may be any bytes, and as long as the input.
        let name: String =
            String::from_utf8_lossy(name).chars().take(SHOWN).flat_map(char::escape_debug).collect();
        Err(bad(&format!(
            "it was saved {} and is restored {}: restore it by the model with the same adapter",
            described(&name, scale),
            described(wanted, by)
        )))
    }

    /// Refuses pages that are missing where the next row sees them, or between others.
    fn check_present(&self, present: &[u8], cached: usize) -> Result<(), Error> {
        let whole = cached.div_ceil(PAGE_TOKENS);
        for (group, present) in present.chunks_exact(whole.max(1)).enumerate() {
            if let Some(other) = present.iter().find(|&&p| p > 1) {
                return Err(bad(&format!("a page is marked as {other}, neither missing (0) nor there (1)")));
            }
            let missing = present.iter().take_while(|&&p| p == 0).count();
            if let Some(at) = present[missing..].iter().position(|&p| p == 0) {
                return Err(bad(&format!("page {} is missing after one that is there", missing + at)));
            }
            let passed = self.layout.first_page(group, cached);
            if missing > passed {
                return Err(bad(&format!("page {passed} is missing, and layers still see it")));
            }
        }
        Ok(())
    }
}

/// Splits bytes into the signed part and the signature.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    if !bytes.starts_with(MAGIC) {
        let why = "it does not begin with RLMSEQ02, so that it is none, or of another version of Realm";
        return Err(bad(why));
    }
    let at = bytes.len().checked_sub(SIGNATURE).filter(|&at| at >= HEADER);
    at.map(|at| bytes.split_at(at)).ok_or_else(|| bad("it ends too early"))
}

fn bad(why: &str) -> Error {
    Error::InvalidArgument(format!("this is no saved sequence of this model: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use realm_compute::PageNumber;

    use super::*;

    /// A format with one group that sees everything and one with a window of 8 tokens.
    fn format(key: u8) -> SnapshotFormat {
        SnapshotFormat {
            key: SnapshotKey::new(&[key; 32]).unwrap(),
            fingerprint: [5; 32],
            layout: CacheLayout::new(1, 32, &[None, Some(8)]),
            page: PageFormat::repeated(&[(PageNumber::F32, 12)], 1),
            vocabulary: 50,
        }
    }

    fn page(x: f32) -> Option<Vec<u8>> {
        Some([x; 3].iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn sample() -> Snapshot {
        let pages = vec![page(7.0), page(1.0), None, page(9.0)];
        Snapshot { tokens: (0..50).collect(), cached: 40, pages }
    }

    fn read(format: &SnapshotFormat, bytes: &[u8], foreign: bool) -> Result<Snapshot, Error> {
        if !foreign {
            format.authenticate(bytes)?;
        }
        format.read(bytes, None, foreign, |len| {
            (len <= 50).then_some(()).ok_or(Error::LimitExceeded("too long".into()))
        })
    }

    /// Checks that changed foreign bytes are refused with the message `why`.
    fn refused(snapshot: &Snapshot, change: impl Fn(&mut Vec<u8>), why: &str) {
        let mut bytes = format(1).write(snapshot, None).unwrap();
        change(&mut bytes);
        let error = read(&format(1), &bytes, true).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_was_saved_is_restored() {
        let bytes = format(1).write(&sample(), None).unwrap();
        assert_eq!(read(&format(1), &bytes, false).unwrap(), sample());
        assert_eq!(read(&format(2), &bytes, true).unwrap(), sample());
        for len in 0..bytes.len() {
            assert!(read(&format(1), &bytes[..len], false).is_err());
            assert!(read(&format(1), &bytes[..len], true).is_err());
        }
    }

    #[test]
    fn only_signed_bytes_are_restored() {
        let bytes = format(1).write(&sample(), None).unwrap();
        let error = read(&format(2), &bytes, false).unwrap_err().to_string();
        assert!(error.contains("snapshot_key") && error.contains("restore_foreign_sequence"), "{error}");
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(read(&format(1), &altered, false).is_err(), "byte {at}");
        }
    }

    #[test]
    fn foreign_bytes_have_to_make_sense() {
        let number = |i: usize, x: u32| {
            move |bytes: &mut Vec<u8>| bytes[NUMBERS + 4 * i..][..4].copy_from_slice(&x.to_le_bytes())
        };
        refused(&sample(), |bytes| bytes[0] = b'X', "RLMSEQ02");
        refused(&sample(), |bytes| bytes[MAGIC.len()] ^= 1, "another model");
        refused(&sample(), number(0, 39), "40 of its 39 tokens");
        refused(&sample(), number(0, u32::MAX), "too long");
        refused(&sample(), number(1, 64), "64 of its 50 tokens");
        refused(&sample(), number(1, 20), "4 pages for 20");
        refused(&sample(), number(2, u32::MAX), "pages for 40");
        refused(&sample(), number(3, 13), "pages have 13 bytes");
        refused(&sample(), number(4, 1.0f32.to_bits()), "adapter");
        refused(&sample(), number(5, 4), "adapter");
        let named = |bytes: &mut Vec<u8>| {
            number(5, 5000)(bytes);
            bytes.splice(HEADER..HEADER, [b'\n'; 5000]);
        };
        refused(&sample(), named, &format!("`{}`, scaled", "\\n".repeat(SHOWN)));
        refused(&sample(), |bytes| bytes.push(0), "goes on");
        let with = |pages| Snapshot { pages, ..sample() };
        let all = || page(1.0);
        refused(&with(vec![None, all(), all(), all()]), |_| {}, "page 0 is missing, and layers still see it");
        refused(&with(vec![all(), all(), None, None]), |_| {}, "page 1 is missing, and layers still see it");
        refused(&with(vec![all(), all(), all(), None]), |_| {}, "page 1 is missing after");
        refused(&sample(), |bytes| bytes[HEADER + 4 * 50] = 2, "marked as 2");
        refused(&with(vec![all(), page(f32::NAN), all(), all()]), |_| {}, "finite");
        refused(&Snapshot { tokens: (1..51).collect(), ..sample() }, |_| {}, "token 50");
    }

    proptest! {
        #[test]
        fn damage_never_crashes(at in 0usize..400, value: u8, foreign: bool) {
            let mut bytes = format(1).write(&sample(), None).unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = read(&format(1), &bytes, foreign);
        }
    }
}
