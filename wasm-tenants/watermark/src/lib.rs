//! Watermarks text so that it can be recognized, and detects the watermark (Kirchenbauer et al., 'A Watermark
//! for Large Language Models', 2023). A key and the previous token decide which tokens of the vocabulary are
//! green, and green tokens become a little likelier. Watermarked text has more green tokens than expected by
//! chance: readers do not notice, but a count shows it.
//!
//! To mark: `{"key": 1, "gamma": 0.25, "delta": 2.0}`: a secret number, the fraction of green tokens, and the
//! number added to their logits. To detect: `{"key": 1, "gamma": 0.25, "detect": "the text"}`. The answer
//! then is JSON: the number of counted `tokens`, the number of `green` ones among them, the `z` score, the
//! `p` value (the probability of that many green tokens by chance), and `watermarked`, which is z > 4.

mod detect;
mod green;

use green::Green;
use realm_tenant::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    key: u64,
    gamma: f64,
    delta: f32,
    detect: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { key: 1, gamma: 0.25, delta: 2.0, detect: None }
    }
}

#[realm_tenant::run]
async fn main(request: Request) -> Result<FinishReason> {
    let options: Options = request.options()?;
    let green = Green::new(options.key, options.gamma)?;
    let model = Model::current();
    match &options.detect {
        Some(text) => {
            let found = detect::detect(&model.encode_piece(text, false), &green);
            emit(serde_json::to_string(&found)?, &[])?;
            Ok(FinishReason::Stop)
        }
        None => mark(&model, &request, &green, options.delta),
    }
}

fn mark(model: &Model, request: &Request, green: &Green, delta: f32) -> Result<FinishReason> {
    let vocabulary = model.info().vocabulary;
    let prompt = model.tokenize(&request.prompt)?;
    let sequence = Sequence::of(model, &prompt)?;
    let mut answer = Answer::new(model, request, &sequence)?;
    let mut previous = prompt[prompt.len() - 1];
    loop {
        let logits = sequence.forward()?;
        let biases: Vec<_> = green.after(previous, vocabulary).map(|token| (token, delta)).collect();
        logits.bias(&biases)?;
        let token = answer.choose(&logits)?;
        let step = answer.push(token)?;
        emit(step.text, &[token])?;
        if let Some(reason) = step.finish {
            return Ok(reason);
        }
        sequence.append(&[token])?;
        previous = token;
    }
}
