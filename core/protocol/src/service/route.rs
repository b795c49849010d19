//! The paths of calls.

/// A call that a service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Chat,
    Completions,
    Embeddings,
    Models,
    /// One model, by its name with escapes.
    Model(&'a str),
    Messages,
    CountTokens,
    Tokenize,
    Detokenize,
}

/// The paths without `/v1`. Those of one model begin with `/models/`.
const PATHS: [(&str, Route<'static>); 8] = [
    ("/chat/completions", Route::Chat),
    ("/completions", Route::Completions),
    ("/embeddings", Route::Embeddings),
    ("/models", Route::Models),
    ("/messages", Route::Messages),
    ("/messages/count_tokens", Route::CountTokens),
    ("/tokenize", Route::Tokenize),
    ("/detokenize", Route::Detokenize),
];

impl<'a> Route<'a> {
    /// Returns the call of a path without `/v1`.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        if let Some(name) = path.strip_prefix("/models/").filter(|name| !name.is_empty()) {
            return Some(Self::Model(name));
        }
        PATHS.iter().find(|(known, _)| *known == path).map(|(_, route)| *route)
    }

    /// The call's HTTP method.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Models | Self::Model(_) => "GET",
            _ => "POST",
        }
    }

    /// Returns the paths that exist, for errors.
    pub(super) fn list() -> String {
        let paths: Vec<_> = PATHS.iter().map(|(path, _)| format!("/v1{path}")).collect();
        format!("there are {}", paths.join(", "))
    }
}
