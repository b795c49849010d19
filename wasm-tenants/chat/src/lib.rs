//! Gives the same answer as Realm without a program, token for token: applies the request's sampling,
//! grammar, stop strings and limits. Copy it as a start for your own loop.

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
