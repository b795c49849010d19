//! Speculation written in a program (Saxena, 'Prompt Lookup Decoding', 2023): words that followed the same
//! words earlier are likely to follow again, and a forward pass of several tokens takes hardly longer than
//! one of a single token. The program guesses tokens, computes all guesses at once, and keeps those that the
//! request's own sampling chooses, so the text is the same as without guesses.
//!
//! Input: `{"ngram": 3, "draft": 8}`: the most preceding tokens that are compared, and the number of guessed
//! tokens.

use realm_tenant::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    ngram: usize,
    draft: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { ngram: 3, draft: 8 }
    }
}

#[realm_tenant::run]
async fn main(request: Request) -> Result<FinishReason> {
    let options: Options = request.options()?;
    let model = Model::current();
    let mut tokens = model.tokenize(&request.prompt)?;
    let sequence = Sequence::of(&model, &tokens)?;
    let context = sequence.context_length() as usize;
    let mut answer = Answer::new(&model, &request, &sequence)?;
    let mut draft = Vec::new();
    let mut rows = vec![sequence.forward()?];
    loop {
        // The row after each correct token gives the next token; a wrong guess invalidates the later rows.
        for (i, logits) in rows.iter().enumerate() {
            let token = answer.choose(logits)?;
            let step = answer.push(token)?;
            emit(step.text, &[token])?;
            if let Some(reason) = step.finish {
                return Ok(reason);
            }
            tokens.push(token);
            if draft.get(i) != Some(&token) {
                break;
            }
        }
        let last = tokens.len() - 1;
        sequence.truncate(last as u32)?;
        sequence.append(&tokens[last..])?;
        draft = guess(&tokens, options.ngram, options.draft.min(context - tokens.len())).to_vec();
        sequence.append(&draft)?;
        rows = sequence.forward_all()?;
    }
}

/// Returns the tokens that followed the latest earlier occurrence of the last tokens. Compares as many last
/// tokens as possible, at most `ngram`.
fn guess(tokens: &[Token], ngram: usize, draft: usize) -> &[Token] {
    for n in (1..=ngram.min(tokens.len().saturating_sub(1))).rev() {
        let (before, last) = (&tokens[..tokens.len() - 1], &tokens[tokens.len() - n..]);
        if let Some(at) = before.windows(n).rposition(|window| window == last) {
            let found = &tokens[at + n..];
            return &found[..found.len().min(draft)];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn the_latest_place_of_the_longest_match_counts() {
        assert_eq!(guess(&[1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 3, 2), [9, 2]);
        assert_eq!(guess(&[1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 2, 2), [8, 1]);
        assert_eq!(guess(&[7, 7, 7], 3, 8), [7]);
        assert!(guess(&[1, 2, 3], 3, 8).is_empty());
        assert!(guess(&[1], 3, 8).is_empty());
    }
}
