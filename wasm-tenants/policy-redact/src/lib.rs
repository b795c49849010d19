//! Removes matches of a regular expression from the text. It is a policy, so Realm generates as without a
//! program. Text that could still become a match is held back until that is decided; the longest match
//! counts.
//!
//! Input: `{"pattern": "[\\w.]+@[\\w.]+", "replacement": "[redacted]"}`. The pattern is in Rust's syntax,
//! without look-around other than `^`, `$` and `(?-u:\b)`. It must not match the empty text or its own
//! replacement.

mod stream;

use realm_tenant::*;
use serde::Deserialize;
use stream::Redactor;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    pattern: String,
    replacement: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { pattern: String::new(), replacement: "[redacted]".to_owned() }
    }
}

struct Redact(Redactor);

#[realm_tenant::policy]
impl Policy for Redact {
    fn begin(request: Request) -> Result<Self> {
        let options: Options = request.options()?;
        if options.pattern.is_empty() {
            return Err(Error::invalid("the request's input names no `pattern`"));
        }
        Ok(Self(Redactor::new(&options.pattern, options.replacement)?))
    }

    fn observe(&mut self, _: Token, text: String) -> Result<Observed> {
        Ok(Observed::pass(self.0.push(&text)?))
    }

    fn end(&mut self, _: FinishReason) -> Result<String> {
        self.0.finish()
    }
}
