//! The paths of the server, as metrics and logs name them.

/// Paths with their own names in metrics.
const KNOWN: &[&str] = &[
    "/health",
    "/metrics",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/show",
    "/api/tags",
    "/api/version",
    "/tokenize",
    "/detokenize",
];

/// Returns the name of a path: the path itself, `/v1/models/NAME`, or `other`. Strangers choose paths, and a
/// series for each would fill the memory.
pub(crate) fn known(path: &str) -> &'static str {
    if path.starts_with("/v1/models/") {
        return "/v1/models/NAME";
    }
    KNOWN.iter().find(|known| **known == path).copied().unwrap_or("other")
}
