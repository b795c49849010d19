/// An error of a tokenizer or a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file's tokenizer is of a kind that Realm does not know, or its tables contradict each other.
    #[error("{0}")]
    InvalidModel(String),
    /// A metadata key is missing or of another type.
    #[error(transparent)]
    Gguf(#[from] realm_gguf::Error),
    /// The model's file has no tokenizer: its `tokenizer.ggml.model` is `no_vocab`.
    #[error("the model's file has no tokenizer (`no_vocab`), so text means nothing to it: pass token ids")]
    NoTokenizer,
    /// The model's file has no chat template.
    #[error(
        "the model has no chat template (a base model?): give it a plain prompt, or load it with the option \
         `chat_template` (a template, or the name of a builtin one such as `chatml`)"
    )]
    NoTemplate,
    /// The chat template of the model's file cannot be parsed.
    #[error(
        "the chat template of the model's file can't be used: {0}; load the model with the option `chat_template` (a \
         template, or the name of a builtin one such as `chatml`), or give it a plain prompt"
    )]
    BrokenTemplate(String),
    /// A conversation that no template can render.
    #[error("{0}")]
    Conversation(String),
    /// A chat template does not parse, raised an exception, or used up its fuel.
    #[error("chat template: {0}")]
    Template(String),
    /// The vocabulary has no token with this id.
    #[error("token {id} is not in the vocabulary of {vocabulary} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Number of tokens.
        vocabulary: usize,
    },
}
