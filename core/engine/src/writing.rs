//! A text in progress: the choice of the next token, and the chunks that the reader gets.

use std::borrow::Cow;

use realm_model::TopK;
use realm_tokenizer::Tokenizer;

use crate::Error;
use crate::chunk::{Chunk, FinishReason, Token, Usage};
use crate::guide::Guide;
use crate::request::Request;
use crate::sampling::{Sampler, TokenMask, logprobs};
use crate::text::TextStream;
use crate::thought::{Stage, ThoughtWatch};

/// A request's text, token by token: call [`prepare`](Self::prepare) before the forward pass,
/// [`choose`](Self::choose) after it, and [`push`](Self::push) with the chosen token.
pub struct Writing {
    sampler: Sampler,
    guide: Option<Guide>,
    /// Follows the thought before the answer. The guide does not apply to it.
    thought: Option<ThoughtWatch>,
    text: TextStream,
    logprobs: Option<usize>,
    ignore_eos: bool,
    special: bool,
    spelled: Vec<u32>,
    pub(crate) usage: Usage,
}

impl Writing {
    /// Creates the text of a request and takes the options that it needs out of the request.
    pub fn new(request: &mut Request, guide: Option<Guide>) -> Self {
        Self {
            sampler: Sampler::new(std::mem::take(&mut request.sampling), &request.prompt),
            guide,
            thought: request.thought.take().map(ThoughtWatch::new),
            text: TextStream::new(&std::mem::take(&mut request.stop)),
            logprobs: request.logprobs,
            ignore_eos: request.ignore_eos,
            special: request.special,
            spelled: std::mem::take(&mut request.spelled),
            usage: Usage { prompt_tokens: request.prompt.len(), ..Usage::default() },
        }
    }

    /// Bytes of memory that change from token to token.
    pub fn memory(&self) -> usize {
        self.sampler.memory() + self.text.memory() + self.guide.as_ref().map_or(0, Guide::memory)
    }

    /// Tokens used so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Records how many tokens of the prompt an earlier request had computed.
    pub fn found_cached(&mut self, tokens: usize) {
        self.usage.cached_tokens = tokens;
    }

    /// Returns whether tokens come with log-probabilities, which need the model's unchanged logits.
    pub fn has_logprobs(&self) -> bool {
        self.logprobs.is_some()
    }

    /// Returns whether the likeliest tokens mostly suffice to choose from.
    pub(crate) fn top_k_suffices(&self) -> bool {
        !self.has_logprobs() && self.sampler.top_k_suffices()
    }

    /// The number of times that choosing a token scans the vocabulary.
    pub(crate) fn looks(&self) -> usize {
        let all = usize::from(!self.top_k_suffices());
        all * self.sampler.looks() + usize::from(self.has_logprobs()) + usize::from(self.guide.is_some())
    }

    /// Starts to compute the grammar's mask for the next token on another thread. Call it before the forward
    /// pass, which then runs in parallel.
    pub fn prepare(&mut self) {
        let stage = self.stage();
        if let Some(guide) = self.guide.as_mut().filter(|_| stage != Stage::Thinking) {
            guide.start_mask();
        }
    }

    /// Returns whether a grammar guides the next token.
    pub(crate) fn is_guided(&self) -> bool {
        self.guide.is_some() && self.stage() == Stage::Answering
    }

    /// Returns the tokens that the grammar forces to come next; none without a grammar.
    pub(crate) fn forced_tokens(&mut self) -> Vec<u32> {
        // An error here recurs with the mask, which reports it.
        self.guide.as_mut().and_then(|guide| guide.forced_tokens().ok()).unwrap_or_default()
    }

    /// The stage of the text: in its thought or after it.
    fn stage(&self) -> Stage {
        self.thought.as_ref().map_or(Stage::Answering, ThoughtWatch::stage)
    }

    /// Sets the logit of each token that the grammar forbids to -infinity.
    ///
    /// # Errors
    /// Same as [`Guide::mask`].
    pub fn rule_out(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) -> Result<(), Error> {
        if let Some(mask) = allowed(&mut self.guide, &mut self.thought, tokenizer)? {
            for (id, logit) in (0..).zip(logits) {
                if !mask.allows(id) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    /// Chooses the next token among those that the grammar allows.
    ///
    /// # Errors
    /// Same as [`Guide::mask`], and `InvalidArgument` if the request bans every token that may come.
    pub fn choose(&mut self, logits: &[f32], tokenizer: &Tokenizer) -> Result<u32, Error> {
        let mask = allowed(&mut self.guide, &mut self.thought, tokenizer)?;
        let token = match mask {
            None => self.sampler.sample(logits),
            Some(mask) => self.sampler.sample_masked(logits, Some(&mask)).ok_or_else(|| {
                Error::InvalidArgument(
                    "every token that the grammar allows here is banned by the request".into(),
                )
            })?,
        };
        self.accept(token, tokenizer)
    }

    /// Chooses a token like [`choose`](Self::choose) among the likeliest ones; returns `None` if that takes
    /// all logits.
    pub(crate) fn choose_from_top_k(
        &mut self,
        top_k: TopK<'_>,
        tokenizer: &Tokenizer,
    ) -> Result<Option<u32>, Error> {
        // The token that opens a thought may not be among the likeliest.
        if self.guide.is_some() && self.stage() == Stage::Undecided {
            return Ok(None);
        }
        let mask = allowed(&mut self.guide, &mut self.thought, tokenizer)?;
        let token = self.sampler.sample_top_k(top_k, mask.as_deref());
        token.map(|token| self.accept(token, tokenizer)).transpose()
    }

    /// Advances the guide by a token. Returns the token to take in its place, since a thought may have to end
    /// first.
    fn accept(&mut self, token: u32, tokenizer: &Tokenizer) -> Result<u32, Error> {
        let stage = self.stage();
        let Some(guide) = &mut self.guide else { return Ok(token) };
        match (stage, &mut self.thought) {
            (Stage::Thinking, Some(thought)) => {
                return Ok(thought.settle(token, tokenizer.end_tokens().contains(&token), tokenizer));
            }
            (Stage::Undecided, Some(thought)) => {
                if !thought.opening_tokens(tokenizer).contains(&token) {
                    guide.accept(token)?;
                    thought.answer();
                }
            }
            _ => guide.accept(token)?,
        }
        Ok(token)
    }

    /// Adds a chosen token to a chunk, with log-probabilities by the model's own `logits` if the request
    /// asked for them. Returns the reason if the text ends with this token. `last` says that there is room
    /// for no more.
    pub fn push(
        &mut self,
        id: u32,
        logits: &[f32],
        tokenizer: &Tokenizer,
        last: bool,
        chunk: &mut Chunk,
    ) -> Option<FinishReason> {
        self.usage.generated_tokens += 1;
        if let Some(thought) = &mut self.thought {
            thought.push(id, tokenizer);
            self.usage.reasoning_tokens = thought.tokens();
        }
        let (logprob, top) = self.logprobs.map(|n| logprobs(logits, id, n)).unzip();
        chunk.tokens.push(Token { id, logprob, top: top.unwrap_or_default() });
        let heeds_end = !self.ignore_eos || self.guide.is_some();
        let end = heeds_end && tokenizer.end_tokens().contains(&id);
        let complete = self.guide.as_ref().is_some_and(Guide::is_finished);
        let special = self.special || self.spelled.contains(&id);
        let (text, reason) = self.text.answer(id, tokenizer, special, end, complete, last);
        chunk.text += &text;
        reason
    }
}

/// Returns the tokens that may come next; `None` where any may: without a grammar, and inside a thought.
/// Where a thought may begin, its opening tokens are allowed beside those of the grammar.
fn allowed<'a>(
    guide: &'a mut Option<Guide>,
    thought: &mut Option<ThoughtWatch>,
    tokenizer: &Tokenizer,
) -> Result<Option<Cow<'a, TokenMask>>, Error> {
    let Some(guide) = guide else { return Ok(None) };
    let stage = thought.as_ref().map_or(Stage::Answering, ThoughtWatch::stage);
    match (stage, thought) {
        (Stage::Thinking, _) => return Ok(None),
        (Stage::Undecided, Some(thought)) => {
            let opening = thought.opening_tokens(tokenizer);
            if !opening.is_empty() {
                let mut mask = guide.mask()?.clone();
                opening.iter().for_each(|&token| mask.allow(token));
                return Ok(Some(Cow::Owned(mask)));
            }
            thought.guide();
        }
        _ => {}
    }
    Ok(Some(Cow::Borrowed(guide.mask()?)))
}
