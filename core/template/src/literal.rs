//! Parses number and string literals of templates.

use crate::lexer::Token;

/// Returns the length of the string literal at the beginning of a text, including quotes.
pub(crate) fn string_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let quote = bytes[0];
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// Returns the text of a string literal, with the escapes of Python's `unicode-escape`.
pub(crate) fn string(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            return Err("a string ends with a single backslash; write `\\\\`".into());
        };
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '0'..='7' => {
                let more = rest.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                let digits = format!("{c}{}", &rest[..more]);
                rest = &rest[more..];
                let code = u32::from_str_radix(&digits, 8).unwrap_or(0);
                out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
            'x' | 'u' | 'U' => {
                let len = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits = rest.get(..len).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let Some(digits) = digits else {
                    return Err(format!("`\\{c}` needs {len} hexadecimal digits"));
                };
                let code = u32::from_str_radix(digits, 16).unwrap_or(u32::MAX);
                if code > 0x10_ffff {
                    return Err(format!("`\\U{digits}` is no character; the last one is \\U0010ffff"));
                }
                // A lone surrogate cannot be encoded in UTF-8.
                out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                rest = &rest[len..];
            }
            'N' => {
                return Err(
                    "characters by name (`\\N{...}`) are not known here; write `\\u` and the code".into()
                );
            }
            // Python escapes characters outside ASCII before it processes escapes, so this backslash protects
            // the character's own escape.
            c if !c.is_ascii() => {
                let code = c as u32;
                out.push('\\');
                out.push_str(&match code {
                    0..=0xff => format!("x{code:02x}"),
                    0x100..=0xffff => format!("u{code:04x}"),
                    _ => format!("U{code:08x}"),
                });
            }
            c => {
                out.push('\\');
                out.push(c);
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Parses the number at the beginning of a text; also returns its length. Behind a dot, digits are an index
/// and not a fraction.
pub(crate) fn number(text: &str, after_dot: bool) -> Result<(Token, usize), String> {
    let bytes = text.as_bytes();
    let decimal = |from: usize| digits(bytes, from, |b| b.is_ascii_digit(), false);
    let whole = decimal(0);
    if !after_dot {
        let mut end = whole;
        let fraction = bytes.get(end) == Some(&b'.') && decimal(end + 1) > end + 1;
        if fraction {
            end = decimal(end + 1);
        }
        let mut exponent = false;
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let last = decimal(end + 1 + sign);
            if last > end + 1 + sign {
                exponent = true;
                end = last;
            }
        }
        if fraction || exponent {
            let spelled = text[..end].replace('_', "");
            return spelled
                .parse()
                .map(|n| (Token::Float(n), end))
                .map_err(|_| format!("`{spelled}` is no number"));
        }
    }
    let (radix, from, end) = match (bytes[0], bytes.get(1)) {
        (b'0', Some(b'b' | b'B')) => (2, 2, digits(bytes, 2, |b| matches!(b, b'0' | b'1'), true)),
        (b'0', Some(b'o' | b'O')) => (8, 2, digits(bytes, 2, |b| matches!(b, b'0'..=b'7'), true)),
        (b'0', Some(b'x' | b'X')) => (16, 2, digits(bytes, 2, |b| b.is_ascii_hexdigit(), true)),
        (b'0', _) => (10, 0, digits(bytes, 0, |b| b == b'0', false)),
        _ => (10, 0, digits(bytes, 0, |b| b.is_ascii_digit(), false)),
    };
    let (radix, from, end) = if end > from { (radix, from, end) } else { (10, 0, 1) };
    let spelled = text[from..end].replace('_', "");
    i128::from_str_radix(&spelled, radix)
        .map(|n| (Token::Int(n), end))
        .map_err(|_| format!("the number {spelled} is too large; at most 128 bits are kept"))
}

/// Returns the end of a run of digits with single underscores between them (and before the first, if
/// `leading`).
fn digits(bytes: &[u8], from: usize, digit: impl Fn(u8) -> bool, leading: bool) -> usize {
    let mut end = from;
    loop {
        let skip = usize::from(bytes.get(end) == Some(&b'_') && (leading || end > from));
        match bytes.get(end + skip) {
            Some(&b) if digit(b) => end += skip + 1,
            _ => return end,
        }
    }
}
