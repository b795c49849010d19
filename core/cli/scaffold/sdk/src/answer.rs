//! Realm's own way to answer a request, in single steps.

use crate::{
    Error, FinishReason, Logits, Matcher, Model, Piece, Request, Result, Sampler, Sequence, TextDecoder,
    Token,
};

/// An answer under construction: applies the request's sampling, grammar, stop strings and limits in the same
/// way as Realm without a program.
///
/// ```no_run
/// # use realm_tenant::*;
/// # fn answer(request: Request) -> Result<FinishReason> {
/// let model = Model::current();
/// let sequence = Sequence::of(&model, &model.tokenize(&request.prompt)?)?;
/// let mut answer = Answer::new(&model, &request, &sequence)?;
/// loop {
///     let token = answer.choose(&sequence.forward()?)?;
///     let step = answer.push(token)?;
///     emit(&step.text, &[token])?;
///     if let Some(reason) = step.finish {
///         return Ok(reason);
///     }
///     sequence.append(&[token])?;
/// }
/// # }
/// ```
pub struct Answer<'m> {
    model: &'m Model,
    sampler: Sampler,
    matcher: Option<Matcher>,
    text: TextDecoder,
    /// Number of tokens that may still follow.
    room: u32,
    ignore_eos: bool,
}

/// The text that a token adds to an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// New text; may be empty while a character or a stop string is unfinished.
    pub text: String,
    /// The reason why the answer ends with this token; `None` if it continues.
    pub finish: Option<FinishReason>,
}

impl<'m> Answer<'m> {
    /// Starts an answer to the prompt that `sequence` consists of.
    ///
    /// # Errors
    /// `invalid-argument` for an empty prompt and for invalid sampling, an invalid grammar or an invalid
    /// limit; `limit-exceeded` for a prompt that leaves no room.
    pub fn new(model: &'m Model, request: &Request, sequence: &Sequence) -> Result<Self> {
        let room = sequence.room()?;
        if request.max_tokens == Some(0) {
            return Err(Error::invalid("max_tokens is 0; it must be at least 1"));
        }
        let open = |grammar| Matcher::open(model, grammar);
        Ok(Self {
            model,
            sampler: Sampler::open(model, &request.sampling, &sequence.tokens())?,
            matcher: request.grammar.as_ref().map(open).transpose()?,
            text: TextDecoder::new(model, &request.stop),
            room: request.max_tokens.unwrap_or(room).min(room),
            ignore_eos: request.ignore_eos,
        })
    }

    /// Chooses the next token by the request's rules; does not change the logits.
    ///
    /// # Errors
    /// `invalid-argument` if no token is left to choose, `limit-exceeded` if the grammar takes too much time.
    pub fn choose(&mut self, logits: &Logits) -> Result<Token> {
        match &self.matcher {
            Some(matcher) => self.sampler.sample_matching(logits, matcher),
            None => self.sampler.sample(logits),
        }
    }

    /// Reports a token that the program chose itself, in place of [`choose`](Self::choose).
    ///
    /// # Errors
    /// `invalid-argument` for a token that the grammar does not allow.
    pub fn observe(&mut self, token: Token) -> Result<()> {
        self.sampler.observe(token);
        self.matcher.as_ref().map_or(Ok(()), |matcher| matcher.accept(token))
    }

    /// Adds the chosen token to the answer. An end token ends the answer, counts, and adds no text; with a
    /// grammar, end tokens end the answer even if the request ignores them.
    ///
    /// # Errors
    /// `invalid-argument` for an id outside the vocabulary.
    pub fn push(&mut self, token: Token) -> Result<Step> {
        self.room = self.room.saturating_sub(1);
        let heeds_end = !self.ignore_eos || self.matcher.is_some();
        let end_token = heeds_end && self.model.is_end(token);
        let ended = end_token || self.matcher.as_ref().is_some_and(Matcher::is_finished);
        let piece = match end_token {
            true => Piece { text: String::new(), stopped: false },
            false => self.text.push(token)?,
        };
        let finish = match (ended || piece.stopped, self.room) {
            (true, _) => Some(FinishReason::Stop),
            (false, 0) => Some(FinishReason::Length),
            (false, _) => None,
        };
        let mut text = piece.text;
        if finish.is_some() && !piece.stopped {
            text += &self.text.finish();
        }
        Ok(Step { text, finish })
    }
}
