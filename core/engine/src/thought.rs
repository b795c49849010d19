//! A model's thought before its answer: the tokens that belong to it, and the beginning of the answer, from
//! where a grammar guides.

use realm_tokenizer::Tokenizer;

/// The marks around a model's thought before its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thought {
    /// Strings that begin a thought, any of them, at the beginning of the text.
    pub openers: Vec<String>,
    /// The string that ends a thought.
    pub closer: String,
    /// True if the prompt ends inside a thought, so that the text begins there.
    pub open: bool,
}

/// The stage that a text has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A thought may begin.
    Undecided,
    Thinking,
    Answering,
}

/// Follows a text into its thought and out of it, token by token.
pub(crate) struct ThoughtWatch {
    thought: Thought,
    stage: Stage,
    /// True if the grammar applies from the beginning, since no single token begins a thought.
    guided: bool,
    /// The end of the text so far, as bytes, in which a mark may have begun.
    seen: Vec<u8>,
    tokens: usize,
}

impl ThoughtWatch {
    /// Starts before the first token.
    pub(crate) fn new(thought: Thought) -> Self {
        let stage = if thought.open { Stage::Thinking } else { Stage::Undecided };
        Self { thought, stage, guided: false, seen: Vec::new(), tokens: 0 }
    }

    /// The stage of the next token. It is [`Stage::Answering`] wherever a grammar guides.
    pub(crate) fn stage(&self) -> Stage {
        if self.guided { Stage::Answering } else { self.stage }
    }

    /// Lets the grammar guide from here on, thought or not.
    pub(crate) fn guide(&mut self) {
        self.guided = true;
    }

    /// Returns the tokens that each are a whole opening mark.
    pub(crate) fn opening_tokens(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        self.thought.openers.iter().filter_map(|opener| tokenizer.token_id(opener)).collect()
    }

    /// Decides that no thought begins.
    pub(crate) fn answer(&mut self) {
        self.stage = Stage::Answering;
    }

    /// The number of tokens of the thought, including its marks.
    pub(crate) fn tokens(&self) -> usize {
        if self.stage == Stage::Undecided { 0 } else { self.tokens }
    }

    /// Adds a token.
    pub(crate) fn push(&mut self, token: u32, tokenizer: &Tokenizer) {
        if self.stage == Stage::Answering {
            return;
        }
        self.tokens += 1;
        // A token outside the vocabulary spells nothing.
        let _ = tokenizer.push_bytes(token, true, &mut self.seen);
        if self.stage == Stage::Undecided {
            self.decide();
        }
        if self.stage == Stage::Thinking {
            let closer = self.thought.closer.as_bytes();
            if find(&self.seen, closer).is_some() {
                self.stage = Stage::Answering;
            } else {
                let kept = self.seen.len().min(closer.len().saturating_sub(1));
                self.seen.drain(..self.seen.len() - kept);
            }
        }
    }

    fn decide(&mut self) {
        let blank = self.seen.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let text = &self.seen[blank..];
        let mut openers = self.thought.openers.iter().map(String::as_bytes);
        if let Some(opener) = openers.clone().find(|opener| text.starts_with(opener)) {
            self.seen.drain(..blank + opener.len());
            self.stage = Stage::Thinking;
        } else if !openers.any(|opener| opener.starts_with(text)) {
            (self.stage, self.tokens) = (Stage::Answering, 0);
        }
    }

    /// Returns the token to take in place of `token`, inside a thought after which a grammar has to begin.
    /// Instead of a token that `ends` the text, the thought is closed; and instead of one that holds the
    /// closing mark and text of the answer, the mark alone.
    pub(crate) fn settle(&self, token: u32, ends: bool, tokenizer: &Tokenizer) -> u32 {
        let closer = self.thought.closer.as_bytes();
        let mut after = self.seen.clone();
        let _ = tokenizer.push_bytes(token, true, &mut after);
        let beyond = find(&after, closer).map(|at| &after[at + closer.len()..]);
        if !ends && beyond.is_none_or(|beyond| beyond.iter().all(u8::is_ascii_whitespace)) {
            return token;
        }
        let begun = (0..closer.len()).rev().find(|&n| self.seen.ends_with(&closer[..n])).unwrap_or(0);
        let rest = self.thought.closer.get(begun..).unwrap_or(&self.thought.closer);
        let first = match tokenizer.token_id(rest) {
            Some(mark) => Some(mark),
            None => tokenizer.encode_after(rest).first().copied(),
        };
        first.unwrap_or(token)
    }
}

fn find(text: &[u8], mark: &[u8]) -> Option<usize> {
    (!mark.is_empty()).then(|| text.windows(mark.len()).position(|window| window == mark))?
}
