//! The names that entries may have.

/// The most bytes of a name.
const LONGEST: usize = 128;

/// Checks the name of a tenant, an adapter or a program.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn check(of: &str, name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=LONGEST).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".." {
        return Ok(());
    }
    let why = format!(
        "`{}` is no name: names of {of} have 1 to {LONGEST} of the characters a-z, A-Z, 0-9, `.`, `_` and `-`",
        shown(name)
    );
    Err(why)
}

/// Checks the name of a model or an alias, which may have `/` and `:` too, as `hf:` references do.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn check_model(name: &str) -> Result<(), String> {
    if (1..=LONGEST).contains(&name.len()) && !name.contains(char::is_control) && name.trim() == name {
        return Ok(());
    }
    let why = format!(
        "`{}` is no name of a model: these have 1 to {LONGEST} bytes, no control characters, and no blanks at their ends",
        shown(name)
    );
    Err(why)
}

/// Returns the beginning of a text, for errors.
fn shown(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Splits `OWNER/NAME`.
pub(crate) fn owned(name: &str) -> Option<(&str, &str)> {
    let (owner, name) = name.split_once('/')?;
    (check("tenants", owner).is_ok() && check("entries", name).is_ok()).then_some((owner, name))
}

/// Returns whether a text is a host, perhaps with a port, or `*.` and a domain.
pub(crate) fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(plain)
}
