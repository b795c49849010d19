//! Answers in the form of OpenAI's specification.

use serde::Serialize;

/// The version of Realm that made an answer. The same version, seed and model file give the same text.
pub const SYSTEM_FINGERPRINT: &str = concat!("realm-", env!("CARGO_PKG_VERSION"));

/// A whole answer to a conversation.
#[derive(Debug, Clone, Serialize)]
pub struct ChatCompletion {
    /// The answer's id.
    pub id: String,
    /// Always `chat.completion`.
    pub object: &'static str,
    /// The time of the answer, in seconds since 1970.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: String,
    /// The tier at which the request was served, if the request named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
    /// Always [`SYSTEM_FINGERPRINT`].
    pub system_fingerprint: &'static str,
    /// The choices, `n` of them.
    pub choices: Vec<ChatChoice>,
    /// Tokens used by all choices.
    pub usage: Usage,
}

/// One choice of an answer.
#[derive(Debug, Clone, Serialize)]
pub struct ChatChoice {
    /// The choice's index.
    pub index: usize,
    /// The model's message.
    pub message: ChatMessage,
    /// Log-probabilities; `null` unless the request asked for them.
    pub logprobs: Option<ChatLogprobs>,
    /// The reason of the end: `stop`, `length` or `tool_calls`.
    pub finish_reason: &'static str,
}

/// A message of a model.
#[derive(Debug, Clone, Serialize)]
pub struct ChatMessage {
    /// Always `assistant`.
    pub role: &'static str,
    /// The text; `null` if there are only calls.
    pub content: Option<String>,
    /// Always `null`: models refuse in their texts.
    pub refusal: Option<String>,
    /// The model's thought before its answer, if the model marks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The same as `reasoning_content`, under the name that other clients read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A call of a tool.
#[derive(Debug, Clone, Serialize)]
pub struct ToolCall {
    /// In a chunk, the index of the call within its choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The id by which the result refers to the call.
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The function's name and arguments.
    pub function: FunctionCall,
}

/// The name and the arguments of a call.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionCall {
    /// The tool's name.
    pub name: String,
    /// The arguments, a JSON object as text.
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
    /// Log-probabilities of the text's tokens.
    pub content: Vec<TokenLogprob>,
    /// Always `null`.
    pub refusal: Option<Vec<TokenLogprob>>,
}

/// A token with its log-probability.
#[derive(Debug, Clone, Serialize)]
pub struct TokenLogprob {
    /// The token's text; bytes that are not a whole character are U+FFFD.
    pub token: String,
    /// The log-probability, in nats.
    pub logprob: f32,
    /// The token's text as bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens in its place.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A likely token in the place of another.
#[derive(Debug, Clone, Serialize)]
pub struct TopLogprob {
    /// The token's text; bytes that are not a whole character are U+FFFD.
    pub token: String,
    /// The log-probability, in nats.
    pub logprob: f32,
    /// The token's text as bytes.
    pub bytes: Vec<u8>,
}

/// Tokens that an answer used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt, which all choices share.
    pub prompt_tokens: usize,
    /// Tokens of all choices, including end tokens.
    pub completion_tokens: usize,
    /// The sum of both.
    pub total_tokens: usize,
    /// Details of the prompt's tokens.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// Details of a prompt's tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PromptTokensDetails {
    /// Tokens that an earlier request had computed.
    pub cached_tokens: usize,
}

impl Usage {
    /// Adds a generation. Only the `first` one of a prompt counts the prompt's tokens, since the others have
    /// them computed already.
    pub fn add(&mut self, usage: &realm::Usage, first: bool) {
        if first {
            self.prompt_tokens += usage.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += usage.cached_tokens;
        }
        self.completion_tokens += usage.generated_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// A chunk of a conversation's answer.
#[derive(Debug, Clone, Serialize)]
pub struct ChatCompletionChunk<'a> {
    /// The answer's id.
    pub id: &'a str,
    /// Always `chat.completion.chunk`.
    pub object: &'static str,
    /// The time of the answer, in seconds since 1970.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: &'a str,
    /// The tier at which the request was served, if the request named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
    /// Always [`SYSTEM_FINGERPRINT`].
    pub system_fingerprint: &'static str,
    /// One choice, or none in the chunk with the usage.
    pub choices: Vec<ChunkChoice>,
    /// If the request asked for it, the tokens used in the last chunk and `null` in the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<&'a Usage>>,
}

/// A part of a choice, in a chunk.
#[derive(Debug, Clone, Serialize)]
pub struct ChunkChoice {
    /// The choice's index.
    pub index: usize,
    /// The new part of the message.
    pub delta: Delta,
    /// Log-probabilities; `null` unless the request asked for them.
    pub logprobs: Option<ChatLogprobs>,
    /// In a choice's last chunk, the reason of its end.
    pub finish_reason: Option<&'static str>,
}

/// The new part of a choice's message.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Delta {
    /// In a choice's first chunk, `assistant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// New text of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// New text of the model's thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The same as `reasoning_content`, under the name that other clients read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// New calls, each complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// An answer to a text, whole or in chunks.
#[derive(Debug, Clone, Serialize)]
pub struct TextCompletion<'a> {
    /// The answer's id.
    pub id: &'a str,
    /// Always `text_completion`.
    pub object: &'static str,
    /// The time of the answer, in seconds since 1970.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: &'a str,
    /// Always [`SYSTEM_FINGERPRINT`].
    pub system_fingerprint: &'static str,
    /// `n` choices for each prompt. A chunk has one, or none with the usage.
    pub choices: Vec<TextChoice>,
    /// Tokens used by all choices. In chunks, if the request asked for it, `null` except in the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<&'a Usage>>,
}

/// One continuation of a text, or a part of it.
#[derive(Debug, Clone, Serialize)]
pub struct TextChoice {
    /// The choice's index.
    pub index: usize,
    /// The text.
    pub text: String,
    /// Log-probabilities; `null` unless the request asked for them.
    pub logprobs: Option<TextLogprobs>,
    /// The reason of its end; `null` in chunks before the last.
    pub finish_reason: Option<&'static str>,
}

/// Log-probabilities of a text's tokens, in four lists.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TextLogprobs {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// The log-probabilities, in nats.
    pub token_logprobs: Vec<f32>,
    /// The likeliest tokens in the place of each.
    pub top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// The start of each token's text, in characters.
    pub text_offset: Vec<usize>,
}

/// A list of vectors.
#[derive(Debug, Clone, Serialize)]
pub struct EmbeddingList {
    /// Always `list`.
    pub object: &'static str,
    /// One vector for each input.
    pub data: Vec<Embedding>,
    /// The model's name, as the request gave it.
    pub model: String,
    /// Tokens that the inputs used.
    pub usage: EmbeddingUsage,
}

/// A vector of one input.
#[derive(Debug, Clone, Serialize)]
pub struct Embedding {
    /// Always `embedding`.
    pub object: &'static str,
    /// The input's index.
    pub index: usize,
    /// The vector's elements.
    pub embedding: Vector,
}

/// A vector in one of two forms.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Vector {
    /// A list of numbers.
    Floats(Vec<f32>),
    /// Base64 of little-endian 32-bit floats.
    Base64(String),
}

/// Tokens that a request for vectors used.
#[derive(Debug, Clone, Serialize)]
pub struct EmbeddingUsage {
    /// Tokens of all inputs.
    pub prompt_tokens: usize,
    /// The same as `prompt_tokens`.
    pub total_tokens: usize,
}

/// A list of models.
#[derive(Debug, Clone, Serialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    /// The models.
    pub data: Vec<Model>,
}

/// A model.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// The name that requests use.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// The time when the model was added, in seconds since 1970.
    pub created: u64,
    /// Always `realm`.
    pub owned_by: &'static str,
}

impl From<crate::ModelEntry> for Model {
    fn from(entry: crate::ModelEntry) -> Self {
        Self { id: entry.name, object: "model", created: entry.created, owned_by: "realm" }
    }
}
