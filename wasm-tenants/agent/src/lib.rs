//! Calls the application's tools until it can answer. The conversation defines the tools. The model calls one
//! in the format that Hermes and Qwen models were trained on, and this program asks the application to run
//! it:
//!
//! ```text
//! <tool_call>
//! {"name": "get_weather", "arguments": {"city": "Paris"}}
//! </tool_call>
//! ```
//!
//! The model's other text is sent as it comes. A tool's answer, or its error, goes back to the model.
//!
//! Input: `{"max_rounds": 5, "tool_choice": "auto"}`; with `"required"` a grammar makes the first round a
//! call, which helps small models.

mod call;
mod round;

use call::Call;
use realm_tenant::*;
use round::Said;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    max_rounds: u32,
    tool_choice: ToolChoice,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ToolChoice {
    /// The model decides.
    Auto,
    /// At least one call.
    Required,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_rounds: 5, tool_choice: ToolChoice::Auto }
    }
}

#[realm_tenant::run]
async fn main(mut request: Request) -> Result<FinishReason> {
    let options: Options = request.options()?;
    let model = Model::current();
    let mut conversation = request.conversation()?;
    let sequence = Sequence::open(&model)?;
    for round in 0..options.max_rounds {
        request.prompt = Prompt::Chat(conversation.clone());
        continue_with(&sequence, &model.tokenize(&request.prompt)?)?;
        let forced = round == 0 && options.tool_choice == ToolChoice::Required;
        let said = match forced {
            true => round::forced(&model, &request, &sequence, &call::grammar(&conversation.tools)?)?,
            false => round::free(&model, &request, &sequence)?,
        };
        let (said, calls) = match said {
            Said::Answer(reason) => return Ok(reason),
            Said::Calls(text) => (text.clone(), call::parse(&text)),
        };
        let first = conversation.messages.len();
        conversation.messages.push(call::message(&said, &calls, first));
        for (at, call) in calls.into_iter().enumerate() {
            let fields = serde_json::json!({"tool_call_id": call::id(first + at)}).to_string();
            conversation.messages.push(Message { fields, ..Message::new("tool", answer(call)) });
        }
    }
    Err(format!("the model still calls tools after {} rounds; raise `max_rounds`", options.max_rounds).into())
}

/// Makes a sequence hold these tokens. Their common beginning is not computed again.
fn continue_with(sequence: &Sequence, tokens: &[Token]) -> Result<()> {
    let same = sequence.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count();
    sequence.truncate(same as u32)?;
    sequence.append(&tokens[same..])
}

/// Returns the text that the model gets as the result of a call.
fn answer(call: Result<Call>) -> String {
    let answered =
        call.and_then(|Call { name, arguments }| realm_tenant::call(&name, &arguments.to_string()));
    answered.unwrap_or_else(|error| {
        log(Level::Warn, format!("a tool call failed: {error}"));
        serde_json::json!({"error": error.to_string()}).to_string()
    })
}
