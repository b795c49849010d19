//! Thoughts that a model writes before its answer: the marks that its template shows, and how they are
//! separated from the answer.

use realm_tokenizer::{ChatTemplate, TokenKind, Tokenizer};

/// The most bytes of white space held back, since white space around a thought is dropped.
const LONGEST_GAP: usize = 256;

/// The number of tokens at the end of a prompt in which a thought may be opened.
const LAST_TOKENS: usize = 32;

/// The marks of thoughts.
#[derive(Debug, PartialEq, Eq)]
struct Marks {
    /// The marks that begin a thought; prompts end with the first one.
    openers: &'static [&'static str],
    closer: &'static str,
    /// The marks before an answer, which are not part of it.
    headings: &'static [&'static str],
}

const fn marks(openers: &'static [&'static str], closer: &'static str) -> Marks {
    Marks { openers, closer, headings: &[] }
}

/// DeepSeek R1, Qwen 3 and most others.
static THINK: Marks = marks(&["<think>"], "</think>");

/// Texts in a template, each with the marks that it implies; the first that the template contains decides.
static SHOWN: [(&str, &Marks); 14] = [
    ("</think>", &THINK),
    ("<think>", &THINK),
    ("[/THINK]", &marks(&["[THINK]"], "[/THINK]")),
    ("[THINK]", &marks(&["[THINK]"], "[/THINK]")),
    ("</seed:think>", &marks(&["<seed:think>"], "</seed:think>")),
    ("<seed:think>", &marks(&["<seed:think>"], "</seed:think>")),
    ("<|END_THINKING|>", &marks(&["<|START_THINKING|>"], "<|END_THINKING|>")),
    ("<|inner_suffix|>", &marks(&["<|inner_prefix|>"], "<|inner_suffix|>")),
    ("<|channel>", &marks(&["<|channel>thought"], "<channel|>")),
    (
        "<|channel|>",
        &Marks {
            openers: &["<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>analysis<|message|>"],
            closer: "<|end|>",
            headings: &[
                "<|start|>assistant<|channel|>final<|message|>",
                "<|channel|>final<|message|>",
                "<|start|>assistant<|channel|>commentary<|message|>",
                "<|channel|>commentary<|message|>",
            ],
        },
    ),
    ("</thinking>", &marks(&["<thinking>"], "</thinking>")),
    ("</thought>", &marks(&["<thought>"], "</thought>")),
    ("</reasoning>", &marks(&["<reasoning>"], "</reasoning>")),
    ("Here is my response:", &marks(&["Here is my thought process:"], "Here is my response:")),
];

/// The tokens that the marks of gpt-oss consist of.
const CHANNELS: [&str; 4] = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"];

/// The way a model marks its thoughts.
#[derive(Debug, Clone)]
pub(crate) struct ThoughtSpelling {
    marks: &'static Marks,
    /// Control tokens in its marks, which texts leave out otherwise.
    pub(crate) control: Vec<u32>,
}

impl ThoughtSpelling {
    /// Returns the spelling that a chat template shows; `None` for a model that does not think, or that marks
    /// thoughts in an unknown way.
    pub(crate) fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Option<Self> {
        let marks = detect(template.source(false)).or_else(|| detect(template.source(true)))?;
        let spelled = marks.openers.iter().chain(marks.headings).copied().chain([marks.closer]);
        let spelled =
            spelled.chain(if marks.headings.is_empty() { &[][..] } else { &CHANNELS }.iter().copied());
        // Gemma 4 names its channel after the mark.
        let spelled = spelled.map(|mark| mark.strip_suffix("thought").unwrap_or(mark));
        let control = spelled.filter_map(|mark| tokenizer.token_id(mark));
        let control = control.filter(|&id| tokenizer.kind(id) == Some(TokenKind::Control)).collect();
        Some(Self { marks, control })
    }

    /// Returns the engine's rule for a thought after a prompt.
    pub(crate) fn after(&self, prompt: &[u32], tokenizer: &Tokenizer) -> realm_engine::Thought {
        self.thought(self.is_opened_by(prompt, tokenizer))
    }

    /// Returns the engine's rule for a continuation of the model's own words: inside a thought, if the words
    /// end in one. `None` otherwise, since no thought begins in the middle of an answer.
    pub(crate) fn going_on(&self, words: &str) -> Option<realm_engine::Thought> {
        let opened = self.marks.openers.iter().filter_map(|opener| words.rfind(opener)).max()?;
        let closed = words.rfind(self.marks.closer);
        closed.is_none_or(|end| end < opened).then(|| self.thought(true))
    }

    fn thought(&self, open: bool) -> realm_engine::Thought {
        realm_engine::Thought {
            openers: self.marks.openers.iter().map(|&opener| opener.to_owned()).collect(),
            closer: self.marks.closer.to_owned(),
            open,
        }
    }

    /// Returns whether a prompt ends with the beginning of a thought, as templates of some models do. It
    /// reads tokens, since a user's words cannot be a mark there.
    fn is_opened_by(&self, prompt: &[u32], tokenizer: &Tokenizer) -> bool {
        let last = &prompt[prompt.len().saturating_sub(LAST_TOKENS)..];
        let mut end = Vec::new();
        for &token in last {
            // A token outside the vocabulary has no text.
            let _ = tokenizer.push_bytes(token, true, &mut end);
        }
        let end = String::from_utf8_lossy(&end);
        self.marks.openers.iter().any(|opener| end.trim_end().ends_with(opener))
    }
}

fn detect(template: &str) -> Option<&'static Marks> {
    SHOWN.iter().find(|(mark, _)| template.contains(mark)).map(|&(_, marks)| marks)
}

/// Separates thoughts from the answer in a text as it arrives. Text that may be a mark is held back until
/// more text decides that.
#[derive(Debug)]
pub(crate) struct ThoughtStream {
    marks: &'static Marks,
    /// True if the thought keeps its marks and the white space around it.
    whole: bool,
    held: String,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A thought, or the answer's heading, may come, at the beginning of the text or, with `after`, after a
    /// thought.
    Before {
        after: bool,
    },
    /// Inside a thought; `begun` if some of it has been passed on.
    Thinking {
        begun: bool,
    },
    Answering,
}

impl ThoughtStream {
    /// Starts at the beginning of a text; with `open` the text begins inside a thought. With `whole`, the
    /// thought keeps its marks.
    pub(crate) fn new(spelling: &ThoughtSpelling, open: bool, whole: bool) -> Self {
        Self::of(spelling.marks, open, whole)
    }

    /// For a model whose template shows no thoughts: a text between the commonest marks, at the beginning, is
    /// a thought and keeps its marks.
    pub(crate) fn unknown() -> Self {
        Self::of(&THINK, false, true)
    }

    fn of(marks: &'static Marks, open: bool, whole: bool) -> Self {
        let state = if open { State::Thinking { begun: false } } else { State::Before { after: false } };
        Self { marks, whole, held: String::new(), state }
    }

    /// Reads more of the text: adds thoughts to `thought`, and the rest to `answer`.
    pub(crate) fn push(&mut self, more: &str, thought: &mut String, answer: &mut String) {
        if self.state == State::Answering {
            answer.push_str(more);
            return;
        }
        let mut text = std::mem::take(&mut self.held);
        text += more;
        let mut at = 0;
        loop {
            let rest = &text[at..];
            let step = match self.state {
                State::Before { after } => self.before(rest, after, thought),
                State::Thinking { begun } => self.think(rest, begun, thought),
                State::Answering => {
                    answer.push_str(rest);
                    return;
                }
            };
            at += step.taken;
            let Some(next) = step.next else { break };
            self.state = next;
        }
        text.drain(..at);
        self.held = text;
    }

    /// Ends the text: passes on the text held back.
    pub(crate) fn end(&mut self, thought: &mut String, answer: &mut String) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Thinking { .. } if self.whole => *thought += &held,
            State::Thinking { .. } => *thought += held.trim_end(),
            State::Before { after: true } if !self.whole => *answer += held.trim_start(),
            _ => *answer += &held,
        }
        self.state = State::Answering;
    }

    fn before(&self, text: &str, after: bool, thought: &mut String) -> Step {
        let begins = text.trim_start();
        let blank = text.len() - begins.len();
        if blank > LONGEST_GAP {
            return Step { taken: 0, next: Some(State::Answering) };
        }
        let marks = self.marks.openers.iter().chain(self.marks.headings);
        if let Some(mark) = marks.clone().find(|mark| begins.starts_with(**mark)) {
            let taken = blank + mark.len();
            if self.marks.headings.contains(mark) {
                return Step { taken, next: Some(State::Answering) };
            }
            if self.whole {
                thought.push_str(&text[..taken]);
            }
            return Step { taken, next: Some(State::Thinking { begun: false }) };
        }
        if marks.into_iter().any(|mark| mark.starts_with(begins)) {
            return Step { taken: 0, next: None };
        }
        Step { taken: if after && !self.whole { blank } else { 0 }, next: Some(State::Answering) }
    }

    fn think(&self, text: &str, begun: bool, thought: &mut String) -> Step {
        let blank = if begun || self.whole { 0 } else { text.len() - text.trim_start().len() };
        let closer = self.marks.closer;
        if let Some(at) = text.find(closer) {
            let end = at + closer.len();
            thought.push_str(if self.whole {
                &text[..end]
            } else {
                &text[blank..(at - gap(&text[..at])).max(blank)]
            });
            return Step { taken: end, next: Some(State::Before { after: true }) };
        }
        let clear = text.len() - begun_in(text, closer);
        let gap = if self.whole { 0 } else { gap(&text[..clear]) };
        let taken = clear - gap;
        if taken <= blank {
            // Only white space has arrived.
            return Step { taken: blank.min(taken), next: None };
        }
        thought.push_str(&text[blank..taken]);
        Step { taken, next: (!begun).then_some(State::Thinking { begun: true }) }
    }
}

/// The result of reading a part of the text.
struct Step {
    taken: usize,
    /// `None` if more text is needed.
    next: Option<State>,
}

/// Returns the number of bytes at the end of `text` with which `mark` may begin.
fn begun_in(text: &str, mark: &str) -> usize {
    let most = text.len().min(mark.len() - 1);
    (1..=most).rev().find(|&n| text.as_bytes().ends_with(&mark.as_bytes()[..n])).unwrap_or(0)
}

/// Returns the bytes of white space at the end of `text` that are dropped if a mark follows.
fn gap(text: &str) -> usize {
    text.bytes().rev().take(LONGEST_GAP).take_while(u8::is_ascii_whitespace).count()
}

#[cfg(test)]
mod tests;
