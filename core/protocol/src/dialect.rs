//! The protocols, by their paths.

/// A protocol: the form of its errors, and of its answers to unknown paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's, and every path that is no other protocol's.
    OpenAi,
    /// Anthropic's: `/v1/messages`.
    Anthropic,
    /// Ollama's: `/api`.
    Ollama,
}

impl Dialect {
    /// Returns the protocol of a path.
    pub fn of_path(path: &str) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let below =
            |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if below("/v1/messages") || below("/messages") {
            Self::Anthropic
        } else if below("/api") {
            Self::Ollama
        } else {
            Self::OpenAi
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_protocols() {
        for (path, dialect) in [
            ("/v1/chat/completions", Dialect::OpenAi),
            ("/v1/messages", Dialect::Anthropic),
            ("/v1/messages/count_tokens?beta=true", Dialect::Anthropic),
            ("/v1/messages_of_mine", Dialect::OpenAi),
            ("/api/chat", Dialect::Ollama),
            ("/apiary", Dialect::OpenAi),
        ] {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
        }
    }
}
