//! Separates tool calls from a text as it arrives.

use serde_json::Value;

use super::likely::is_likely;
use super::scan::{Scanned, Scanner};
use super::spelling::{Body, FENCE, Mark, NONE, Spelling};
use super::{Tool, ToolCall, ToolSpelling, gemma, json, python, tags};

/// The most bytes of white space held back, since white space before a call is dropped.
const LONGEST_GAP: usize = 256;

/// The number of bytes that decide whether a call without a mark may begin.
const BEGINNING: usize = 512;

/// The most surplus brackets that are dropped after a call.
const STRAY_BRACKETS: usize = 4;

/// Takes the calls out of a text. Text that may be a call is held back until more text decides that; text
/// that is not a call is passed on unchanged. White space around calls is dropped.
#[derive(Debug)]
pub(crate) struct ToolStream {
    spelling: &'static Spelling,
    /// The model's marks that are control tokens; texts leave them out where they mark nothing.
    control: Vec<&'static str>,
    tools: Vec<Tool>,
    /// The text held back, from `start` on.
    held: String,
    start: usize,
    /// The first byte at which the next mark may begin.
    scan: usize,
    state: State,
    /// True if a message, or the text after a call, begins here.
    at_start: bool,
    /// True if the text passed on ends with a line break, or is empty.
    at_line_start: bool,
    /// True if a fence was passed on that has not been closed.
    in_fence: bool,
    /// The text that may follow the last call; `None` once other text followed it.
    after: Option<After>,
}

/// The text that may follow a call and belongs to it.
#[derive(Debug, Clone, Copy)]
struct After {
    /// True if the call opened a fence.
    fenced: bool,
    /// The number of brackets that may still be surplus.
    brackets: usize,
}

#[derive(Debug)]
enum State {
    /// The held text may end with the beginning of a mark.
    Text,
    /// The held text begins with white space, then has a mark at byte `at` and, from `body` on, a possible
    /// call.
    Call { mark: &'static Mark, at: usize, body: usize, scanner: Scanner, judged: Judged },
}

/// The result of judging a call by its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// The beginning has not arrived.
    NotYet,
    /// A part of the beginning has arrived.
    Partly,
    Likely,
}

impl ToolStream {
    /// Reads calls of the tools with these definitions.
    pub(crate) fn new(spelling: &ToolSpelling, tools: &[Value]) -> Self {
        Self {
            spelling: spelling.spelling,
            control: spelling.control.iter().map(|&(_, mark)| mark).collect(),
            tools: tools.iter().filter_map(Tool::of).collect(),
            held: String::new(),
            start: 0,
            scan: 0,
            state: State::Text,
            at_start: true,
            at_line_start: true,
            in_fence: false,
            after: None,
        }
    }

    /// Reads more of the text: adds calls to `calls`, and all other text to `text`.
    pub(crate) fn push(&mut self, more: &str, text: &mut String, calls: &mut Vec<ToolCall>) {
        self.held += more;
        while self.advance(text, calls) {}
        // Drops the text that this call has passed on, in one move.
        self.held.drain(..self.start);
        self.scan -= self.start;
        if let State::Call { at, body, scanner, .. } = &mut self.state {
            *at -= self.start;
            *body -= self.start;
            scanner.shift(self.start);
        }
        self.start = 0;
    }

    /// Ends the text; `stopped` unless it was cut off.
    pub(crate) fn end(&mut self, stopped: bool, text: &mut String, calls: &mut Vec<ToolCall>) {
        if let State::Call { scanner, .. } = &self.state {
            // A call without its end mark, or without its last brackets, may still be a call.
            let nearly = stopped && scanner.is_nearly_done();
            match self.parse(self.held.len(), true).filter(|_| nearly) {
                Some(found) => self.take_calls(self.held.len(), found, calls),
                None => self.release(self.held.len(), text),
            }
        }
        // The end mark of the last call may have been cut off.
        let rest = &self.held[self.start..];
        let cut_off = self.after.is_some_and(|after| {
            let fences = after.fenced.then_some(&FENCE);
            self.spelling.marks.iter().chain(fences).any(|mark| mark.closer.starts_with(rest))
        });
        if !cut_off {
            self.let_go(self.held.len(), text);
        }
    }

    /// Goes one step on; `false` if that needs more text.
    fn advance(&mut self, text: &mut String, calls: &mut Vec<ToolCall>) -> bool {
        let State::Call { mark, scanner, judged, .. } = &mut self.state else { return self.find_mark(text) };
        if *judged == Judged::Partly {
            let value = scanner.value;
            match is_likely(beginning(&self.held[value..]), &self.tools) {
                None if self.held.len() - value > BEGINNING => self.release(value, text),
                None => return false,
                Some(true) => *judged = Judged::Likely,
                Some(false) => self.release(value, text),
            }
            return true;
        }
        match scanner.scan(&self.held) {
            Scanned::More => return false,
            Scanned::Value => {
                let value = &self.held[scanner.value..];
                let clear = match mark.body {
                    Body::Code => value.starts_with('{'),
                    _ => mark.any_name || value.starts_with('<'),
                };
                *judged = if clear { Judged::Likely } else { Judged::Partly };
            }
            Scanned::End(end) => match self.parse(end, false) {
                Some(found) => self.take_calls(end, found, calls),
                None => self.release(end, text),
            },
            Scanned::Broken(at) => self.release(at, text),
        }
        true
    }

    /// Passes on text up to the next mark; returns whether there is one.
    fn find_mark(&mut self, text: &mut String) -> bool {
        if self.after.is_some() && !self.skip_after_call() {
            return false;
        }
        while let Some(&byte) = self.held.as_bytes().get(self.scan) {
            let at = self.scan;
            if !matches!(byte, b'<' | b'[' | b'`' | b'{') {
                self.scan += 1;
                continue;
            }
            let fence = byte == b'`' && self.is_line_start(at);
            let rest = &self.held[at..];
            let fences = fence.then_some(FENCE.opener);
            let marks = self.spelling.marks.iter().map(|mark| mark.opener);
            let marks = marks.chain(self.control.iter().copied()).chain(fences);
            let found = marks.clone().filter(|mark| rest.starts_with(mark)).max_by_key(|mark| mark.len());
            if marks.clone().any(|mark| mark.len() > rest.len() && mark.starts_with(rest)) {
                break;
            }
            match found {
                Some(opener) if fence && opener == FENCE.opener => {
                    if self.in_fence {
                        self.in_fence = false;
                        self.scan += opener.len();
                        continue;
                    }
                    self.open(at, &FENCE, text);
                }
                Some(opener) => match self.spelling.marks.iter().find(|mark| mark.opener == opener) {
                    Some(mark) => self.open(at, mark, text),
                    None => {
                        self.let_go(at, text);
                        self.start = at + opener.len();
                        self.scan = self.start;
                    }
                },
                None if matches!(byte, b'{' | b'[') && self.is_start(at) => self.open(at, &NONE, text),
                None => {
                    self.scan += 1;
                    continue;
                }
            }
            return true;
        }
        let clear = self.scan - gap(&self.held[self.start..self.scan]);
        self.let_go(clear, text);
        false
    }

    /// Returns whether only white space stands between this byte and the beginning of the message or the last
    /// call.
    fn is_start(&self, at: usize) -> bool {
        self.at_start && self.held[self.start..at].bytes().all(|byte| byte.is_ascii_whitespace())
    }

    /// Returns whether only spaces stand between this byte and the beginning of its line.
    fn is_line_start(&self, at: usize) -> bool {
        let before = self.held[self.start..at].trim_end_matches([' ', '\t']);
        before.ends_with('\n') || before.is_empty() && self.at_line_start
    }

    /// Drops the text that may stand between calls; `false` if more text is needed to tell.
    fn skip_after_call(&mut self) -> bool {
        let Some(mut after) = self.after else { return true };
        let closers = self.spelling.marks.iter().map(|mark| mark.closer).filter(|closer| !closer.is_empty());
        loop {
            let rest = self.held[self.start..].trim_start();
            self.start = self.held.len() - rest.len();
            let fences = after.fenced.then_some(FENCE.closer);
            let mut ends = closers.clone().chain(fences);
            let skipped = if let Some(end) =
                ends.clone().filter(|end| rest.starts_with(end)).max_by_key(|end| end.len())
            {
                (after.brackets, after.fenced) = (0, after.fenced && end != FENCE.closer);
                end.len()
            } else if rest.starts_with(['}', ']', ')']) && after.brackets > 0 {
                after.brackets -= 1;
                1
            } else if rest.starts_with([';', ',']) && after.brackets > 0 {
                1
            } else {
                // The next byte shows whether other text begins.
                let unclear = rest.is_empty() || ends.any(|end| end.starts_with(rest));
                self.after = Some(after);
                self.scan = self.start;
                return !unclear;
            };
            self.start += skipped;
        }
    }

    /// Begins a possible call with `mark` at `at`.
    fn open(&mut self, at: usize, mark: &'static Mark, text: &mut String) {
        // The white space before the mark stays held: if this is not a call, it is passed on.
        let gap = gap(&self.held[self.start..at]);
        self.let_go(at - gap, text);
        // A tag is a mark that is part of the call.
        let body = if mark.opener == "<function=" { at } else { at + mark.opener.len() };
        self.state =
            State::Call { mark, at, body, scanner: Scanner::new(mark, body), judged: Judged::NotYet };
    }

    /// Parses the calls that end before `end`; with `cut`, their last brackets or tags may be missing.
    fn parse(&self, end: usize, cut: bool) -> Option<Vec<ToolCall>> {
        let State::Call { mark, body, ref scanner, judged, .. } = self.state else { return None };
        if cut && judged != Judged::Likely && !matches!(mark.body, Body::Gemma(_)) {
            return None;
        }
        let whole = &self.held[body..end];
        let value = &self.held[scanner.value.min(end)..end];
        let known = |call: &ToolCall| mark.any_name || self.tools.iter().any(|tool| tool.name == call.name);
        let calls = match mark.body {
            Body::Gemma(quote) => vec![gemma::call(whole, quote)?],
            Body::Named => vec![json::named_call(whole)?],
            Body::Mistral if !value.starts_with(['[', '{']) => vec![json::mistral_call(whole)?],
            Body::Tagged if !value.starts_with(['[', '{']) => match value.find(['<', '{']) {
                Some(at) if value[at..].starts_with('{') => vec![json::named_call(value)?],
                _ => vec![tags::call(value, &self.tools)?],
            },
            Body::Python | Body::Code if !value.starts_with('{') => {
                let any = mark.any_name && mark.body == Body::Python;
                let found = python::calls(value, &self.tools, any);
                found.or_else(|| json::calls(value, !mark.any_name))?
            }
            _ => objects(value, !mark.any_name)?,
        };
        calls.iter().all(known).then_some(calls)
    }

    fn take_calls(&mut self, end: usize, found: Vec<ToolCall>, calls: &mut Vec<ToolCall>) {
        let opened = matches!(&self.state, State::Call { scanner, .. } if scanner.fenced());
        let fenced = opened || self.after.is_some_and(|after| after.fenced);
        calls.extend(found);
        (self.start, self.scan, self.state) = (end, end, State::Text);
        (self.at_start, self.at_line_start) = (true, true);
        self.after = Some(After { fenced, brackets: STRAY_BRACKETS });
    }

    /// Passes on the held text as no call, without marks that are control tokens.
    fn release(&mut self, end: usize, text: &mut String) {
        let mut scan = end;
        if let State::Call { mark, at, .. } = self.state {
            self.in_fence |= mark == &FENCE;
            // A mark that is part of the call is not searched again.
            scan = scan.max(at + 1);
        }
        let before = text.len();
        text.push_str(&self.held[self.start..end]);
        for mark in &self.control {
            if text[before..].contains(mark) {
                let left = text[before..].replace(mark, "");
                text.truncate(before);
                text.push_str(&left);
            }
        }
        (self.start, self.scan, self.state) = (end, scan, State::Text);
        (self.at_start, self.after) = (false, None);
        self.at_line_start = text[before..].trim_end_matches([' ', '\t']).ends_with('\n');
    }

    /// Passes on the text before the byte `end`.
    fn let_go(&mut self, end: usize, text: &mut String) {
        let going = &self.held[self.start..end];
        if going.is_empty() {
            return;
        }
        let line = going.trim_end_matches([' ', '\t']);
        self.at_line_start = line.ends_with('\n') || line.is_empty() && self.at_line_start;
        self.at_start &= going.bytes().all(|byte| byte.is_ascii_whitespace());
        self.after = None;
        text.push_str(going);
        self.start = end;
        self.scan = self.scan.max(end);
    }
}

/// Parses calls in JSON. After a mark that says that they are calls, they may be in Python's spelling, or
/// lack their last brackets.
fn objects(text: &str, strict: bool) -> Option<Vec<ToolCall>> {
    json::calls(text, strict).or_else(|| json::calls(&json::closed(text), strict)).or_else(|| {
        let mut spelled = String::new();
        let rest = python::value(text, &mut spelled, 0).filter(|_| !strict)?;
        rest.trim().is_empty().then(|| json::calls(&spelled, strict))?
    })
}

/// Returns the beginning of a text that decides whether it may be a call.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(BEGINNING);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns the bytes of white space at the end of `text` that are dropped if a call follows.
fn gap(text: &str) -> usize {
    text.bytes().rev().take(LONGEST_GAP).take_while(u8::is_ascii_whitespace).count()
}
