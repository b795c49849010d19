//! Reads tool calls out of a text while it comes.

use serde_json::Value;

use super::scan::{Scanned, Scanner};
use super::spelling::{Body, Spelling};
use super::{ToolCall, ToolSpelling, gemma, json, name_of};
use crate::{Chunk, FinishReason};

/// White space that is kept back, since it is dropped before a call, in bytes at most.
const LONGEST_GAP: usize = 256;

/// Takes the calls out of a text. What may be one is kept back until that is clear; what turns out to be none comes out
/// as it was. White space around calls goes with them.
#[derive(Debug)]
pub(crate) struct ToolStream {
    spelling: &'static Spelling,
    /// Marks that texts leave out where they mark nothing.
    control: Vec<&'static str>,
    /// Names of the tools there are.
    names: Vec<String>,
    held: String,
    state: State,
    /// Whether a message, or what follows a call, begins here.
    at_start: bool,
    /// Whether a call has come, and nothing since.
    after_call: bool,
    called: bool,
}

#[derive(Debug)]
enum State {
    /// `held` may end with the beginning of a mark.
    Text,
    /// `held` begins with a mark of so many bytes, and a body.
    Call { mark: usize, scanner: Scanner },
}

impl ToolStream {
    /// Reads calls of tools with these definitions.
    pub(crate) fn new(spelling: &ToolSpelling, tools: &[Value]) -> Self {
        Self {
            spelling: spelling.spelling,
            control: spelling.control.iter().map(|&(_, mark)| mark).collect(),
            names: tools.iter().filter_map(name_of).map(str::to_owned).collect(),
            held: String::new(),
            state: State::Text,
            at_start: true,
            after_call: false,
            called: false,
        }
    }

    /// Replaces a chunk's text by what is no call, and adds the calls.
    pub(crate) fn read(&mut self, chunk: &mut Chunk) {
        self.held += &std::mem::take(&mut chunk.text);
        let last = chunk.finish.is_some();
        self.advance(&mut chunk.text, &mut chunk.tool_calls);
        if last {
            self.end(&mut chunk.text, &mut chunk.tool_calls);
        }
        self.called |= !chunk.tool_calls.is_empty();
        if let Some(finish) = &mut chunk.finish
            && self.called
            && finish.reason == FinishReason::Stop
        {
            finish.reason = FinishReason::ToolCalls;
        }
    }

    /// As far as it is clear what `held` is.
    fn advance(&mut self, text: &mut String, calls: &mut Vec<ToolCall>) {
        loop {
            let goes_on = match &mut self.state {
                State::Text => self.find_mark(text),
                State::Call { mark, scanner } => {
                    let mark = *mark;
                    match scanner.scan(&self.held) {
                        Scanned::More => false,
                        Scanned::End(end) => {
                            match self.parse(mark, end) {
                                Some(found) => self.take_calls(end, found, calls),
                                None => self.release(end, text),
                            }
                            true
                        }
                        Scanned::Broken(at) => {
                            self.release(at, text);
                            true
                        }
                    }
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Lets text go up to the next mark; says whether there is one.
    fn find_mark(&mut self, text: &mut String) -> bool {
        if self.after_call && !self.skip_closer() {
            return false;
        }
        let begins = self.held.trim_start();
        if self.at_start && self.spelling.bare && begins.starts_with('{') {
            self.open(self.held.len() - begins.len(), 0, text);
            return true;
        }
        let marks = std::iter::once(self.spelling.opener).chain(self.control.iter().copied());
        let found = marks.clone().filter_map(|mark| Some((self.held.find(mark)?, mark))).min();
        if let Some((at, mark)) = found {
            if mark == self.spelling.opener {
                self.open(at, mark.len(), text);
            } else {
                self.let_go(at, text);
                self.held.drain(..mark.len());
            }
            return true;
        }
        let begun = marks.map(|mark| begun(&self.held, mark)).max().unwrap_or(0);
        let clear = self.held.len() - begun;
        self.let_go(clear - gap(&self.held[..clear]), text);
        false
    }

    /// Drops what may stand between calls; `false` if it is not clear yet what stands there.
    fn skip_closer(&mut self) -> bool {
        let closer = self.spelling.closer;
        loop {
            let rest = self.held.trim_start();
            // Llama puts semicolons between calls.
            let rest = if !self.spelling.marked { rest.trim_start_matches([';', ' ', '\n']) } else { rest };
            let skipped = self.held.len() - rest.len();
            self.held.drain(..skipped);
            if self.held.is_empty() {
                return false;
            }
            if closer.is_empty() || !self.held.starts_with(closer) {
                return closer.is_empty() || !closer.starts_with(self.held.as_str());
            }
            self.held.drain(..closer.len());
        }
    }

    /// A call may begin at `at`, with a mark of so many bytes.
    fn open(&mut self, at: usize, mark: usize, text: &mut String) {
        let gap = gap(&self.held[..at]);
        self.let_go(at - gap, text);
        // The white space before it is kept: it comes out again if this is no call.
        let mark = gap + mark;
        let scanner = Scanner::new(self.spelling.body, self.spelling.closer, mark);
        self.state = State::Call { mark, scanner };
    }

    fn parse(&self, mark: usize, end: usize) -> Option<Vec<ToolCall>> {
        let body = &self.held[mark..end];
        let calls = match self.spelling.body {
            Body::Json => json::calls(body),
            Body::Mistral if body.trim_start().starts_with(['[', '{']) => json::calls(body),
            Body::Mistral => json::named_call(body).map(|call| vec![call]),
            Body::Gemma => gemma::call(body).map(|call| vec![call]),
        }?;
        // Without a mark, JSON is a call only if it names a tool.
        let marked = !self.held[..mark].trim().is_empty();
        let known = |call: &ToolCall| self.names.contains(&call.name);
        (marked || calls.iter().all(known)).then_some(calls)
    }

    fn take_calls(&mut self, end: usize, found: Vec<ToolCall>, calls: &mut Vec<ToolCall>) {
        self.held.drain(..end);
        calls.extend(found);
        (self.state, self.at_start, self.after_call) = (State::Text, true, true);
    }

    /// It is no call: lets go what has been read of it, without marks that are control tokens.
    fn release(&mut self, end: usize, text: &mut String) {
        let mut read: String = self.held.drain(..end).collect();
        for mark in &self.control {
            read = read.replace(mark, "");
        }
        *text += &read;
        (self.state, self.at_start, self.after_call) = (State::Text, false, false);
    }

    fn let_go(&mut self, bytes: usize, text: &mut String) {
        if bytes > 0 {
            if !self.held[..bytes].trim().is_empty() {
                self.at_start = false;
            }
            self.after_call = false;
            text.extend(self.held.drain(..bytes));
        }
    }

    /// The text has ended.
    fn end(&mut self, text: &mut String, calls: &mut Vec<ToolCall>) {
        if let State::Call { mark, .. } = self.state {
            // What ends without its mark may be a call all the same.
            match self.parse(mark, self.held.len()).filter(|_| self.spelling.body == Body::Gemma) {
                Some(found) => self.take_calls(self.held.len(), found, calls),
                None => self.release(self.held.len(), text),
            }
        }
        // After a call, its end mark may have been cut off.
        if !self.after_call || !self.spelling.closer.starts_with(self.held.as_str()) {
            self.let_go(self.held.len(), text);
        }
    }
}

/// Bytes at the end of `text` with which `mark` may begin.
fn begun(text: &str, mark: &str) -> usize {
    (1..mark.len()).rev().find(|&n| mark.is_char_boundary(n) && text.ends_with(&mark[..n])).unwrap_or(0)
}

/// Bytes of white space at the end of `text` that would go with a call after them.
fn gap(text: &str) -> usize {
    text.bytes().rev().take(LONGEST_GAP).take_while(u8::is_ascii_whitespace).count()
}
