//! Answers as OpenAI's specification has them.

use serde::Serialize;

/// The version of Realm that made an answer: with it, a seed and a model's file the text is the same again.
pub const SYSTEM_FINGERPRINT: &str = concat!("realm-", env!("CARGO_PKG_VERSION"));

/// A whole answer to a conversation.
#[derive(Debug, Clone, Serialize)]
pub struct ChatCompletion {
    /// Names the answer.
    pub id: String,
    /// Always `chat.completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: String,
    /// The tier that the request was served at, if it asked for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
    /// [`SYSTEM_FINGERPRINT`].
    pub system_fingerprint: &'static str,
    /// `n` answers.
    pub choices: Vec<ChatChoice>,
    /// Tokens used by all choices.
    pub usage: Usage,
}

/// One of an answer's choices.
#[derive(Debug, Clone, Serialize)]
pub struct ChatChoice {
    /// Which one.
    pub index: usize,
    /// What the model says.
    pub message: ChatMessage,
    /// `null` unless the request asked for them.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: &'static str,
}

/// What a model says.
#[derive(Debug, Clone, Serialize)]
pub struct ChatMessage {
    /// Always `assistant`.
    pub role: &'static str,
    /// The text; `null` where there are only calls.
    pub content: Option<String>,
    /// Always `null`: models refuse in their texts.
    pub refusal: Option<String>,
    /// What a model thought before it answered, where it marks that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Tools that the model calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A call of a tool.
#[derive(Debug, Clone, Serialize)]
pub struct ToolCall {
    /// In a chunk, which of the choice's calls this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// What the result names it by.
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Name and arguments.
    pub function: FunctionCall,
}

/// The name and the arguments of a call.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionCall {
    /// The tool's name.
    pub name: String,
    /// A JSON object as text.
    pub arguments: String,
}

impl ToolCall {
    pub(crate) fn new(call: realm::ToolCall, index: Option<usize>) -> Self {
        let realm::ToolCall { id, name, arguments, .. } = call;
        Self { index, id, kind: "function", function: FunctionCall { name, arguments } }
    }
}

/// Log-probabilities of a choice's tokens.
#[derive(Debug, Clone, Serialize)]
pub struct ChatLogprobs {
    /// Of the text.
    pub content: Vec<TokenLogprob>,
    /// Always `null`.
    pub refusal: Option<Vec<TokenLogprob>>,
}

/// A token with its log-probability.
#[derive(Debug, Clone, Serialize)]
pub struct TokenLogprob {
    /// Its text; bytes that are no whole character are U+FFFD.
    pub token: String,
    /// In nats.
    pub logprob: f32,
    /// Its text as bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens in its place.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that might have come.
#[derive(Debug, Clone, Serialize)]
pub struct TopLogprob {
    /// As [`TokenLogprob::token`].
    pub token: String,
    /// In nats.
    pub logprob: f32,
    /// Its text as bytes.
    pub bytes: Vec<u8>,
}

/// Tokens used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the prompt, which all choices share.
    pub prompt_tokens: usize,
    /// Of all choices, end tokens included.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// Of the prompt's tokens.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// Of a prompt's tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PromptTokensDetails {
    /// How many an earlier request had computed.
    pub cached_tokens: usize,
}

impl Usage {
    /// Adds a generation. The `first` one of a prompt counts the prompt, since further ones have it computed already.
    pub fn add(&mut self, usage: &realm::Usage, first: bool) {
        if first {
            self.prompt_tokens += usage.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += usage.cached_tokens;
        }
        self.completion_tokens += usage.generated_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// A piece of an answer to a conversation.
#[derive(Debug, Clone, Serialize)]
pub struct ChatCompletionChunk<'a> {
    /// Names the answer.
    pub id: &'a str,
    /// Always `chat.completion.chunk`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: &'a str,
    /// The tier that the request was served at, if it asked for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
    /// [`SYSTEM_FINGERPRINT`].
    pub system_fingerprint: &'static str,
    /// One choice, or none beside the usage.
    pub choices: Vec<ChunkChoice>,
    /// Where the request asked for it: `null`, and in the last chunk tokens used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<&'a Usage>>,
}

/// A piece of a choice.
#[derive(Debug, Clone, Serialize)]
pub struct ChunkChoice {
    /// Which one.
    pub index: usize,
    /// What is new.
    pub delta: Delta,
    /// `null` unless the request asked for them.
    pub logprobs: Option<ChatLogprobs>,
    /// In a choice's last chunk, why it ended.
    pub finish_reason: Option<&'static str>,
}

/// What is new of a choice.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Delta {
    /// In a choice's first chunk, `assistant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// New text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// New thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// New calls, each whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// An answer to a text, whole or a piece of it.
#[derive(Debug, Clone, Serialize)]
pub struct TextCompletion<'a> {
    /// Names the answer.
    pub id: &'a str,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: &'a str,
    /// [`SYSTEM_FINGERPRINT`].
    pub system_fingerprint: &'static str,
    /// `n` choices for each prompt; in a piece one, or none beside the usage.
    pub choices: Vec<TextChoice>,
    /// Tokens used by all choices; in pieces, where the request asked for it, `null` but in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<&'a Usage>>,
}

/// One of a text's continuations, or a piece of it.
#[derive(Debug, Clone, Serialize)]
pub struct TextChoice {
    /// Which one.
    pub index: usize,
    /// The text.
    pub text: String,
    /// `null` unless the request asked for them.
    pub logprobs: Option<TextLogprobs>,
    /// Why it ended; `null` in pieces before the last.
    pub finish_reason: Option<&'static str>,
}

/// Log-probabilities of a text's tokens, in four lists.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TextLogprobs {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// In nats.
    pub token_logprobs: Vec<f32>,
    /// The likeliest tokens in each one's place.
    pub top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where each begins, in characters.
    pub text_offset: Vec<usize>,
}

/// Vectors.
#[derive(Debug, Clone, Serialize)]
pub struct EmbeddingList {
    /// Always `list`.
    pub object: &'static str,
    /// One for each input.
    pub data: Vec<Embedding>,
    /// The model's name, as the request gave it.
    pub model: String,
    /// Tokens used.
    pub usage: EmbeddingUsage,
}

/// A vector.
#[derive(Debug, Clone, Serialize)]
pub struct Embedding {
    /// Always `embedding`.
    pub object: &'static str,
    /// Which input's.
    pub index: usize,
    /// Its numbers.
    pub embedding: Vector,
}

/// How a vector is spelled.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Vector {
    /// As numbers.
    Floats(Vec<f32>),
    /// As base64 of 32-bit floats, least byte first.
    Base64(String),
}

/// Tokens used by vectors.
#[derive(Debug, Clone, Serialize)]
pub struct EmbeddingUsage {
    /// Of all inputs.
    pub prompt_tokens: usize,
    /// The same.
    pub total_tokens: usize,
}

/// The models that there are.
#[derive(Debug, Clone, Serialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    /// Them.
    pub data: Vec<Model>,
}

/// A model.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// What requests name it by.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// When it came to be here, in seconds since 1970.
    pub created: u64,
    /// Always `realm`.
    pub owned_by: &'static str,
}

impl From<crate::ModelEntry> for Model {
    fn from(entry: crate::ModelEntry) -> Self {
        Self { id: entry.name, object: "model", created: entry.created, owned_by: "realm" }
    }
}
