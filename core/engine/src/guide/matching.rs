//! One generation's way through a grammar.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_channel::Receiver;
use llguidance::api::StopReason;
use llguidance::{TokenParser, panic_utils};
use realm_model::Likeliest;

use super::cache::brief;
use super::pool::{Done, Job, MaskPool, compute};
use crate::Error;
use crate::sampling::{Sampler, TokenMask};

/// Says which tokens may come next. For each token: [`start_mask`](Self::start_mask) before the forward pass,
/// [`sample`](Self::sample) after it, until it [is finished](Self::is_finished).
///
/// A step that verifies drafted tokens samples row after row and stops at the first token that is not the drafted
/// one; a guide has seen exactly the tokens that were sampled, so nothing is ever taken back.
pub struct Guide {
    parser: Parser,
    mask: Option<TokenMask>,
    finished: bool,
    vocabulary: usize,
    pool: Arc<MaskPool>,
}

/// Where the parser is.
enum Parser {
    Here(Box<TokenParser>),
    /// With a thread that computes a mask.
    Away(Receiver<Done>),
    /// That thread has died.
    Lost,
}

impl Guide {
    pub(super) fn new(parser: TokenParser, vocabulary: usize, pool: Arc<MaskPool>) -> Self {
        Self { parser: Parser::Here(Box::new(parser)), mask: None, finished: false, vocabulary, pool }
    }

    /// Has the next mask computed on another thread, unless it is there or on its way.
    pub fn start_mask(&mut self) {
        if self.finished || self.mask.is_some() {
            return;
        }
        self.parser = match std::mem::replace(&mut self.parser, Parser::Lost) {
            Parser::Here(parser) => {
                let (reply, done) = async_channel::bounded(1);
                match self.pool.submit(Job { parser, reply }) {
                    Ok(()) => Parser::Away(done),
                    // There is no thread, so `mask` computes it.
                    Err(job) => Parser::Here(job.parser),
                }
            }
            other => other,
        };
    }

    /// The tokens that may come next. End tokens are among them where the text may end.
    ///
    /// # Errors
    /// `LimitExceeded` where the grammar takes more than a mask may, `InvalidArgument` where no token goes on.
    pub fn mask(&mut self) -> Result<&TokenMask, Error> {
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => {
                let Done { parser, mask } = match std::mem::replace(&mut self.parser, Parser::Lost) {
                    Parser::Here(mut parser) => Done { mask: compute(&mut parser), parser },
                    Parser::Away(done) => done.recv_blocking().map_err(|_| Error::Stopped)?,
                    Parser::Lost => return Err(Error::Stopped),
                };
                let mask = mask.map_err(|why| failure(&parser, &why));
                self.parser = Parser::Here(parser);
                TokenMask::from_words(mask?.into(), self.vocabulary)
            }
        };
        Ok(self.mask.insert(mask))
    }

    /// Chooses the next token and goes on from it.
    ///
    /// # Errors
    /// As [`mask`](Self::mask), and `InvalidArgument` where the request bans all that the grammar allows.
    pub fn sample(&mut self, sampler: &mut Sampler, logits: &[f32]) -> Result<u32, Error> {
        let token = sampler.sample_masked(logits, Some(self.mask()?)).ok_or_else(|| {
            Error::InvalidArgument("every token that the grammar allows here is banned by the request".into())
        })?;
        self.accept(token)?;
        Ok(token)
    }

    /// [`sample`](Self::sample) by the likeliest tokens; `None` if it takes all logits.
    pub(crate) fn sample_likeliest(
        &mut self,
        sampler: &mut Sampler,
        likeliest: Likeliest<'_>,
    ) -> Result<Option<u32>, Error> {
        let token = sampler.sample_likeliest(likeliest, Some(self.mask()?));
        token.map(|token| self.accept(token).map(|()| token)).transpose()
    }

    /// Goes on from `token`, which the mask allowed.
    ///
    /// # Errors
    /// `InvalidArgument` for a token that may not come next.
    pub fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.finished = self.with_parser(|parser| {
            parser.consume_token(token)?;
            parser.check_stop()
        })?;
        self.mask = None;
        Ok(())
    }

    /// Whether the text is complete: an end token came, or nothing can follow.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Tokens that must come next, as drafts for a step with several rows. The grammar forces the bytes; these are
    /// the tokens that the tokenizer spells them with, less those at the end that what follows might change. The
    /// mask of each place has then but that one token, so masked sampling takes it too: the masks decide, and a
    /// draft that they refuse costs a row and changes no text.
    ///
    /// # Errors
    /// `LimitExceeded` where the grammar takes too much.
    pub fn forced_tokens(&mut self) -> Result<Vec<u32>, Error> {
        if self.finished {
            return Ok(Vec::new());
        }
        self.with_parser(|parser| Ok(parser.compute_ff_tokens()))
    }

    /// How many of `draft` the grammar may allow, so that no row is spent on what it can't.
    #[cfg_attr(not(test), expect(dead_code, reason = "for speculation"))]
    pub(crate) fn possible(&mut self, draft: &[u32]) -> Result<usize, Error> {
        if self.finished {
            return Ok(0);
        }
        self.with_parser(|parser| parser.validate_tokens_raw(draft))
    }

    /// Waits for the parser, if it is away for a mask.
    fn with_parser<T>(
        &mut self,
        act: impl FnOnce(&mut TokenParser) -> anyhow::Result<T>,
    ) -> Result<T, Error> {
        if let Parser::Away(_) = self.parser {
            self.mask()?;
        }
        let Parser::Here(parser) = &mut self.parser else { return Err(Error::Stopped) };
        panic_utils::catch_unwind(AssertUnwindSafe(|| act(parser)))
            .map_err(|error| failure(parser, &brief(&error)))
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
