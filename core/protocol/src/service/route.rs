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
    Responses,
    InputTokens,
    Messages,
    CountTokens,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    OllamaShow,
    OllamaTags,
    OllamaVersion,
    Tokenize,
    Detokenize,
}

/// The paths without `/v1`. Those of one model begin with `/models/`.
const PATHS: [(&str, Route<'static>); 16] = [
    ("/chat/completions", Route::Chat),
    ("/completions", Route::Completions),
    ("/embeddings", Route::Embeddings),
    ("/models", Route::Models),
    ("/responses", Route::Responses),
    ("/responses/input_tokens", Route::InputTokens),
    ("/messages", Route::Messages),
    ("/messages/count_tokens", Route::CountTokens),
    ("/api/chat", Route::OllamaChat),
    ("/api/generate", Route::OllamaGenerate),
    ("/api/embed", Route::OllamaEmbed),
    ("/api/show", Route::OllamaShow),
    ("/api/tags", Route::OllamaTags),
    ("/api/version", Route::OllamaVersion),
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
            Self::Models | Self::Model(_) | Self::OllamaTags | Self::OllamaVersion => "GET",
            _ => "POST",
        }
    }

    /// Returns what a call asks for that OpenAI stores and this service does not, such as an earlier answer.
    pub(super) fn not_stored(method: &str, path: &str) -> Option<&'static str> {
        let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        if below("/chat/completions") || (path == "/chat/completions" && method.eq_ignore_ascii_case("GET")) {
            return Some("completions");
        }
        (below("/responses") && path != "/responses/input_tokens").then_some("responses")
    }

    /// Returns whether a call asks for the scores of a model with a head for them: Cohere's, Jina's and
    /// vLLM's.
    pub(super) fn ranks(path: &str) -> bool {
        matches!(path, "/rerank" | "/v2/rerank" | "/score")
    }

    /// Returns the paths that exist, for errors.
    pub(super) fn list() -> String {
        let paths: Vec<_> = all().map(|(_, path)| path).filter(|path| !path.ends_with("NAME")).collect();
        format!("there are {}", paths.join(", "))
    }
}

/// Returns all calls: the method and the path, in which `NAME` stands for a model's name.
pub(super) fn all() -> impl Iterator<Item = (&'static str, String)> {
    let version =
        |path: &str| if path.starts_with("/api/") || path.ends_with("tokenize") { "" } else { "/v1" };
    let known = PATHS.iter().map(move |(path, route)| (route.method(), format!("{}{path}", version(path))));
    known.chain([(Route::Model("").method(), "/v1/models/NAME".to_owned())])
}
