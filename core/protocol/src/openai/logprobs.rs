//! Log-probabilities of tokens.

use realm::{Token, Tokenizer};

use super::types::{ChatLogprobs, TextLogprobs, TokenLogprob, TopLogprob};

/// The tokens that a text spells: an end token that `ended` it is none of them.
pub(super) fn spoken<'a>(tokens: &'a [Token], ended: bool, tokenizer: &Tokenizer) -> &'a [Token] {
    match tokens {
        [spoken @ .., last] if ended && tokenizer.end_tokens().contains(&last.id) => spoken,
        _ => tokens,
    }
}

/// A token's text and its bytes.
fn spelled(id: u32, tokenizer: &Tokenizer) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    // Ids come from the model, and so from its vocabulary.
    let _ = tokenizer.push_bytes(id, true, &mut bytes);
    (String::from_utf8_lossy(&bytes).into_owned(), bytes)
}

/// JSON has no infinity. A token that can't come is as unlikely as OpenAI has it at most.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

pub(super) fn of_chat(tokens: &[Token], tokenizer: &Tokenizer) -> ChatLogprobs {
    let each = |token: &Token| {
        let (text, bytes) = spelled(token.id, tokenizer);
        let top = token.top.iter().map(|likely| {
            let (token, bytes) = spelled(likely.id, tokenizer);
            TopLogprob { token, logprob: finite(likely.logprob), bytes }
        });
        TokenLogprob {
            token: text,
            logprob: finite(token.logprob.unwrap_or(f32::NEG_INFINITY)),
            bytes,
            top_logprobs: top.collect(),
        }
    };
    ChatLogprobs { content: tokens.iter().map(each).collect(), refusal: None }
}

/// The same in four lists, for a text that goes on at `offset` characters, which moves behind it.
pub(super) fn of_text(tokens: &[Token], tokenizer: &Tokenizer, offset: &mut usize) -> TextLogprobs {
    let mut found = TextLogprobs::default();
    for token in tokens {
        let (text, _) = spelled(token.id, tokenizer);
        let top =
            token.top.iter().map(|likely| (spelled(likely.id, tokenizer).0, finite(likely.logprob).into()));
        found.top_logprobs.push(top.collect());
        found.token_logprobs.push(finite(token.logprob.unwrap_or(f32::NEG_INFINITY)));
        found.text_offset.push(*offset);
        *offset += text.chars().count();
        found.tokens.push(text);
    }
    found
}
