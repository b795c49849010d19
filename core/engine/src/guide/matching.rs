//! The way of one generation through a grammar.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::StopReason;
use llguidance::{TokenParser, panic_utils};
use realm_handover::Receiver;

use super::cache::{Entry, brief};
use super::pool::{Ahead, Done, Job, MaskPool, compute};
use crate::Error;
use crate::sampling::TokenMask;

/// Tells which tokens may come next. For each token, call [`start_mask`](Self::start_mask) before the forward
/// pass, [`mask`](Self::mask) after it, and [`accept`](Self::accept) with the chosen token, until the guide
/// [is finished](Self::is_finished).
///
/// A step that verifies drafts samples row after row and stops at the first token that differs from its
/// draft. A guide has then seen exactly the sampled tokens, so it never goes back.
pub struct Guide {
    parser: Parser,
    /// The grammar, which stays on its owner's account as long as the guide exists.
    entry: Arc<Entry>,
    /// Bytes of text that the guide has followed.
    came: usize,
    mask: Option<TokenMask>,
    /// Tokens that must come next. They are computed once for a whole stretch of text: each then has its mask
    /// at no cost, and a long stretch is not tokenized again for each of its tokens.
    forced: VecDeque<u32>,
    finished: bool,
    vocabulary: usize,
    pool: Arc<MaskPool>,
}

/// Bytes of memory of a guide at the start of its grammar, besides its masks, and for each byte of text that
/// it has followed. Measured by the growth of a process for 3,000 at the start, and for 100 that had followed
/// 4 KB of JSON in lexemes of one to four bytes (`ledger` of the sandbox's tests); longer lexemes take less.
const START_BYTES: usize = 4 << 10;
const CAME_BYTES: usize = 144;

/// The current place of the parser.
enum Parser {
    Here(Box<TokenParser>),
    /// On a thread that computes a mask.
    Away(Receiver<Done>),
    /// Lost with a thread that died.
    Lost,
}

impl Guide {
    pub(super) fn new(
        parser: TokenParser,
        entry: Arc<Entry>,
        vocabulary: usize,
        pool: Arc<MaskPool>,
    ) -> Self {
        let (parser, forced) = (Parser::Here(Box::new(parser)), VecDeque::new());
        Self { parser, entry, came: 0, mask: None, forced, finished: false, vocabulary, pool }
    }

    /// Bytes of memory that a guide for a vocabulary of `vocabulary` tokens takes at its start, with a mask
    /// of its own besides the last one, which the parser keeps.
    pub fn least(vocabulary: usize) -> usize {
        size_of::<Self>() + START_BYTES + 2 * (vocabulary / 8)
    }

    /// Bytes of memory that the guide takes besides its grammar.
    pub fn memory(&self) -> usize {
        let has_mask = self.mask.is_some() || matches!(self.parser, Parser::Away(_));
        let no_mask = if has_mask { 0 } else { self.vocabulary / 8 };
        Self::least(self.vocabulary) - no_mask + self.came * CAME_BYTES
    }

    /// Starts to compute the next mask on another thread, unless the mask exists or is being computed.
    pub fn start_mask(&mut self) {
        if self.finished || self.mask.is_some() || !self.forced.is_empty() {
            return;
        }
        self.parser = match std::mem::replace(&mut self.parser, Parser::Lost) {
            Parser::Here(parser) => {
                let (reply, done) = realm_handover::channel(1);
                match self.pool.submit(Job { parser, entry: Arc::clone(&self.entry), reply }) {
                    Ok(()) => Parser::Away(done),
                    // There is no thread, so `mask` computes it.
                    Err(job) => Parser::Here(job.parser),
                }
            }
            other => other,
        };
    }

    /// Returns the tokens that may come next. They include end tokens where the text may end.
    ///
    /// # Errors
    /// `LimitExceeded` if the grammar takes more time or memory than a mask may, `InvalidArgument` if no
    /// token can continue the text.
    pub fn mask(&mut self) -> Result<&TokenMask, Error> {
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => {
                let words = if self.forced.is_empty() { self.look_ahead()? } else { None };
                match words {
                    Some(words) => TokenMask::from_words(words, self.vocabulary),
                    None => {
                        let mut mask = TokenMask::none(self.vocabulary);
                        self.forced.front().iter().for_each(|&&token| mask.allow(token));
                        mask
                    }
                }
            }
        };
        Ok(self.mask.insert(mask))
    }

    /// Asks the parser what may come next: the words of a mask, or `None` with tokens in [`Self::forced`].
    fn look_ahead(&mut self) -> Result<Option<Vec<u32>>, Error> {
        let Done { parser, next } = match std::mem::replace(&mut self.parser, Parser::Lost) {
            Parser::Here(mut parser) => Done { next: compute(&mut parser, &self.entry), parser },
            Parser::Away(done) => done.recv_blocking().ok_or(Error::Stopped)?,
            Parser::Lost => return Err(Error::Stopped),
        };
        let next = next.map_err(|why| failure(&parser, &why));
        self.parser = Parser::Here(parser);
        match next? {
            Ahead::Mask(mask) => Ok(Some(mask.into())),
            Ahead::Forced(tokens) => {
                self.forced = tokens.into();
                Ok(None)
            }
        }
    }

    /// Advances by `token`, which the mask allowed.
    ///
    /// # Errors
    /// `InvalidArgument` for a token that may not come next.
    pub fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.finished = self.with_parser(|parser| {
            parser.consume_token(token)?;
            parser.check_stop()
        })?;
        self.mask = None;
        if self.forced.pop_front().is_some_and(|forced| forced != token) {
            self.forced.clear();
        }
        Ok(())
    }

    /// Returns whether the text is complete: an end token came, or nothing can follow.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns tokens that must come next, as drafts for a step with several rows. The grammar forces the
    /// bytes, and the tokenizer spells them; tokens at the end that later text might change are left out. The
    /// mask of each place allows only that token, so masked sampling takes it too.
    ///
    /// # Errors
    /// `LimitExceeded` if the grammar takes more time or memory than it may.
    pub fn forced_tokens(&mut self) -> Result<Vec<u32>, Error> {
        if matches!(self.parser, Parser::Away(_)) {
            self.mask()?;
        }
        if !self.finished && self.mask.is_none() && self.forced.is_empty() {
            self.forced = self.with_parser(|parser| Ok(parser.compute_ff_tokens()))?.into();
        }
        Ok(self.forced.iter().copied().collect())
    }

    /// Runs `act` with the parser; waits for the parser while a thread computes a mask with it.
    fn with_parser<T>(
        &mut self,
        act: impl FnOnce(&mut TokenParser) -> anyhow::Result<T>,
    ) -> Result<T, Error> {
        if let Parser::Away(_) = self.parser {
            self.mask()?;
        }
        let Parser::Here(parser) = &mut self.parser else { return Err(Error::Stopped) };
        let result = panic_utils::catch_unwind(AssertUnwindSafe(|| act(parser)));
        self.came = parser.parser.get_bytes().len();
        result.map_err(|error| failure(parser, &brief(&error)))
    }
}

fn failure(parser: &TokenParser, why: &str) -> Error {
    match parser.stop_reason() {
        StopReason::LexerTooComplex | StopReason::ParserTooComplex => {
            Error::LimitExceeded(format!("the grammar takes too much time or memory at this place: {why}"))
        }
        _ => Error::InvalidArgument(format!("no token goes on as the grammar asks: {why}")),
    }
}
