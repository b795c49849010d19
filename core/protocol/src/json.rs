//! Parses a body.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::ApiError;

/// Parses a JSON object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(&mended(body)) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::malformed("the body must be a JSON object")),
        Err(error) => Err(ApiError::malformed(format!("the body is not JSON: {error}"))),
    }
}

/// Replaces escapes of unpaired surrogates by U+FFFD. JavaScript and Python have strings with such
/// surrogates, and write them as escapes that no UTF-8 text can hold.
fn mended(body: &[u8]) -> Cow<'_, [u8]> {
    let mut mended = Cow::Borrowed(body);
    let mut at = 0;
    while let Some(found) = body[at..].iter().position(|&byte| byte == b'\\') {
        at += found;
        let Some(unit) = escaped_unit(&body[at..]) else {
            at += 2;
            if at > body.len() {
                break;
            }
            continue;
        };
        let low = || escaped_unit(&body[at + 6..]).is_some_and(|unit| (0xDC00..0xE000).contains(&unit));
        match unit {
            0xD800..0xDC00 if low() => at += 12,
            0xD800..0xE000 => {
                mended.to_mut()[at + 2..at + 6].copy_from_slice(b"fffd");
                at += 6;
            }
            _ => at += 6,
        }
    }
    mended
}

/// Returns the UTF-16 unit of an escape such as `\ud83d` at the beginning of `text`.
fn escaped_unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        object(body.as_bytes()).unwrap()["a"].as_str().unwrap().to_owned()
    }

    #[test]
    fn halves_of_pairs_become_replacement_characters() {
        assert_eq!(text(r#"{"a": "\ud83d\ude00"}"#), "😀");
        assert_eq!(text(r#"{"a": "x\ud83dy"}"#), "x\u{fffd}y");
        assert_eq!(text(r#"{"a": "\ude00\ud83d"}"#), "\u{fffd}\u{fffd}");
        assert_eq!(text(r#"{"a": "\ud83d\ud83d\ude00"}"#), "\u{fffd}😀");
        assert_eq!(text(r#"{"a": "\\ud83d \\\ud83d \u00e9"}"#), "\\ud83d \\\u{fffd} é");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in
            ["", "[]", "1", "{", "{\"a\": NaN}", "\\", "{\"a\": \"\\", "{\"a\": \"\\ud8", "\u{feff}{}"]
        {
            let error = object(body.as_bytes()).unwrap_err();
            assert_eq!(error.status(), 400, "{body}");
        }
        assert!(object(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}']).is_err());
        let deep = "[".repeat(1000);
        assert!(object(format!("{{\"a\": {deep}").as_bytes()).is_err());
    }
}
