//! Prompts that end in the middle of their last message, so that the model continues its words.
//!
//! Works like Hugging Face's: a mark is put behind the message, and the prompt is cut at the mark.

use realm_template::Rendered;
use serde_json::Value;

use crate::Error;

/// The mark behind the final message. The space at its end shows whether the template removes white space.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Puts a mark behind the text of the last message.
///
/// # Errors
/// No message, or one without text.
pub(super) fn mark(messages: &mut [Value]) -> Result<String, Error> {
    let none = || {
        let why = "`continue_final_message` needs a last message with text to go on with";
        Error::Conversation(why.into())
    };
    let content = messages.last_mut().and_then(|message| message.get_mut("content"));
    let text = match content {
        Some(Value::Array(parts)) => {
            parts.iter_mut().rev().find_map(|part| part.get_mut("text").filter(|text| text.is_string()))
        }
        content => content,
    };
    match text {
        Some(Value::String(text)) => text.push_str(MARK),
        _ => return Err(none()),
    }
    Ok(MARK.to_owned())
}

/// Cuts a prompt where the mark is.
///
/// # Errors
/// A prompt without the mark: the template leaves the message out, or changes it.
pub(super) fn cut(mut rendered: Rendered, mark: &str) -> Result<Rendered, Error> {
    let Rendered { text, foreign } = &mut rendered;
    let Some(at) = text.rfind(mark.trim_end()) else {
        let why = "`continue_final_message`: the chat template leaves the last message out of the prompt";
        return Err(Error::Conversation(why.into()));
    };
    let kept = &text[..at];
    // A template that trims messages would have trimmed the words, too.
    let end = if text[at..].starts_with(mark) { at } else { kept.trim_end().len() };
    text.truncate(end);
    foreign.retain_mut(|range| {
        range.end = range.end.min(end);
        range.start < range.end
    });
    Ok(rendered)
}
