//! GPT-2's spelling of bytes: every byte is one printable character, so that a vocabulary can be text.

/// Returns the character that stands for `byte`: the byte itself if it is printable in Latin-1, else one from
/// U+0100 on.
pub(crate) fn char_of(byte: u8) -> char {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let index = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(0x100 + index).unwrap_or('\u{fffd}')
}

/// The inverse of [`char_of`].
pub(crate) struct ByteTable([Option<u8>; 0x180]);

impl ByteTable {
    pub(crate) fn new() -> Self {
        let mut table = [None; 0x180];
        for byte in 0..=255u8 {
            table[char_of(byte) as usize] = Some(byte);
        }
        Self(table)
    }

    /// Appends the bytes that `text` spells; `None` if a character stands for no byte.
    pub(crate) fn decode(&self, text: &str, out: &mut Vec<u8>) -> Option<()> {
        for c in text.chars() {
            out.push((*self.0.get(c as usize)?)?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let table = ByteTable::new();
        for byte in 0..=255 {
            let mut out = Vec::new();
            assert_eq!(table.decode(&char_of(byte).to_string(), &mut out), Some(()));
            assert_eq!(out, [byte]);
        }
        assert_eq!((char_of(b' '), char_of(b'\n'), char_of(b'a')), ('Ġ', 'Ċ', 'a'));
    }
}
