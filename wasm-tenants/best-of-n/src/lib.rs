//! Answers several times at once, and sends the answer with the highest mean log-probability of its tokens.
//! The prompt is computed once; all tries share its pages, and their rows go into the same forward passes.
//! Needs a temperature above 0; otherwise all tries are the same.
//!
//! Input: `{"n": 4}`, the number of tries.

use realm_tenant::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    n: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { n: 4 }
    }
}

/// One of the tries.
struct Try<'m> {
    sequence: Sequence,
    answer: Answer<'m>,
    tokens: Vec<Token>,
    text: String,
    /// Sum of the log-probabilities of its tokens.
    logprob: f32,
    finish: Option<FinishReason>,
}

impl<'m> Try<'m> {
    fn begin(model: &'m Model, request: &Request, prompt: &Sequence, n: u64) -> Result<Self> {
        let sequence = prompt.fork()?;
        let request = Request { sampling: request.sampling.reseeded(n), ..request.clone() };
        let answer = Answer::new(model, &request, &sequence)?;
        Ok(Self { sequence, answer, tokens: Vec::new(), text: String::new(), logprob: 0.0, finish: None })
    }

    fn advance(&mut self, logits: &Logits) -> Result<()> {
        let token = self.answer.choose(logits)?;
        let step = self.answer.push(token)?;
        self.logprob += logits.logprob(token)?;
        self.tokens.push(token);
        self.text += &step.text;
        self.finish = step.finish;
        if self.finish.is_none() {
            self.sequence.append(&[token])?;
        }
        Ok(())
    }

    fn mean_logprob(&self) -> f32 {
        self.logprob / self.tokens.len() as f32
    }
}

#[realm_tenant::run]
async fn main(request: Request) -> Result<FinishReason> {
    let options: Options = request.options()?;
    if options.n == 0 {
        return Err(Error::invalid("n is 0; at least one answer is needed"));
    }
    let model = Model::current();
    let prompt = Sequence::of(&model, &model.tokenize(&request.prompt)?)?;
    let first = prompt.forward()?;
    let mut tries = (0..options.n)
        .map(|n| {
            let mut new = Try::begin(&model, &request, &prompt, n)?;
            new.advance(&first)?;
            Ok(new)
        })
        .collect::<Result<Vec<_>>>()?;
    loop {
        let mut running: Vec<_> = tries.iter_mut().filter(|t| t.finish.is_none()).collect();
        if running.is_empty() {
            break;
        }
        let sequences: Vec<_> = running.iter().map(|t| &t.sequence).collect();
        let logits = forward_each(&sequences)?;
        for (running, logits) in running.iter_mut().zip(&logits) {
            running.advance(logits)?;
        }
    }
    let best = tries.iter().max_by(|a, b| a.mean_logprob().total_cmp(&b.mean_logprob()));
    let best = best.ok_or("no answer")?;
    emit(&best.text, &best.tokens)?;
    Ok(best.finish.unwrap_or(FinishReason::Stop))
}
