//! Escapes of HTML.

use crate::error::Result;
use crate::text::{Builder, Text};

/// Writes a text with the special characters of HTML escaped.
pub(crate) fn escape(text: &Text, out: &mut Builder) -> Result<()> {
    for (part, foreign) in text.parts(0..text.len()) {
        let mut rest = &text.as_str()[part];
        while !rest.is_empty() {
            let end = rest.find(['&', '<', '>', '\'', '"']).unwrap_or(rest.len());
            out.push_as(&rest[..end], foreign)?;
            rest = &rest[end..];
            let Some(c) = rest.chars().next() else { break };
            let escaped = match c {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '\'' => "&#39;",
                _ => "&#34;",
            };
            out.push_as(escaped, foreign)?;
            rest = &rest[1..];
        }
    }
    Ok(())
}

/// Returns the character of an entity, given its name between `&` and `;`: the common names, and numbers.
pub(crate) fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        "copy" => '©',
        "reg" => '®',
        "hellip" => '…',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "euro" => '€',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code).filter(|&c| c != '\0')?
        }
    })
}
