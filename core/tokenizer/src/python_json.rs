//! JSON as Python's `json.dumps` writes it, which is what templates were written for: `", "` and `": "`
//! between items, nothing escaped that need not be.

use std::fmt::Write;

use serde_json::Value;

/// How to lay out JSON; `json.dumps`'s arguments of the same names.
pub(crate) struct Layout {
    pub(crate) indent: Option<usize>,
    pub(crate) sort_keys: bool,
    pub(crate) ensure_ascii: bool,
    pub(crate) item_separator: String,
    pub(crate) key_separator: String,
}

impl Default for Layout {
    /// One line, as `json.dumps` writes it without arguments but for characters beyond ASCII, which stay.
    fn default() -> Self {
        Self {
            indent: None,
            sort_keys: false,
            ensure_ascii: false,
            item_separator: ", ".into(),
            key_separator: ": ".into(),
        }
    }
}

impl Layout {
    pub(crate) fn dumps(&self, value: &Value) -> String {
        let mut out = String::new();
        self.value(value, 0, &mut out);
        out
    }

    fn value(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Number(n) => out.push_str(&n.to_string()),
            Value::String(s) => self.string(s, out),
            Value::Array(items) => {
                self.list(out, depth, ('[', ']'), items.iter(), |this, item, out| {
                    this.value(item, depth + 1, out);
                });
            }
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.list(out, depth, ('{', '}'), entries.into_iter(), |this, (key, item), out| {
                    this.string(key, out);
                    out.push_str(&this.key_separator);
                    this.value(item, depth + 1, out);
                });
            }
        }
    }

    fn list<T>(
        &self,
        out: &mut String,
        depth: usize,
        (open, close): (char, char),
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&Self, T, &mut String),
    ) {
        out.push(open);
        let empty = items.len() == 0;
        for (i, item) in items.enumerate() {
            if i > 0 {
                out.push_str(&self.item_separator);
            }
            self.line(depth + 1, out);
            each(self, item, out);
        }
        if !empty {
            self.line(depth, out);
        }
        out.push(close);
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ensure_ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string can't fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
