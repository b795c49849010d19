//! From tokens to text, as they come.

use realm_tokenizer::{Tokenizer, Utf8Stream};

use crate::FinishReason;
use crate::stop::StopMatcher;

/// Makes text of tokens: whole characters only, and nothing that may be the beginning of a stop string.
pub struct TextStream {
    decoder: Utf8Stream,
    stop: StopMatcher,
    bytes: Vec<u8>,
}

impl TextStream {
    /// A text that ends where one of `stops` comes.
    pub fn new(stops: &[String]) -> Self {
        Self { decoder: Utf8Stream::new(), stop: StopMatcher::new(stops), bytes: Vec::new() }
    }

    /// Bytes of memory that it takes: what finds the stop strings takes many times theirs.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.stop.memory() + self.bytes.capacity()
    }

    /// Adds a token; returns what may go out, and whether a stop string came, which never goes out. Control tokens are
    /// spelled only if they are `special`; a token outside the vocabulary spells nothing.
    pub fn push(&mut self, token: u32, tokenizer: &Tokenizer, special: bool) -> (String, bool) {
        self.bytes.clear();
        // A model may have more logits than its vocabulary has tokens.
        let _ = tokenizer.push_bytes(token, special, &mut self.bytes);
        self.stop.push(&self.decoder.push(&self.bytes))
    }

    /// Adds a token that was chosen for an answer; returns what may go out, and why the answer ends with it, if it does:
    /// it is an `end` token, which spells nothing, a stop string came, whatever guides the text says that it is `complete`,
    /// or it is the `last` that there is room for.
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

    /// The end, unless a stop string came: what was kept back.
    pub fn finish(&mut self) -> String {
        let (mut text, found) = self.stop.push(&self.decoder.finish());
        if !found {
            text += &self.stop.finish();
        }
        text
    }
}
