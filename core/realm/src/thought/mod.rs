//! What a model thinks before it answers: how its template marks that, and how it is told apart from the answer.

use realm_tokenizer::{ChatTemplate, TokenKind, Tokenizer};

/// White space that is kept back, since it is dropped around a thought, in bytes at most.
const LONGEST_GAP: usize = 256;

/// Tokens at the end of a prompt in which a thought may be opened.
const LAST_TOKENS: usize = 32;

/// How thoughts are marked.
#[derive(Debug, PartialEq, Eq)]
struct Marks {
    /// What begins one; the first is what prompts end with.
    openers: &'static [&'static str],
    closer: &'static str,
    /// What stands before an answer and is no part of it.
    headings: &'static [&'static str],
}

const fn marks(openers: &'static [&'static str], closer: &'static str) -> Marks {
    Marks { openers, closer, headings: &[] }
}

/// DeepSeek R1, Qwen 3 and most others.
static THINK: Marks = marks(&["<think>"], "</think>");

/// What shows in a template how thoughts are marked: the first that is there.
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

/// Tokens that the marks of gpt-oss are made of.
const CHANNELS: [&str; 4] = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"];

/// How a model marks its thoughts.
#[derive(Debug, Clone)]
pub(crate) struct ThoughtSpelling {
    marks: &'static Marks,
    /// Tokens of its marks that texts leave out otherwise.
    pub(crate) control: Vec<u32>,
}

impl ThoughtSpelling {
    /// The spelling that a chat template shows; `None` for a model that does not think, or not in a way that is known.
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

    /// How the engine follows a thought after a prompt.
    pub(crate) fn after(&self, prompt: &[u32], tokenizer: &Tokenizer) -> realm_engine::Thought {
        self.thought(self.is_opened_by(prompt, tokenizer))
    }

    /// How the engine follows what goes on from words of the model's own: in their thought, if they end in one. `None` if they
    /// do not, since no thought begins in the middle of an answer.
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

    /// Whether a prompt ends with the beginning of a thought, as templates of some models have it. Read from its tokens, since
    /// what users write is no mark in them.
    fn is_opened_by(&self, prompt: &[u32], tokenizer: &Tokenizer) -> bool {
        let last = &prompt[prompt.len().saturating_sub(LAST_TOKENS)..];
        let mut end = Vec::new();
        for &token in last {
            // A token outside the vocabulary spells nothing.
            let _ = tokenizer.push_bytes(token, true, &mut end);
        }
        let end = String::from_utf8_lossy(&end);
        self.marks.openers.iter().any(|opener| end.trim_end().ends_with(opener))
    }
}

fn detect(template: &str) -> Option<&'static Marks> {
    SHOWN.iter().find(|(mark, _)| template.contains(mark)).map(|&(_, marks)| marks)
}

/// Tells the thought from the answer in a text while it comes. What may be a mark is kept back until that is clear.
#[derive(Debug)]
pub(crate) struct ThoughtStream {
    marks: &'static Marks,
    /// Whether the thought keeps its marks and the white space around it.
    whole: bool,
    held: String,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A thought, or the answer's heading, may come; `after` a thought or at the beginning.
    Before {
        after: bool,
    },
    /// In a thought, of which something has come out if it has `begun`.
    Thinking {
        begun: bool,
    },
    Answering,
}

impl ThoughtStream {
    /// At the beginning of a text, which is in a thought already if that is `open`. With `whole`, the thought keeps its marks.
    pub(crate) fn new(spelling: &ThoughtSpelling, open: bool, whole: bool) -> Self {
        Self::of(spelling.marks, open, whole)
    }

    /// For a model whose template shows no thoughts: what stands between the commonest marks at the beginning is one, whole.
    pub(crate) fn unknown() -> Self {
        Self::of(&THINK, false, true)
    }

    fn of(marks: &'static Marks, open: bool, whole: bool) -> Self {
        let state = if open { State::Thinking { begun: false } } else { State::Before { after: false } };
        Self { marks, whole, held: String::new(), state }
    }

    /// Reads more of the text: adds what is thought to `thought`, and the rest to `answer`.
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

    /// The text has ended: what was kept back.
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
            // Only white space has come.
            return Step { taken: blank.min(taken), next: None };
        }
        thought.push_str(&text[blank..taken]);
        Step { taken, next: (!begun).then_some(State::Thinking { begun: true }) }
    }
}

/// What was read.
struct Step {
    taken: usize,
    /// `None` if more text is needed.
    next: Option<State>,
}

/// Bytes at the end of `text` with which `mark` may begin.
fn begun_in(text: &str, mark: &str) -> usize {
    let most = text.len().min(mark.len() - 1);
    (1..=most).rev().find(|&n| text.as_bytes().ends_with(&mark.as_bytes()[..n])).unwrap_or(0)
}

/// Bytes of white space at the end of `text` that would go with a mark after them.
fn gap(text: &str) -> usize {
    text.bytes().rev().take(LONGEST_GAP).take_while(u8::is_ascii_whitespace).count()
}

#[cfg(test)]
mod tests;
