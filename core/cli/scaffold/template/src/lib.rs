//! A program for tenants of Realm: answers token by token, with its own choice of tokens.

use realm_tenant::*;

#[realm_tenant::run]
async fn main(request: Request) -> Result<()> {
    let model = Model::current();
    let text = TextDecoder::new(&model, &request.stop);
    let sequence = Sequence::of(&model, &model.tokenize(&request.prompt)?)?;
    for _ in 0..request.max_tokens.unwrap_or(256) {
        let best = sequence.forward()?.top(2);
        // Your own choice goes here: this one takes the second-best token if its logit is within 0.01 of the
        // best.
        let token = best[usize::from(best[1].logit > best[0].logit - 0.01)].token;
        let piece = text.push(token)?;
        emit(piece.text, &[token])?;
        if piece.stopped || model.is_end(token) {
            break;
        }
        sequence.append(&[token])?;
    }
    emit(text.finish(), &[])
}
