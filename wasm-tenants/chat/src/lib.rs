//! Answers as Realm does without a program, token for token: the request's sampling, grammar, stop strings and limits. What
//! to copy for a loop of your own.

use realm_tenant::*;

#[realm_tenant::run]
async fn main(request: Request) -> Result<FinishReason> {
    let model = Model::current();
    let sequence = Sequence::of(&model, &model.tokenize(&request.prompt)?)?;
    let mut answer = Answer::new(&model, &request, &sequence)?;
    loop {
        let token = answer.choose(&sequence.forward()?)?;
        let step = answer.push(token)?;
        emit(step.text, &[token])?;
        if let Some(reason) = step.finish {
            return Ok(reason);
        }
        sequence.append(&[token])?;
    }
}
