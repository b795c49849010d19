//! The part of a loaded model that only the public API needs.

use std::path::PathBuf;

use crate::ModelInfo;
use crate::background::Background;
use crate::thought::ThoughtSpelling;
use crate::tools::ToolSpelling;

/// Everything that brings requests to a loaded model's engine and makes answers of its text.
pub(crate) struct Frontend {
    pub(crate) info: ModelInfo,
    /// The model's file or folder.
    pub(crate) path: PathBuf,
    /// The spelling of tool calls that the chat template shows.
    pub(crate) tool_spelling: ToolSpelling,
    /// The marks of thoughts, if the chat template shows any.
    pub(crate) thought_spelling: Option<ThoughtSpelling>,
    /// True if the chat template shows tools to the model.
    pub(crate) knows_tools: bool,
    /// The threads that prepare long prompts.
    pub(crate) background: Background,
}
