//! `/openapi.json`.

pub(crate) fn clients() -> &'static str {
    "{}"
}

pub(crate) fn administration() -> &'static str {
    "{}"
}
