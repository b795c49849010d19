//! From tokens to text, token by token.

use realm_tokenizer::{Tokenizer, Utf8Stream};

use crate::FinishReason;
use crate::stop::StopMatcher;

/// Makes text of tokens. Returns only whole characters, and holds back text that may be the beginning of a
/// stop string.
pub struct TextStream {
    decoder: Utf8Stream,
    stop: StopMatcher,
    bytes: Vec<u8>,
}

impl TextStream {
    /// Creates a text that ends where one of `stops` appears.
    pub fn new(stops: &[String]) -> Self {
        Self { decoder: Utf8Stream::new(), stop: StopMatcher::new(stops), bytes: Vec::new() }
    }

    /// Bytes of memory that it takes. The automaton for the stop strings takes many times their own size.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.stop.memory() + self.bytes.capacity()
    }

    /// Adds a token. Returns the text that may go out, and whether a stop string appeared, which never goes
    /// out. Control tokens are spelled only if `special` is true; a token outside the vocabulary spells
    /// nothing.
    pub fn push(&mut self, token: u32, tokenizer: &Tokenizer, special: bool) -> (String, bool) {
        self.bytes.clear();
        // A token may be outside the vocabulary: a model can have more logits than its vocabulary has tokens.
        let _ = tokenizer.push_bytes(token, special, &mut self.bytes);
        self.stop.push(&self.decoder.push(&self.bytes))
    }

    /// Adds a token that was chosen for an answer. Returns the text that may go out, and the reason if the
    /// answer ends with this token: it is an `end` token, which spells nothing; a stop string appeared; the
    /// grammar is `complete`; or this is the `last` token that there is room for.
    pub fn answer(
        &mut self,
        token: u32,
        tokenizer: &Tokenizer,
        special: bool,
        end: bool,
        complete: bool,
        last: bool,
    ) -> (String, Option<FinishReason>) {
        let (mut text, stopped) =
            if end { (String::new(), false) } else { self.push(token, tokenizer, special) };
        let reason = if end || complete || stopped {
            Some(FinishReason::Stop)
        } else {
            last.then_some(FinishReason::Length)
        };
        if reason.is_some() && !stopped {
            text += &self.finish();
        }
        (text, reason)
    }

    /// Ends the text. Returns the text that was held back, unless a stop string appeared.
    pub fn finish(&mut self) -> String {
        let (mut text, found) = self.stop.push(&self.decoder.finish());
        if !found {
            text += &self.stop.finish();
        }
        text
    }
}
