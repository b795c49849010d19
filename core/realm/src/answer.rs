//! Separates thoughts and tool calls from the engine's text, so that the answer remains.

use crate::thought::ThoughtStream;
use crate::tools::ToolStream;
use crate::{Chunk, FinishReason, ReasoningFormat};

/// Reads a text once, as it arrives.
#[derive(Debug, Default)]
pub(crate) struct AnswerReader {
    /// Separates thoughts, if there may be any.
    pub(crate) thought: Option<ThoughtStream>,
    /// The place of thoughts.
    pub(crate) format: ReasoningFormat,
    /// Parses tool calls, if there may be any.
    pub(crate) tools: Option<ToolStream>,
    /// The warnings of the first chunk.
    pub(crate) warnings: Vec<String>,
    /// True if a tool was called.
    pub(crate) called: bool,
}

impl AnswerReader {
    /// Replaces a chunk's text by the answer, and adds thoughts, tool calls and warnings.
    pub(crate) fn read(&mut self, chunk: &mut Chunk) {
        chunk.warnings = std::mem::take(&mut self.warnings);
        let ended = chunk.finish.as_ref().map(|finish| finish.reason);
        if let Some(stream) = &mut self.thought {
            let text = std::mem::take(&mut chunk.text);
            let mut thought = String::new();
            stream.push(&text, &mut thought, &mut chunk.text);
            if ended.is_some() {
                stream.end(&mut thought, &mut chunk.text);
            }
            match self.format {
                ReasoningFormat::Separate => chunk.reasoning = thought,
                ReasoningFormat::Inline => {
                    let answer = std::mem::replace(&mut chunk.text, thought);
                    self.read_calls(&answer, ended, chunk);
                    return;
                }
            }
        }
        if self.tools.is_some() {
            let answer = std::mem::take(&mut chunk.text);
            self.read_calls(&answer, ended, chunk);
        }
    }

    /// Adds an answer's text to a chunk, and moves its calls to `tool_calls`.
    fn read_calls(&mut self, answer: &str, ended: Option<FinishReason>, chunk: &mut Chunk) {
        let Some(tools) = &mut self.tools else {
            chunk.text += answer;
            return;
        };
        tools.push(answer, &mut chunk.text, &mut chunk.tool_calls);
        if let Some(reason) = ended {
            tools.end(reason == FinishReason::Stop, &mut chunk.text, &mut chunk.tool_calls);
        }
        self.called |= !chunk.tool_calls.is_empty();
        if let Some(finish) = &mut chunk.finish
            && self.called
            && finish.reason == FinishReason::Stop
        {
            finish.reason = FinishReason::ToolCalls;
        }
    }
}
