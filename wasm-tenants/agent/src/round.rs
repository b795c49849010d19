//! One turn of the model.

use realm_tenant::*;

use crate::call::{CLOSE, OPEN};

/// The result of a model's turn.
pub(crate) enum Said {
    /// An answer, which has been sent.
    Answer(FinishReason),
    /// Calls, with the text before them.
    Calls(String),
}

/// Lets the model answer freely, and sends its text up to a call.
pub(crate) fn free(model: &Model, request: &Request, sequence: &Sequence) -> Result<Said> {
    let stop = [&request.stop[..], &[OPEN.to_owned()]].concat();
    let mut said = Vec::new();
    let reason = speak(model, &Request { stop, ..request.clone() }, sequence, true, &mut said)?;
    if !model.decode(&said)?.contains(OPEN) {
        return Ok(Said::Answer(reason));
    }
    // The token that completed the call's mark is not in the sequence yet, because the answer ended with it.
    sequence.append(&said[said.len() - 1..])?;
    let left = request.max_tokens.map(|most| most.saturating_sub(said.len() as u32).max(1));
    let rest = Request { stop: Vec::new(), max_tokens: left, grammar: None, ..request.clone() };
    speak(model, &rest, sequence, false, &mut said)?;
    Ok(Said::Calls(model.decode(&said)?))
}

/// Lets the model write only what the grammar allows, which is a call.
pub(crate) fn forced(model: &Model, request: &Request, sequence: &Sequence, grammar: &str) -> Result<Said> {
    let request =
        Request { grammar: Some(Grammar::Lark(grammar.to_owned())), stop: Vec::new(), ..request.clone() };
    let mut said = Vec::new();
    let reason = speak(model, &request, sequence, false, &mut said)?;
    let text = model.decode(&said)?;
    match text.contains(CLOSE) {
        true => Ok(Said::Calls(text)),
        false => {
            Err(Error::new(ErrorCode::LimitExceeded, format!("the call was cut off ({reason:?}): {text}")))
        }
    }
}

/// Generates until the request's rules end the answer, and appends the tokens to `said`. Sends the text too
/// if `aloud`, else only the tokens, which count either way.
fn speak(
    model: &Model,
    request: &Request,
    sequence: &Sequence,
    aloud: bool,
    said: &mut Vec<Token>,
) -> Result<FinishReason> {
    let mut answer = Answer::new(model, request, sequence)?;
    loop {
        let token = answer.choose(&sequence.forward()?)?;
        let step = answer.push(token)?;
        said.push(token);
        emit(if aloud { &step.text } else { "" }, &[token])?;
        if let Some(reason) = step.finish {
            return Ok(reason);
        }
        sequence.append(&[token])?;
    }
}
