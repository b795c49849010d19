//! Keys as their users write them.

use std::fmt;

use sha2::{Digest, Sha256};

/// The marks that keys are written with. 62 of them, so a double click selects a key.
const MARKS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The length of a key's public part.
const ID: usize = 10;

/// The length of its secret part: 43 of 62 marks are 256 bits.
const SECRET: usize = 43;

/// A whole key: `rk_`, its public part, `_`, its secret part. Its debug output shows the public part alone.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut text = String::from("rk_");
        push_random(&mut text, ID)?;
        text.push('_');
        push_random(&mut text, SECRET)?;
        Ok(Self(text))
    }

    /// Reads a text that has a key's form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix("rk_")?.split_once('_')?;
        let plain = |part: &str, length| part.len() == length && part.bytes().all(|b| MARKS.contains(&b));
        (plain(id, ID) && plain(secret, SECRET)).then(|| Self(text.to_owned()))
    }

    /// The key itself, to be shown once.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The public part.
    pub fn id(&self) -> &str {
        &self.0["rk_".len()..][..ID]
    }

    /// SHA-256 of the whole key. It has 256 random bits, so no slower function is needed.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(rk_{}_…)", self.id())
    }
}

fn push_random(text: &mut String, length: usize) -> Result<(), getrandom::Error> {
    let end = text.len() + length;
    while text.len() < end {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes)?;
        // 248 is the largest multiple of 62 that fits a byte: larger bytes would favor some marks.
        let marks =
            bytes.iter().filter(|&&byte| byte < 248).map(|&byte| char::from(MARKS[usize::from(byte % 62)]));
        let lacking = end - text.len();
        text.extend(marks.take(lacking));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_are_read_back() {
        let (one, two) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_ne!(one.as_str(), two.as_str());
        assert_eq!(one.as_str().len(), 3 + 10 + 1 + 43);
        let read = Secret::parse(one.as_str()).unwrap();
        assert_eq!((read.id(), read.hash()), (one.id(), one.hash()));
        assert!(!format!("{one:?}").contains(&one.as_str()[14..]));
        for bad in [
            "",
            "rk_",
            "rk__",
            "sk-1234",
            &one.as_str()[1..],
            &format!("{}x", one.as_str()),
            &one.as_str().replace('_', "-"),
        ] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
    }
}
