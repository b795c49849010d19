//! Log-probabilities of tokens.

use realm::{Token, Tokenizer};

use super::types::{ChatLogprobs, TextLogprobs, TokenLogprob, TopLogprob};

/// Returns the tokens that the text spells. An end token that `ended` the text is left out.
pub(super) fn spoken<'a>(tokens: &'a [Token], ended: bool, tokenizer: &Tokenizer) -> &'a [Token] {
    match tokens {
        [spoken @ .., last] if ended && tokenizer.end_tokens().contains(&last.id) => spoken,
        _ => tokens,
    }
}

/// Returns a token's text and its bytes.
fn spelled(id: u32, tokenizer: &Tokenizer) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    // Ids come from the model, and so from its vocabulary.
    let _ = tokenizer.push_bytes(id, true, &mut bytes);
    (String::from_utf8_lossy(&bytes).into_owned(), bytes)
}

/// Raises -infinity to OpenAI's least value, since JSON has no infinity.
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

/// Converts log-probabilities to four lists, for a text that continues at `offset` characters. Moves `offset`
/// to its end.
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
